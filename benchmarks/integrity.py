"""Measure step=integrity and step=stats over band cutouts against reading the same bytes once with numpy.fromfile.

    python benchmarks/integrity.py [--size 4608] [--images 8] [--bands 3] [--window 512] [--repeats 5]

Writes float32 FITS images of noise into a temporary folder (TMPDIR; choose a folder of the file system in question),
2 GB at the default size, cuts them into windows side by side, so that every pixel belongs to one cutout, and times the
two steps together. `warm` has the files in the page cache, `cold` has asked the system to drop them before. Repeats
alternate between the candidates, and medians are compared.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from astropy.io import fits

from skyloom.run.notebook import compose
from skyloom.run.verbs import arguments_of, function_of
from skyloom.step.cutouts.tiles.columns import BAND_COLUMNS, BAND_IMAGE_COLUMNS, PIECE_COLUMNS
from skyloom.step.integrity.step import integrity
from skyloom.step.stats.step import stats
from skyloom.store import Artifact, Build, builds, fingerprint


def write_images(folder: Path, names: list[str], size_px: int) -> list[Path]:
    """Write images of noise: one plane of noise, rolled by another amount for each."""
    noise = np.random.default_rng(0).normal(1.0, 30.0, (size_px, size_px)).astype(">f4")
    folder.mkdir()
    paths = [folder / f"{name}.fits" for name in names]
    for number, path in enumerate(paths):
        fits.PrimaryHDU(np.roll(noise, 7 * number, axis=1)).writeto(path)
    return paths


@builds("cutouts", version=1)
def side_by_side(build: Build, *, paths: list[str], bands: list[str], size_px: int, window_px: int) -> None:
    """Write an index of windows; paths hold the bands of one image after the other."""
    at = range(0, size_px - window_px + 1, window_px)
    images = [f"t{i}" for i in range(len(paths) // len(bands))]
    places = [(image, row0, col0) for image in images for row0 in at for col0 in at]
    table: dict[str, Any] = {name: [None] * len(places) for name in BAND_COLUMNS}
    table |= {
        "cutout_id": range(len(places)), "survey": ["bench"] * len(places), "image": [p[0] for p in places],
        "row0": [p[1] for p in places], "col0": [p[2] for p in places], "tile": [p[0] for p in places],
        **{name: [window_px] * len(places) for name in ("size_px", "height_px", "width_px")},
        "number": range(len(places)), "file_name": [f"c{i}_{p[0]}.npy" for i, p in enumerate(places)],
    }  # fmt: skip
    facts = [
        {"image": images[i // len(bands)], "band": bands[i % len(bands)], "path": path,
         "fingerprint": fingerprint(Path(path)), "height_px": size_px, "width_px": size_px, "dtype": ">f4"}
        for i, path in enumerate(paths)
    ]  # fmt: skip
    pieces = pl.DataFrame(table, schema=BAND_COLUMNS).select(
        "cutout_id", "image", "row0", "col0", height="height_px", width="width_px", to_row=0, to_col=0
    )
    frames = {
        "cutouts": pl.DataFrame(table, schema=BAND_COLUMNS),
        "images": pl.DataFrame(facts, schema=BAND_IMAGE_COLUMNS),
        "pieces": pieces.cast(PIECE_COLUMNS),
    }
    for name, frame in frames.items():
        with build.write(f"{name}.parquet") as path:
            frame.write_parquet(path)
    build.table = "cutouts.parquet"
    build.note(bands=bands, unit="ADU", pixel_scale_arcsec=0.0575, zero_point_mag=dict.fromkeys(bands, 27.0))


def drop_from_cache(paths: list[Path]) -> None:
    """Ask the system to forget the pages of files."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_once(paths: list[Path]) -> None:
    """Read all bytes of files, one after the other."""
    for path in paths:
        np.fromfile(path, dtype=np.float32)


def both_steps(cutouts: Artifact, options: dict[str, dict[str, Any]], threads: int) -> None:
    """Build both artifacts anew."""
    store = cutouts.path.parents[1]
    for kind in ("integrity", "stats"):
        shutil.rmtree(store / kind, ignore_errors=True)
    report = integrity(**options["integrity"] | {"cutouts": cutouts, "threads": threads, "store": store})
    stats(**options["stats"] | {"cutouts": cutouts, "integrity": report, "store": store})


def defaults_of(step: str) -> dict[str, Any]:
    """Arguments of a step as its configuration gives them; composing takes 0.2 s whatever the data, and is left out."""
    config = compose("curate", [f"step={step}", "cutouts=none"])
    return arguments_of(function_of("curate", config), config)


def main(argv: list[str] | None = None) -> None:
    """Write, index, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4608, help="side of the images [px], a multiple of the window")
    parser.add_argument("--images", type=int, default=8, help="number of images, each with all bands")
    parser.add_argument("--bands", type=int, default=3, help="number of bands")
    parser.add_argument("--window", type=int, default=512, help="side of the cutouts [px]")
    parser.add_argument("--threads", type=int, default=2, help="threads of step=integrity")
    parser.add_argument("--repeats", type=int, default=5, help="passes per candidate")
    args = parser.parse_args(argv)
    bands = [f"b{i}" for i in range(args.bands)]
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_images(folder / "images", [f"t{i}_{b}" for i in range(args.images) for b in bands], args.size)
        cutouts = side_by_side(paths=[str(p) for p in paths], bands=bands, size_px=args.size, window_px=args.window,
                               store=folder / "store")  # fmt: skip
        options = {step: defaults_of(step) for step in ("integrity", "stats")}
        candidates: dict[str, Callable[[], None]] = {
            "numpy.fromfile": lambda: read_once(paths),
            "integrity + stats": lambda: both_steps(cutouts, options, args.threads),
            "the same, 1 thread": lambda: both_steps(cutouts, options, 1),
        }
        for cache in ("warm", "cold"):
            for repeat in range(args.repeats + 1):
                for label, run in candidates.items():
                    if cache == "cold":
                        drop_from_cache(paths)
                    start = time.perf_counter()
                    run()
                    if repeat:  # the first pass imports and fills the cache
                        seconds.setdefault((label, cache), []).append(time.perf_counter() - start)
        number = len(cutouts.table())
    size = number * args.bands * args.window**2 * 4
    print(
        f"{number} cutouts of {args.bands} x {args.window} px, {size / 1e9:.2f} GB of float32; {os.cpu_count()} cores"
    )
    print(f"{'candidate':<22}{'cache':<8}{'median s':>10}{'min s':>10}{'GB/s':>8}")
    for (label, cache), values in seconds.items():
        spent = median(values)
        print(f"{label:<22}{cache:<8}{spent:10.3f}{min(values):10.3f}{size / spent / 1e9:8.2f}")
    for cache in ("warm", "cold"):
        for label in list(candidates)[1:]:
            ratio = median(seconds[label, cache]) / median(seconds["numpy.fromfile", cache])
            print(f"ratio seconds, {label} / numpy.fromfile, {cache}: {ratio:.2f}")


if __name__ == "__main__":
    main()
