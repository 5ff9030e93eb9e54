"""Sub-commands of `hooked-vit`, one file each. Slow imports happen only when a command runs."""
