"""A fit of a detector that takes a second: four cutouts of 64 px with three stars each, and a small network."""

from pathlib import Path

import yaml

from make.joint_data import JointData, joint_data
from make.tiny_fit import BACKBONE, TRAINER

CONF = Path(__file__).parents[2] / "conf"
IMAGES = 4  # of the part train, which is validated on too
SMALL = {
    "pyramid": {"channels": 16, "norm": "none", "map_norm": "none"}, "rpn": {"convs": 1, "samples": 32},
    "box": {"samples": 16, "convs": 0, "channels": 16, "fc": [32], "norm": "none"},
    "mask": {"convs": 1, "channels": 16, "norm": "none"}, "centroid": {"enabled": False},
}  # fmt: skip
TASK = {"warmup_steps": 0, "learning_rate": 3e-3, "ema_decay": 0.9, "score": 0.0, "top_k": 20}
DATAMODULE = {
    "name": "roman_lsst", "surveys": ["lsst"], "combine": "wcs", "interpolation": "lanczos", "conserve_flux": False,
    "cache_maps": True, "parts": {"train": "train", "val": "train", "test": None}, "masks": True, "truth": [],
    "blank_value": 0.0, "augment": None, "batch_size": 1, "stack": True, "workers": 0,
}  # fmt: skip


def options_of(group: str, name: str) -> dict:
    """The options of ``conf/<group>/<name>.yaml``."""
    plain = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return {key: value for key, value in plain.items() if key != "defaults"}


def tiny_detector() -> dict:
    """Options of a small Mask R-CNN."""
    usual = options_of("detector", "mask_rcnn")
    small = {key: {**usual[key], **values} for key, values in SMALL.items()}
    return {**usual, **small, "score_floor": 0.0, "top_k": 20}


def tiny_data(store: Path) -> JointData:
    """A data set whose LSST cutouts are just large enough for batch normalisation in the last map of one image."""
    return joint_data(store, lsst_px=64, roman_px=32)


def request(store: Path, **changes) -> dict:
    """Arguments of ``detect``; ``trainer``, ``task`` and ``datamodule`` are merged with the tiny ones."""
    options = {
        "weights": None, "checkpoint": {"file": None, "allow_missing": False}, "ckpt": None,
        "backbone": BACKBONE, "detector": tiny_detector(), "seed": 0,
        "preprocess": {"stretch": "none", "image_size_px": None, "channels": 1}, "logger": {"csv": True},
        "runs": str(store.parent / "runs"), "image_roots": None, "store": store,
    }  # fmt: skip
    task = {**options_of("task", "detect"), "seed": 0, **TASK}
    for key, usual in (("trainer", {**TRAINER, "log_every_n_steps": 1}), ("task", task), ("datamodule", DATAMODULE)):
        options[key] = {**usual, **changes.pop(key, {})}
    options.update(changes)
    if "data" not in options:
        data = tiny_data(store)
        options["data"] = {"dataset": data.dataset.id, "lsst": None, "lsst_stats": None}
    return options
