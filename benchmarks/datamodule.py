"""Measure samples of nine channels of datamodule=roman_lsst against the plain way to put Rubin on the grid of Roman.

    python benchmarks/datamodule.py [--roman-px 512] [--lsst-px 148] [--objects 30] [--repeats 5]

Writes six cutouts of both surveys with annotated stars into a temporary folder; they lie in the page cache for all
that is timed, which runs in one process. The plain way is that of the predecessor: astropy asks the sky for every
pixel of the grid, OpenCV interpolates by Lanczos; or the two arrays of positions are kept as npy files and loaded. It
makes the image alone, skyloom the boxes, masks and centroids too. Repeats alternate, medians are compared.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from astropy.wcs.utils import pixel_to_pixel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from make.joint_data import JointData, joint_data
from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.roman_lsst import RomanLsstDataModule

OPTIONS = {
    "surveys": ["lsst", "roman"], "combine": "wcs", "interpolation": "lanczos", "conserve_flux": False,
    "parts": {"train": "train"}, "truth": ["object_id"], "blank_value": 0.0, "augment": None, "batch_size": 1,
    "stack": True, "workers": 0,
}  # fmt: skip
IMAGES = (0, 1, 3)  # rows of the training images with objects


def ours(data: JointData, *, cache_maps: bool, masks: bool) -> Callable[[], None]:
    samples = RomanLsstDataModule(
        {"dataset": data.dataset}, seed=0, cache_maps=cache_maps, masks=masks, **OPTIONS
    ).samples("train")

    def work() -> None:
        for number in IMAGES:
            samples[number]

    return work


def plain(data: JointData, folder: Path | None) -> Callable[[], None]:
    """The predecessor's way; with a folder the positions come from npy files."""
    lsst, roman = BandIndex(data.lsst), BandIndex(data.roman)

    def positions(row: int) -> np.ndarray:
        height, width = roman.shape(row)
        grid = np.meshgrid(np.arange(width), np.arange(height))
        return np.stack(pixel_to_pixel(roman.wcs(row), lsst.wcs(row), *grid)).astype(np.float32)

    if folder is not None:
        for row in IMAGES:
            np.save(folder / f"{row}.npy", positions(row))

    def work() -> None:
        for row in IMAGES:
            x, y = positions(row) if folder is None else np.load(folder / f"{row}.npy")
            moved = np.stack([cv2.remap(plane, x, y, cv2.INTER_LANCZOS4) for plane in lsst.read(row)])
            np.concatenate([moved, roman.read(row)])

    return work


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roman-px", type=int, default=512, help="side of Roman's cutouts [px]")
    parser.add_argument("--lsst-px", type=int, default=148, help="side of Rubin's cutouts [px]")
    parser.add_argument("--objects", type=int, default=30, help="annotated objects per cutout")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        data = joint_data(Path(name) / "store", args.objects, args.lsst_px, args.roman_px)
        candidates = {
            "skyloom, cached map": ours(data, cache_maps=True, masks=True),
            "skyloom, map made anew": ours(data, cache_maps=False, masks=True),
            "skyloom, cached, no masks": ours(data, cache_maps=True, masks=False),
            "astropy for every pixel": plain(data, None),
            "positions from npy": plain(data, Path(name)),
        }
        seconds: dict[str, list[float]] = {label: [] for label in candidates}
        for repeat in range(args.repeats + 1):  # the first round fills caches and is not counted
            for label, work in candidates.items():
                start = time.perf_counter()
                work()
                if repeat:
                    seconds[label].append(time.perf_counter() - start)
    print(
        f"9 channels of {args.roman_px} px, six of them from {args.lsst_px} px; {args.objects} objects; one process, "
        f"{len(IMAGES)} images per round"
    )
    rate = {label: len(IMAGES) / median(values) for label, values in seconds.items()}
    for label, value in rate.items():
        print(f"{label:<28}{value:8.1f} images/s")
    peer = rate["astropy for every pixel"]
    print(
        f"ratio images/s, skyloom with cached map / astropy for every pixel: {rate['skyloom, cached map'] / peer:.2f}"
    )
    print(f"ratio images/s, skyloom with map made anew / the same: {rate['skyloom, map made anew'] / peer:.2f}")
    print(
        "ratio images/s without masks, skyloom with cached map / positions from npy: "
        f"{rate['skyloom, cached, no masks'] / rate['positions from npy']:.2f}"
    )


if __name__ == "__main__":
    main()
