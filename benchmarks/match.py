"""Friends of friends on the sky against FoFCatalogMatching, and its memory and time at 20 million points."""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from astropy.table import Table

from skyloom.match import fof_table, friends_of_friends, sky_points

DENSITY_ARCMIN2 = 80.0  # truth and detections of LSST together, i < 26


def main(argv: list[str] | None = None) -> None:
    """Print how much faster the same groups are found, then what a survey takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=360_000, help="points that both packages group")
    parser.add_argument("--many", type=int, default=20_000_000, help="points that only ours groups; 0 leaves that out")
    parser.add_argument("--length-arcsec", type=float, default=1.0, help="linking length")
    options = parser.parse_args(argv)
    compare(options.points, options.length_arcsec)
    if options.many:
        points = sky_points(*field(options.many, np.random.default_rng(1)))
        seconds, label = timed(lambda: friends_of_friends(points, options.length_arcsec))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"match, {options.many:,} points: {seconds:.1f} s, {label.max() + 1:,} groups, peak {peak:.2f} GB (aim: 8)"
        )


def compare(number: int, length: float) -> None:
    """Group one field by both packages in turn."""
    rng = np.random.default_rng(0)
    ra, dec = field(number, rng)
    half = number // 2
    catalogs = {
        "truth": Table({"ra": ra[:half], "dec": dec[:half]}),
        "det": Table({"ra": ra[half:], "dec": dec[half:]}),
    }
    ours, table = timed(lambda: fof_table(catalogs, length))
    try:
        from FoFCatalogMatching import match
    except ImportError:
        print(f"match, {number:,} points: {ours:.2f} s; the peer is not there: pip install FoFCatalogMatching")
        return
    theirs, other = timed(lambda: match(catalogs, length))
    assert table["group_id"].n_unique() == len(np.unique(other["group_id"]))
    print(
        f"match, friends of friends of {number:,} points at {length} arcsec: {ours:.2f} s, FoFCatalogMatching "
        f"{theirs:.2f} s: {theirs / ours:.1f} times (aim: 10)"
    )


def field(number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Half of the points anywhere in a square of the sky, the other half each a few arcsec from one of them."""
    side = np.sqrt(number / DENSITY_ARCMIN2) / 60
    first = number - number // 2
    dec = -40 + rng.uniform(0, side, first)
    ra = 50 + rng.uniform(0, side, first) / np.cos(np.radians(dec))
    near = rng.integers(0, first, number // 2)
    shift = rng.normal(0, 1.0 / 3600, (2, number // 2))
    return np.concatenate([ra, ra[near] + shift[0]]), np.concatenate([dec, dec[near] + shift[1]])


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Seconds and result of a call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
