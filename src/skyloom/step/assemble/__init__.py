"""step=assemble: annotations without the corrupt cutouts, as one data set."""

from skyloom.step.assemble.step import assemble

__all__ = ["assemble"]
