"""Cascade Mask R-CNN on torchvision's parts and any timm backbone."""

from skyloom.detector.rcnn import Rcnn


class CascadeMaskRcnn(Rcnn):
    """Mask R-CNN with several box stages (Cai & Vasconcelos 2018, arXiv:1712.00726); see :class:`Rcnn`."""
