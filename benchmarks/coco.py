"""Average precision as skyloom asks faster-coco-eval for it, against pycocotools in the same run."""

import argparse
import contextlib
import io
import time
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from skyloom.metric.coco import curves
from skyloom.sky.mask.rle import encode_at

SIZE_PX = 512


def main(argv: list[str] | None = None) -> None:
    """Print both times and their ratio; fails where the two differ by more than 1e-6."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--objects", type=int, default=150, help="truths of each image")
    parser.add_argument("--masks", type=int, default=450, help="detections of each image")
    options = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    truth, found = field(rng, options.images, options.objects, options.masks)
    sizes = np.full((options.images, 2), SIZE_PX)
    start = time.perf_counter()
    ours = curves("mask", sizes, truth, found, classes=2, max_detections=1000)
    middle = time.perf_counter()
    theirs = peer(sizes, truth, found)
    seconds = middle - start, time.perf_counter() - middle
    known = theirs > -1
    differ = abs(np.nan_to_num(ours.precision[..., 0], nan=-1) - theirs).max()
    assert differ <= 1e-6, f"precision differs by {differ}"
    print(
        f"coco, mask AP {ours.precision[..., 0][known].mean():.6f} of {options.images} images with {options.objects} "
        f"objects and {options.masks} masks: {seconds[0]:.2f} s, pycocotools {seconds[1]:.2f} s: "
        f"{seconds[1] / seconds[0]:.1f} times; the precisions differ by at most {differ:.0e} (aim: 1e-6)"
    )


def field(rng: np.random.Generator, images: int, objects: int, masks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ellipses anywhere, and detections: each third near a truth, the others anywhere."""
    sides = []
    for number in (objects, masks):
        image = np.repeat(np.arange(images), number)
        x, y = rng.uniform(20, SIZE_PX - 20, (2, len(image)))
        radius = rng.uniform(2, 12, (2, len(image)))
        label = rng.integers(0, 2, len(image))
        sides.append({"image": image, "x": x, "y": y, "radius": radius, "labels": label})
    truth, found = sides
    near = np.flatnonzero(np.arange(len(found["image"])) % 3 == 0)
    other = found["image"][near] * objects + rng.integers(0, objects, len(near))
    for name, error in (("x", 1.0), ("y", 1.0), ("radius", 0.5), ("labels", 0)):
        own = truth[name][..., other]
        found[name][..., near] = own + (rng.normal(0, error, own.shape) if error else 0)
    found["scores"] = rng.random(len(found["image"]))
    for side in sides:
        shapes = [drawn(*values) for values in zip(side["x"], side["y"], *np.maximum(side["radius"], 1), strict=True)]
        side["boxes"] = np.array([box for box, _ in shapes], dtype=np.float64)
        side["rle"] = [text for _, text in shapes]
    return truth, found


def drawn(x: float, y: float, a: float, b: float) -> tuple[tuple[int, int, int, int], str]:
    """Box and run lengths of an ellipse."""
    row0, col0 = int(y - b), int(x - a)
    rows, cols = np.mgrid[row0 : int(y + b) + 2, col0 : int(x + a) + 2]
    mask = ((cols - x) / a) ** 2 + ((rows - y) / b) ** 2 <= 1
    mask[mask.shape[0] // 2, mask.shape[1] // 2] = True
    box = col0, row0, col0 + mask.shape[1], row0 + mask.shape[0]
    return box, encode_at(mask, row0, col0, (SIZE_PX, SIZE_PX))


def peer(sizes: np.ndarray, truth: dict[str, Any], found: dict[str, Any]) -> np.ndarray:
    """Pycocotools' precision, shape (10, 101, 2)."""
    whole = {
        "images": [{"id": i, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(sizes)],
        "categories": [{"id": 0}, {"id": 1}],
        "info": {},
    }

    def objects(side: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"id": n + 1, "image_id": int(i), "category_id": int(side["labels"][n]), "iscrowd": 0, "area": 1.0,
             "segmentation": {"size": [SIZE_PX, SIZE_PX], "counts": side["rle"][n]}, "bbox": side["boxes"][n].tolist()}
            | ({"score": float(side["scores"][n])} if "scores" in side else {})
            for n, i in enumerate(side["image"])
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for side in (truth, found):
            one = COCO()
            one.dataset = whole | {"annotations": objects(side)}
            one.createIndex()
            sides.append(one)
        judge = COCOeval(*sides, iouType="segm")
        judge.params.maxDets = [1000]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return np.asarray(judge.eval["precision"][..., 0, 0])


if __name__ == "__main__":
    main()
