"""Measure random reads of packed cutouts against virtual ones, and against zarr-python reading the same array.

    python benchmarks/pack.py [--size 4000] [--images 2] [--window 256] [--batch 64] [--repeats 5]

Writes big-endian float64 images into a temporary folder (TMPDIR; choose a folder of the file system in question),
indexes and packs them, and reads batches of random cutouts. `warm` has the files in the page cache, `cold` has asked
the system to drop them before each batch, which counts what the disk has to do. Repeats alternate between the
candidates, and medians are compared.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import zarr
from astropy.io import fits

import skyloom
from skyloom.datamodule.cutout_index import CutoutIndex


def write_images(folder: Path, number: int, size_px: int) -> None:
    """Write images of smooth noise, which compresses about as badly as a survey's."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(number):
        noise = rng.normal(0.0, 83e-6, (size_px, size_px))
        for axis in (0, 1):  # neighbours within a beam are correlated
            noise = (noise + np.roll(noise, 1, axis) + np.roll(noise, 2, axis)) / np.sqrt(3)
        fits.PrimaryHDU(noise.astype(">f8")).writeto(folder / f"{i}.fits")


def drop_from_cache(*folders: Path) -> None:
    """Ask the system to forget the pages of all files below folders."""
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main(argv: list[str] | None = None) -> None:
    """Write, index, pack, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4000, help="side of the images [px]")
    parser.add_argument("--images", type=int, default=2, help="number of images")
    parser.add_argument("--window", type=int, default=256, help="side of the windows [px]; they overlap by half")
    parser.add_argument("--batch", type=int, default=64, help="cutouts per read")
    parser.add_argument("--repeats", type=int, default=5, help="batches per candidate")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", args.images, args.size)
        cutouts = skyloom.curate("cutouts", images=folder / "images", window_px=args.window, store=folder / "store")
        start = time.perf_counter()
        packed = skyloom.curate("pack", cutouts=cutouts, workers=1, store=folder / "store")
        pack_s = time.perf_counter() - start
        rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        array_path = packed.path / "pixels.zarr"
        readers: dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]] = {
            "virtual": lambda: CutoutIndex(cutouts).read,
            "packed": lambda: CutoutIndex(packed).read,
            "zarr-python": lambda: zarr.open_array(array_path, mode="r").oindex.__getitem__,
        }
        rng = np.random.default_rng(1)
        seconds: dict[tuple[str, str], list[float]] = {}
        for cache in ("warm", "cold"):
            for repeat in range(args.repeats + 1):
                rows = rng.integers(0, cutouts.counts["kept"], args.batch)
                results = []
                for reader, make in readers.items():
                    read = make()
                    read(rows[:1] if cache == "cold" else rows)  # what is opened once per run is not counted
                    if cache == "cold":
                        read = make()  # mapped pages stay while they are mapped
                        drop_from_cache(folder / "images", array_path)
                    start = time.perf_counter()
                    results.append(read(rows))
                    if repeat:
                        seconds.setdefault((reader, cache), []).append(time.perf_counter() - start)
                assert all(np.array_equal(results[0], other) for other in results[1:]), "the pixels differ"
        kept, stored = cutouts.counts["kept"], sum(f.stat().st_size for f in array_path.iterdir())
    raw = kept * args.window**2 * 4
    print(f"{kept} cutouts of {args.window} px from {args.images} images of {args.size} px; batches of {args.batch}")
    print(f"packed in {pack_s:.2f} s ({raw / pack_s / 1e6:.0f} MB/s of float32), {stored / raw:.2f} of the float32 "
          f"pixels, peak RSS {rss_mb:.0f} MB")  # fmt: skip
    print(f"{'candidate':<14}{'cache':<8}{'median ms':>10}{'min ms':>10}{'cutouts/s':>12}")
    spent = {key: median(values) for key, values in seconds.items()}
    for (reader, cache), values in seconds.items():
        middle = spent[reader, cache]
        print(f"{reader:<14}{cache:<8}{1e3 * middle:10.2f}{1e3 * min(values):10.2f}{args.batch / middle:12.0f}")
    for cache in ("warm", "cold"):
        ratio = spent["virtual", cache] / spent["packed", cache]
        print(f"ratio cutouts per second, packed / virtual, {cache}: {ratio:.2f}")
    print(f"ratio cutouts per second, packed / zarr-python on the same array, warm: "
          f"{spent['zarr-python', 'warm'] / spent['packed', 'warm']:.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
