"""A BYOL fit against the bare networks on tensors in memory, its other costs, and views by batch against by image."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms import v2

import skyloom
from skyloom.backbone import build_backbone
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.run.notebook import compose
from skyloom.task import ByolTask
from skyloom.transform import Preprocess, RadioAugment

WINDOW_PX = 128


def main(argv: list[str] | None = None) -> None:
    """Print images/s of train.py task=byol over those of the bare networks, from alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="resnet18", help="file of conf/backbone")
    parser.add_argument("--image-px", type=int, default=128, help="side of the network's input")
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--steps", type=int, default=6, help="steps per run that are timed; one more goes before them")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are printed")
    options = parser.parse_args(argv)
    side = int(np.ceil(np.sqrt(options.batch * (options.steps + 1))))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        keys = {"survey": "lotss", "store": store}
        survey = skyloom.curate("simulate", mosaics=1, size_px=64 * (side + 1), blank_fraction=0.0, **keys)
        cutouts = skyloom.curate("cutouts", images=survey, window_px=WINDOW_PX, overlap=0.5, **keys)
        fit(cutouts, options, store)


def fit(cutouts: skyloom.Artifact, options: argparse.Namespace, store: Path) -> None:
    """Time the steps of the whole command, from raw Jy/beam on disk, against the same networks alone."""
    keys: dict[str, Any] = {
        "backbone": options.backbone, "backbone.image_size_px": options.image_px, "trainer": "cpu",
        "datamodule.batch_size": options.batch, "task.hidden_dim": 1024, "task.prediction_hidden_dim": 1024,
        "trainer.max_epochs": 1, "trainer.limit_train_batches": options.steps + 1,
    }  # fmt: skip
    config = compose("train", ["task=byol", *(f"{key}={value}" for key, value in keys.items())])
    network = build_backbone(config.backbone.model, in_chans=1, image_size_px=options.image_px)
    prepare = Preprocess.from_options(OmegaConf.to_container(config.preprocess, resolve=True))
    recipe = OmegaConf.to_container(config.augment, resolve=True)
    task = ByolTask(network, RadioAugment(**recipe), prepare, hidden_dim=1024, prediction_hidden_dim=1024)
    views = [torch.rand(options.batch, 1, options.image_px, options.image_px) for _ in range(2)]

    def whole(run: int) -> float:
        starts: list[float] = []  # what is done once per epoch, after the last batch, is not in the steps
        ByolTask.on_train_batch_start = lambda *_: starts.append(time.perf_counter())  # type: ignore[method-assign]
        skyloom.train("byol", cutouts=cutouts, seed=run, store=store, **keys)
        return float(np.median(np.diff(starts)))

    def bare() -> None:
        task.loss(views).total.backward()

    def without_target() -> None:
        predicted = [task.prediction(task.projection(task.backbone(view))) for view in views]
        task.criterion(*predicted).backward()

    bare()  # warm up
    runs = [
        (whole(run), seconds_of(bare, options.steps), seconds_of(without_target, options.steps))
        for run in range(options.repeats)
    ]
    full, alone, half = (statistics.median(values) for values in zip(*runs, strict=True))
    ratio = statistics.median(b / a for a, b, _ in runs)
    low = statistics.median(c / a for a, _, c in runs)
    print(
        f"train, byol {options.backbone} at {options.image_px} px, batch {options.batch}, {torch.get_num_threads()} "
        f"threads: {options.batch / full:.1f} images/s, bare networks {options.batch / alone:.1f} images/s: "
        f"{100 * ratio:.1f} % (aim: 90 %); {options.batch / half:.1f} images/s without the target's forward: "
        f"{100 * low:.1f} %",
        flush=True,
    )
    scaled = parts(task, cutouts, views, alone, options)
    by_image(task.augment, scaled, recipe, options.steps)


def parts(
    task: ByolTask, cutouts: skyloom.Artifact, views: list[Tensor], alone: float, options: argparse.Namespace
) -> Tensor:
    """Print what a step does beside the networks, in percent of them; return a batch of scaled images."""
    index, generator = CutoutIndex(cutouts), torch.Generator().manual_seed(0)
    rows = np.random.default_rng(0).permutation(len(index))[: options.batch]
    raw = torch.from_numpy(index.read(rows)).unsqueeze(1)
    scaled = task.preprocess.scale(raw)
    optimizer = task.recipe.build(task.recipe.groups(task.backbone, task.online()))
    task.loss(views).total.backward()
    optimizer.step()  # makes its state
    times = {
        "reading": seconds_of(lambda: index.read(rows), options.steps),
        "scaling": seconds_of(lambda: task.preprocess.scale(raw), options.steps),
        "two views": seconds_of(lambda: task.augment(scaled, generator), options.steps),
        "optimiser": seconds_of(optimizer.step, options.steps),
        "moving average": seconds_of(lambda: task.after_step(0), options.steps),
    }
    shares = ", ".join(f"{name} {100 * value / alone:.1f} %" for name, value in times.items())
    print(f"train, beside the networks (100 %): {shares}", flush=True)
    return scaled


def by_image(augment: torch.nn.Module, scaled: Tensor, recipe: dict[str, Any], times: int) -> None:
    """Print what two views of a batch gain over two views of each image, by our and by torchvision's transforms."""
    generator = torch.Generator().manual_seed(0)
    peer = torchvision_views(recipe, scaled.shape[-1])

    def ours() -> None:
        for image in scaled:
            augment(image[None], generator)

    def torchvisions() -> None:
        for image in scaled:
            peer(image), peer(image)

    batch = seconds_of(lambda: augment(scaled, generator), times)
    for name, call in (("the same, image by image", ours), ("torchvision v2, image by image", torchvisions)):
        seconds = seconds_of(call, times)
        print(
            f"augment, two views in batch: {len(scaled) / batch:.0f} images/s, {name}: "
            f"{len(scaled) / seconds:.0f} images/s: {seconds / batch:.2f} times (aim: above 1)",
            flush=True,
        )


def torchvision_views(recipe: dict[str, Any], side_px: int) -> v2.Transform:
    """As near to our views as torchvision's transforms come: no gamma, and noise of a fixed sigma."""
    sigma = recipe["blur_sigma_px"]
    contrast = v2.ColorJitter(contrast=recipe["contrast_max"])
    return v2.Compose(
        [
            v2.RandomRotation(180, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(side_px, scale=(recipe["crop_area_min"], 1.0), antialias=True),
            v2.RandomHorizontalFlip(recipe["flip_probability"]),
            v2.RandomApply([v2.GaussianBlur(2 * int(np.ceil(3 * sigma[1])) + 1, sigma)], recipe["blur_probability"]),
            v2.RandomApply([contrast], recipe["stretch_probability"]),
            v2.GaussianNoise(sigma=0.01, clip=False),
        ]
    )


def seconds_of(call: Callable[[], object], times: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
