"""report=compare: probes side by side, and runs side by side."""

from skyloom.report.compare.report import compare

__all__ = ["compare"]
