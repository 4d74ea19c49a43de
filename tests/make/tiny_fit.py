"""A fit that takes a second: 40 cutouts of 16 px, a network of a few hundred thousand weights."""

from pathlib import Path

from make.curated import fake_cutouts, fake_images

CUTOUTS = 40
BATCH = 8  # five batches per epoch

TASK = {
    "name": "byol", "projection_dim": 8, "hidden_dim": 16, "prediction_hidden_dim": 16, "momentum_start": 0.9,
    "momentum_end": 1.0, "learning_rate": 0.05, "weight_decay": 1e-6, "warmup_epochs": 1, "optimizer": "sgd",
}  # fmt: skip
PREPROCESS = {
    "stretch": "asinh", "clip_low_percentile": 1.0, "clip_high_percentile": 100.0, "softening_sigma": 3.0,
    "image_size_px": 32, "channels": 1, "mean": None, "std": None,
}  # fmt: skip
AUGMENT = {
    "crop_area_min": 0.65, "crop_aspect_max": 1.15, "rotation": "any", "flip_probability": 0.5,
    "blur_probability": 0.25, "blur_sigma_px": [0.1, 1.0], "stretch_probability": 0.5, "gamma_max": 1.5,
    "contrast_max": 0.4, "noise_fraction_max": 0.1,
}  # fmt: skip
TRAINER = {
    "max_epochs": 3, "precision": "32-true", "accumulate_grad_batches": 1, "gradient_clip_val": None,
    "limit_train_batches": None, "log_every_n_steps": 2, "deterministic": False, "accelerator": "cpu",
    "checkpoint_every_n_epochs": 1, "checkpoint_every_min": None, "sync_batchnorm": False, "channels_last": False,
    "on_nan": "stop",
    "max_nan_fraction": 0.1, "devices": 1, "num_nodes": 1, "strategy": "ddp", "validation": {
        "every_n_epochs": 1, "limit_batches": None, "overlays_every_n_epochs": None, "overlay_images": 2,
    }, "monitor": {
        "images": 16, "every_n_steps": 2, "views_every_n_epochs": None, "knn_every_n_epochs": 1, "knn_images": 200,
        "knn_k": 5, "knn_temperature": 0.07,
    },
}  # fmt: skip
BACKBONE = {"model": "test_resnet", "in_chans": 1, "image_size_px": 32, "weights": None, "allow_missing": False}


def make_cutouts(store: Path):
    images = fake_images(cutouts=CUTOUTS, seed=1, store=store)
    return fake_cutouts(images=images, cutouts=CUTOUTS, sky=True, spread_deg=5.0, store=store)


def request(store: Path, **changes) -> dict:
    """Arguments of ``train``; ``trainer`` and ``task`` are merged with the tiny ones."""
    options = {
        "weights": None,
        "ckpt": None,
        "monitor_labels": None,
        "datamodule": {"name": "cutouts", "batch_size": BATCH, "workers": 0},
        "backbone": BACKBONE,
        "preprocess": PREPROCESS,
        "augment": AUGMENT,
        "seed": 0,
        "logger": {"csv": True},
        "runs": str(store.parent / "runs"),
        "image_roots": None,
        "store": store,
    }
    merged = {"trainer": {**TRAINER, **changes.pop("trainer", {})}, "task": {**TASK, **changes.pop("task", {})}}
    options.update(merged | changes)
    if "data" not in options:
        options["data"] = {"cutouts": make_cutouts(store).id, "selection": None}
    return options
