"""True objects drawn: light profiles through a PSF, and the masks of what can be seen."""
