"""What a report of a sweep is made of: its folder read, its figures, their definitions and the published values."""
