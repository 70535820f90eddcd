"""Training: its data, one loop, and a style of one's own from a folder of frames."""
