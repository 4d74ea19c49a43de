"""report=detections: catalogues of detections against one truth."""

from skyloom.report.detections.report import detections

__all__ = ["detections"]
