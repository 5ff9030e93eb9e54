"""Sub-commands of `hooked-vit`, one file each. What is slow to import is imported when a command runs."""
