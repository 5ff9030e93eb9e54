"""What removal from an image is made of: the area under its curve, and removal in pixel space."""
