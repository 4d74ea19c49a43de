"""report=segmentation: masks and boxes of detectors against the truth of a data set."""

from skyloom.report.segmentation.report import segmentation

__all__ = ["segmentation"]
