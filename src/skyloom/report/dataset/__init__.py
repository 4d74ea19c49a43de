"""report=dataset: what a data set of annotated images holds."""

from skyloom.report.dataset.report import dataset

__all__ = ["dataset"]
