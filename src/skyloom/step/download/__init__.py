"""step=download: the images of a survey from its server."""

from skyloom.step.download.step import download

__all__ = ["download"]
