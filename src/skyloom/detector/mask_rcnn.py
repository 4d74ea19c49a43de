"""Mask R-CNN on torchvision's parts and any timm backbone: one box stage."""

from skyloom.detector.rcnn import Rcnn


class MaskRcnn(Rcnn):
    """Mask R-CNN (He et al. 2017, arXiv:1703.06870): one box stage; see :class:`Rcnn`."""

    most_stages = 1
