"""Measure the cutout index of a large mosaic against cutting every window out, and against merely reading the file.

    python benchmarks/index.py [--size 10000] [--window 256] [--repeats 7] [--threads 2]

Writes one big-endian float64 mosaic with blank edges, of the size of a LoTSS DR2 mosaic, into a temporary folder. The
file lies in the page cache for everything that is timed, so that no disk is measured. Repeats alternate between the
candidates, and medians are compared.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from skyloom.sky.files.image import open_image
from skyloom.sky.window.sliding import measure_windows, stride_px, window_starts

OVERLAP = 0.5


def write_mosaic(path: Path, size_px: int) -> None:
    """Write noise with a circular blank edge, by blocks of rows, so that peak RSS means something."""
    header = fits.Header()
    header["SIMPLE"], header["BITPIX"], header["NAXIS"] = True, -64, 2
    header["NAXIS1"], header["NAXIS2"] = size_px, size_px
    for axis, (ctype, value) in enumerate([("RA---SIN", 123.0), ("DEC--SIN", 45.0)], start=1):
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"] = ctype, value
        header[f"CDELT{axis}"], header[f"CRPIX{axis}"] = 1.5 / 3600 * (-1) ** axis, size_px / 2
    header["BUNIT"] = "JY/BEAM"
    rng = np.random.default_rng(0)
    col = np.arange(size_px) - size_px / 2
    hdu = fits.StreamingHDU(path, header)
    for row0 in range(0, size_px, 200):
        row = np.arange(row0, min(row0 + 200, size_px)) - size_px / 2
        block = rng.normal(0.0, 83e-6, (len(row), size_px))
        block[row[:, None] ** 2 + col**2 > (0.53 * size_px) ** 2] = np.nan
        hdu.write(block.astype(">f8"))
    hdu.close()


def read_again(path: Path, buffer: bytearray) -> int:
    """Read the whole file with plain reads into one reused buffer: the least that any pass over it can cost."""
    total = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def cut_every_window(path: Path, window_px: int, folder: Path) -> int:
    """Do it the usual way: load, cut each window out with its WCS, drop those with a NaN, save the others as npy."""
    kept = 0
    with fits.open(path) as hdus:
        data, wcs = hdus[0].data, WCS(hdus[0].header)
        stride = stride_px(window_px, OVERLAP)
        for row0 in window_starts(data.shape[0], window_px, stride).tolist():
            for col0 in window_starts(data.shape[1], window_px, stride).tolist():
                centre = (col0 + (window_px - 1) / 2, row0 + (window_px - 1) / 2)
                cutout = Cutout2D(data, centre, window_px, wcs=wcs, mode="strict").data
                if not np.isnan(cutout).any():
                    np.save(folder / f"patch_{row0}_{col0}.npy", cutout)
                    kept += 1
    return kept


def index_windows(path: Path, window_px: int, threads: int) -> tuple[int, int]:
    """Open and measure with skyloom; return the numbers of all windows and of those without a blank pixel."""
    with open_image(path) as image:
        stats = measure_windows(image, window_px, OVERLAP, threads=threads)
    return len(stats), int(np.count_nonzero(stats.nan_frac == 0))


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10_000, help="side of the mosaic [px]")
    parser.add_argument("--window", type=int, default=256, help="side of the windows [px]; they overlap by half")
    parser.add_argument(
        "--repeats", type=int, default=7, help="repeats of the fast candidates; the slow one is run twice"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of skyloom's pass")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        mosaic, patches = Path(folder) / "mosaic-blanked.fits", Path(folder) / "patches"
        write_mosaic(mosaic, args.size)
        patches.mkdir()
        buffer = bytearray(1 << 20)
        candidates: dict[str, Callable[[], Any]] = {
            "skyloom": lambda: index_windows(mosaic, args.window, args.threads),
            "read, reused buffer": lambda: read_again(mosaic, buffer),
        }
        seconds: dict[str, list[float]] = {}
        results: dict[str, Any] = {}

        def take(name: str, call: Callable[[], Any]) -> None:
            spent, results[name] = timed(call)
            seconds.setdefault(name, []).append(spent)

        for name, call in candidates.items():  # fills the page cache and is not counted
            take(name, call)
        rss_mb = peak_rss_mb()  # asked before the peers below load the whole mosaic
        seconds.clear()
        candidates["np.fromfile"] = lambda: np.fromfile(mosaic, ">f8").size
        naive_at = {0, args.repeats - 1}
        for repeat in range(args.repeats):
            for name, call in candidates.items():
                take(name, call)
            if repeat in naive_at:
                take("Cutout2D", lambda: cut_every_window(mosaic, args.window, patches))

    windows, without_blanks = results["skyloom"]
    assert without_blanks == results["Cutout2D"], (
        f"found {without_blanks} and {results['Cutout2D']} windows without NaN"
    )
    spent = {name: median(values) for name, values in seconds.items()}
    print(f"{args.size} px float64 mosaic, in the page cache for all; window {args.window} px, overlap {OVERLAP}")
    print(f"{windows} windows, {without_blanks} without a blank pixel (the same number either way)")
    print(f"{'candidate':<22}{'median s':>10}{'min s':>10}{'runs':>6}{'windows/s':>12}")
    for name, values in seconds.items():
        rate = f"{windows / spent[name]:12.0f}" if name in ("skyloom", "Cutout2D") else ""
        print(f"{name:<22}{spent[name]:10.4f}{min(values):10.4f}{len(values):6d}{rate}")
    print(
        "ratio windows per second, skyloom / (Cutout2D + NaN test + np.save): "
        f"{spent['Cutout2D'] / spent['skyloom']:.1f}"
    )
    print(f"ratio wall time, skyloom / np.fromfile: {spent['skyloom'] / spent['np.fromfile']:.2f}")
    print(
        f"ratio wall time, skyloom / reads into a reused buffer: {spent['skyloom'] / spent['read, reused buffer']:.2f}"
    )
    print(f"peak RSS up to and with skyloom's pass: {rss_mb:.0f} MB (the file has {8e-6 * args.size**2:.0f} MB)")


if __name__ == "__main__":
    main()
