"""step=integrity: what is wrong with the pixels of band cutouts."""

from skyloom.step.integrity.step import integrity

__all__ = ["integrity"]
