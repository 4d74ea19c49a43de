"""step=cutouts: images cut into windows; surveys with bands have packages of their own for it."""

from skyloom.step.cutouts.step import cutouts

__all__ = ["cutouts"]
