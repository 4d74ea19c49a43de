"""step=annotate: a mask, box and keypoint for every true object of cutouts."""

from skyloom.step.annotate.step import annotate

__all__ = ["annotate"]
