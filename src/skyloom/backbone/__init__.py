"""Networks that turn images into features, all behind one small contract."""

from skyloom.backbone.build import Backbone, build_backbone
from skyloom.backbone.layers import LayerReader
from skyloom.backbone.weights import LoadReport, load_weights, save_weights

__all__ = ["Backbone", "LayerReader", "LoadReport", "build_backbone", "load_weights", "save_weights"]
