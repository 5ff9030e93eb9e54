"""What activation patching is made of: metrics, places, restarted runs and results."""
