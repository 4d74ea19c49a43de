"""`make demo-detect`: the recipe detect_demo. A detector learns on a simulated sky; SExtractor is asked the same.

    python examples/demo_detect.py [PICTURE] [recipe.KEY=VALUE ...]

PICTURE (demo/detect.png) shows what both found in three images that the detector has not seen.
"""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import polars as pl
import torch
import yaml
from omegaconf import OmegaConf

import skyloom
from skyloom.datamodule.joint_sample import JointSamples
from skyloom.datamodule.roman_lsst import RomanLsstDataModule
from skyloom.metric.detection_scores import DetectionScores
from skyloom.run.notebook import compose
from skyloom.sky.mask.rle import decode, encode

STORE = Path(os.environ.get("SKYLOOM_STORE", "demo/store"))
NAMES = {"found": "Mask R-CNN", "sextractor": "SExtractor"}  # links of the recipe that make catalogues
SURE = {"found": 0.5, "sextractor": 0.0}  # least score of what is drawn
IOUS = (0.3, 0.5, 0.75)  # least intersection over union of a found mask with a true one
RGB = ("i", "r", "g")  # bands of the pictures


def numbers(artifact: skyloom.Artifact) -> str:
    """What came out, in a few words."""
    counts, notes = artifact.counts, artifact.notes
    match artifact.kind:
        case "images":
            return f"{counts['tiles']} Roman tiles, {counts['patches']} Rubin patches, {counts['sources']} sources"
        case "annotations":
            return f"{counts['kept']} objects have a mask, of {counts['read']}"
        case "dataset":
            return ", ".join(f"{counts[part]} images to {part}" for part in ("train", "val", "test"))
        case "model":
            best = notes["best"]
            judged = "" if best["value"] is None else f", {best['metric']} {best['value']:.3f} at best"
            return f"{counts['images']} images seen{judged}"
        case "candidates" | "catalog":
            return f"{counts['kept']} objects"
        case "report":
            return f"{len(list(artifact.path.glob('*.png')))} plots"
        case _:
            return f"{counts['kept']} images"


def unseen(chain: Any) -> tuple[JointSamples, tuple[str, ...]]:
    """The test images with their true objects, on the grid of the detector, and the bands of their channels."""
    surveys = chain.artifacts["model"].parameters["datamodule"]["surveys"]
    words = ["task=byol", "datamodule=roman_lsst", "transform=detection", f"dataset={chain.artifacts['dataset'].id}"]
    options: Any = OmegaConf.to_container(compose("train", words).datamodule, resolve=True)
    batches = RomanLsstDataModule.from_artifacts(
        {"dataset": chain.artifacts["dataset"]},
        {key: value for key, value in options.items() if key != "name"} | {"surveys": surveys},
        seed=0,
    )
    return batches.samples("test"), tuple(band for _, band in batches.bands)


def scores(catalog: pl.DataFrame, samples: JointSamples) -> dict[float, float]:
    """AP of the masks of a catalogue by least IoU; classes do not count, since SExtractor tells none."""
    judges = {iou: DetectionScores(["object"], areas={}, max_detections=1000, iou_thresholds=[iou]) for iou in IOUS}
    for sample in samples:
        masks = sample["masks"].numpy()
        own = catalog.filter(pl.col("cutout_id") == sample["id"])
        truth = {"boxes": sample["boxes"].numpy(), "labels": np.zeros(len(masks)), "rle": [encode(m) for m in masks]}
        found = {"boxes": own.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy(), "labels": np.zeros(len(own))}
        found |= {"scores": own["score"].to_numpy(), "rle": own["rle"].to_list()}
        for judge in judges.values():
            judge.add(sample["id"], sample["image"].shape[1:], truth, found)
    return {iou: judge.compute()["mask_ap"] for iou, judge in judges.items()}


def shown(image: torch.Tensor, bands: tuple[str, ...]) -> np.ndarray:
    """Three bands in colour, from 2 sigma below the sky logarithmically upwards."""
    pixels = image[[bands.index(band) for band in RGB]].numpy()
    sky = np.median(pixels, axis=(1, 2), keepdims=True)
    sigma = 1.4826 * np.median(np.abs(pixels - sky), axis=(1, 2), keepdims=True)
    return np.clip(np.arcsinh((pixels - sky) / sigma + 2) / np.arcsinh(200), 0, 1).transpose(1, 2, 0)


def draw(picture: Path, samples: JointSamples, bands: tuple[str, ...], catalogs: dict[str, pl.DataFrame]) -> None:
    """Draw the outlines of true and found objects over three images of many objects."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    ranked = sorted(range(len(samples)), key=lambda i: -len(samples[i]["labels"]))
    most = ranked[:: max(1, len(ranked) // 6)][:3]  # the most crowded one, and two from the upper half
    figure, axes = plt.subplots(len(most), 3, figsize=(9, 3 * len(most) + 0.3), layout="constrained", squeeze=False)
    for row, number in zip(axes, most, strict=True):
        sample = samples[number]
        masks = {"truth": list(sample["masks"].numpy())}
        for name, table in catalogs.items():
            own = table.filter((pl.col("cutout_id") == sample["id"]) & (pl.col("score") >= SURE[name]))
            masks[name] = [decode(counts, sample["image"].shape[1:]) for counts in own["rle"]]
        for axis, (name, found) in zip(row, masks.items(), strict=True):
            axis.imshow(shown(sample["image"], bands), origin="lower", interpolation="nearest")
            for mask in found:
                axis.contour(np.pad(mask, 1)[1:-1, 1:-1], [0.5], colors="w", linewidths=0.8)
            axis.set(xticks=[], yticks=[], title=f"{NAMES.get(name, 'truth')}: {len(found)}")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=90)


def main(picture: Path, options: dict[str, Any]) -> None:
    """Run the recipe; print what came out of each link, and who found more."""
    start = time.monotonic()

    def tell(link: Any, artifact: skyloom.Artifact) -> None:
        said = f"{artifact.kind:<12}{artifact.id}  {link.name}: {numbers(artifact)}"
        print(f"{time.monotonic() - start:6.1f} s  {said}", flush=True)

    chain = skyloom.recipe("detect_demo", store=STORE, on_link=tell, **{"paths.runs": "demo/runs", **options})
    samples, bands = unseen(chain)
    catalogs = {name: chain.artifacts[name].table("catalog.parquet") for name in NAMES}
    print(f"\nmasks in {len(samples)} images that nobody learnt from, whatever the class")
    for name, catalog in catalogs.items():
        found = "   ".join(f"AP{100 * iou:.0f} {value:.3f}" for iou, value in scores(catalog, samples).items())
        print(f"  {NAMES[name]:<11} {found}")
    draw(picture, samples, bands, catalogs)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\n{time.monotonic() - start:.0f} s, {memory:.1f} GiB at most. Run it again: nothing is done twice.")
    print(f"Look at  {picture}  and  {chain.artifacts['report'].file('report.html')}")


if __name__ == "__main__":
    given = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in sys.argv[1:]) if value}
    main(Path(next((word for word in sys.argv[1:] if "=" not in word), "demo/detect.png")), given)
