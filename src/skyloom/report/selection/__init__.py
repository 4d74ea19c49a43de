"""report=selection: how evenly a selection covers its clusters."""

from skyloom.report.selection.report import selection

__all__ = ["selection"]
