"""report=features: what features hold, without labels."""

from skyloom.report.features.report import features

__all__ = ["features"]
