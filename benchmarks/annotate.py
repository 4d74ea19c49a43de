"""Objects annotated per second, against the original algorithm written plainly with GalSim, on one core."""

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from skyloom.run.notebook import compose
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.drawing.truth_galaxy import Sources
from skyloom.sky.drawing.truth_mask import MaskDrawer
from skyloom.sky.mask.deepdisc import DeepDiscDrawer
from skyloom.sky.survey.bands import Band, read_bands
from skyloom.step.annotate.columns import mask_row

SIDE_PX, SCALE_ARCSEC, MIN_AREA_PX, SNR = 148, 0.2, 12, 5.0
PER_CUTOUT = 100
DEPTH_MAG = (24.7, 26.0, 26.2, 25.7, 25.1, 24.4)  # magnitude of a point source at 5 sigma of the matched filter, ugrizy
COLOURS = np.array([1.4, 0.7, 0.3, 0.0, -0.1, -0.2])


def catalogue(rng: np.random.Generator, n: int, faintest: float) -> Sources:
    """Galaxies and 7 % stars from i = 18 on, counts rising by 10^(0.35 i); sizes, shapes and colours as in DC2."""
    mag = 18 + np.log10(1 + rng.random(n) * (10 ** (0.35 * (faintest - 18)) - 1)) / 0.35
    is_star = rng.random(n) < 0.07
    radius = np.clip(0.9 * 10 ** (-0.08 * (mag - 20)) * rng.lognormal(0, 0.35, n), 0.08, 3)
    q, bulge_q = rng.uniform(0.25, 1, n), rng.uniform(0.5, 1, n)
    shape = np.column_stack(
        [radius / np.sqrt(q), radius * np.sqrt(q), radius / 2 / np.sqrt(bulge_q), radius / 2 * np.sqrt(bulge_q),
         rng.uniform(0, 180, n), rng.normal(0, 0.02, n), rng.normal(0, 0.02, n)]
    )  # fmt: skip
    shape[is_star] = np.nan
    share = np.clip(rng.uniform(-0.3, 0.8, (n, 1)) + 0.1 * COLOURS, 0, 1)
    share[is_star] = 0
    flux = 10 ** (0.4 * (27 - mag[:, None] - COLOURS * rng.uniform(0.3, 1.3, (n, 1))))
    return Sources(is_star, flux, share, shape, [None] * n)


def bands() -> tuple[Band, ...]:
    """Bands of LSST from the survey's file."""
    from omegaconf import OmegaConf

    facts: Any = OmegaConf.to_container(compose("curate", ["step=annotate", "survey=lsst"]).survey)
    return read_bands(facts["bands"])


def annotated(drawer: MaskDrawer, sources: Sources, x: np.ndarray, y: np.ndarray, noise: np.ndarray) -> int:
    """Number of objects with a mask, cutout by cutout, as step=annotate does it."""
    shape, kept = (SIDE_PX, SIDE_PX), 0
    for start in range(0, len(x), PER_CUTOUT):
        rows = np.arange(start, min(start + PER_CUTOUT, len(x)))
        jacobian = np.broadcast_to(np.eye(2) * SCALE_ARCSEC, (len(rows), 2, 2))
        threshold = drawer.thresholds(noise, SNR)
        for mask in drawer.masks(sources[rows], x[rows], y[rows], jacobian, threshold, shape):
            if mask is not None:
                kept += isinstance(mask_row(mask.pixels, mask.row0, mask.col0, shape, MIN_AREA_PX), dict)
    return kept


def annotated_plainly(drawer: DeepDiscDrawer, sources: Sources, x: np.ndarray, y: np.ndarray, noise: np.ndarray) -> int:
    """The same with stamps of 128 px, the PSF applied twice, one object and band at a time."""
    rows = (drawer.row(sources, i, x[i], y[i], noise, SNR, (SIDE_PX, SIDE_PX), MIN_AREA_PX) for i in range(len(x)))
    return sum(isinstance(row, dict) for row in rows)


def timed(call: Callable[[], int]) -> tuple[float, int]:
    """Seconds of this process's CPU time, and what came out: other work on the machine does not count."""
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def main(argv: Sequence[str] | None = None) -> None:
    """Time both, with catalogues of two depths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=4000, help="objects per catalogue")
    parser.add_argument("--plain-objects", type=int, default=400, help="of these, how many the plain way draws")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    survey = bands()
    psfs = [psf_model(band) for band in survey]
    drawer = MaskDrawer(psfs, SCALE_ARCSEC, matched=True, dilate_px=None)
    plain = DeepDiscDrawer(psfs, SCALE_ARCSEC, survey)
    noise = 10 ** (0.4 * (27 - np.array(DEPTH_MAG))) * np.sqrt(drawer.power) / SNR
    print(f"LSST ugrizy, {SIDE_PX} px cutouts with {PER_CUTOUT} objects, {SNR} sigma; CPU seconds of one process")
    for faintest in (25.3, 29.0):
        rng = np.random.default_rng(0)
        sources = catalogue(rng, args.objects, faintest)
        x, y = rng.uniform(0, SIDE_PX - 1, (2, args.objects))
        some = np.arange(min(args.plain_objects, args.objects))
        part = (sources[some], x[some], y[some], noise)
        fast = [timed(lambda: annotated(drawer, sources, x, y, noise)) for _ in range(args.repeats + 1)][1:]  # noqa: B023
        slow = [timed(lambda: annotated_plainly(plain, *part)) for _ in range(args.repeats)]  # noqa: B023
        rate, plain_rate = (
            n / median(seconds for seconds, _ in runs) for n, runs in ((args.objects, fast), (len(some), slow))
        )
        print(f"\ntrue objects to i = {faintest}: annotated {fast[0][1] / args.objects:.1%} here, "
              f"{slow[0][1] / len(some):.1%} plainly")  # fmt: skip
        print(f"{'candidate':<22}{'objects':>9}{'median s':>10}{'objects/s':>12}")
        for name, n, runs in (("skyloom", args.objects, fast), ("plain GalSim", len(some), slow)):
            seconds = median(seconds for seconds, _ in runs)
            print(f"{name:<22}{n:9d}{seconds:10.3f}{n / seconds:12.0f}")
        print(f"ratio objects per second, skyloom / plain GalSim: {rate / plain_rate:.1f}")


if __name__ == "__main__":
    main()
