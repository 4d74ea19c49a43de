"""Small R-CNNs from conf/detector on a small backbone, and images of rectangles with their truth."""

from pathlib import Path

import torch
import yaml

from skyloom.backbone import build_backbone
from skyloom.detector.build import build_detector

CONF = Path(__file__).resolve().parents[2] / "conf" / "detector"
CHANNELS, CLASSES = 2, 2


def tiny_options(name="cascade_mask_rcnn", **groups):
    """What conf/detector says, narrow and with few samples; groups change values or whole options."""
    found = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    found["pyramid"] |= {"channels": 8}
    found["rpn"] |= {"samples": 32, "convs": 1, "candidates_train": 60, "candidates_test": 40}
    found["rpn"] |= {"proposals_train": 40, "proposals_test": 20}
    found["box"] |= {"samples": 32, "convs": 1, "channels": 8, "fc": [16]}
    found["mask"] |= {"convs": 1, "channels": 8, "resolution": 7}
    found["centroid"] |= {"convs": 1, "channels": 8, "resolution": 7}
    for key, value in groups.items():
        if isinstance(value, dict):
            found[key] |= value
        else:
            found[key] = value
    return found


def tiny_rcnn(name="cascade_mask_rcnn", *, model="test_resnet", seed=0, **groups):
    """A detector whose heads differ enough from zero to have something to say."""
    network = build_backbone(model, in_chans=CHANNELS, seed=seed)
    detector = build_detector(
        tiny_options(name, **groups), backbone=network, in_chans=CHANNELS, classes=CLASSES, seed=seed
    )
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in detector.named_parameters():
            if not key.startswith("backbone"):
                value.add_(torch.randn(value.shape, generator=stream) * 0.05)
    return detector


def scene(number=5, size_px=64, *, seed=0):
    """One image (channels, size, size) of bright rectangles on noise, and its target."""
    stream = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=stream) * (size_px - 24)
    boxes = torch.cat([corner, corner + 6 + torch.rand(number, 2, generator=stream) * 16], dim=1).round()
    grid = torch.arange(size_px) + 0.5
    x, y = grid[None, None, :], grid[None, :, None]
    left, top, right, bottom = (side[:, None, None] for side in boxes.T)
    masks = (x > left) & (x < right) & (y > top) & (y < bottom)
    image = torch.randn(CHANNELS, size_px, size_px, generator=stream) + 5 * masks.any(0)
    labels = torch.randint(CLASSES, (number,), generator=stream)
    centroids = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
    return image, {"boxes": boxes, "labels": labels, "masks": masks, "centroids": centroids}


def scenes(*numbers):
    """Images (B, channels, 64, 64) and targets, with so many objects each."""
    pairs = [scene(number, seed=i) for i, number in enumerate(numbers)]
    return torch.stack([image for image, _ in pairs]), [target for _, target in pairs]
