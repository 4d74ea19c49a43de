"""step=export: a data set in the files that other tools read."""

from skyloom.step.export.step import export

__all__ = ["export"]
