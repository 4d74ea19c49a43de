"""The numbers of a report on a selection, and a plain sentence for each."""

import zlib
from typing import Any

import numpy as np
from astropy import units as u
from astropy_healpix import HEALPix

from skyloom.metric.balance import coverage, gini, normalised_entropy, occupancy_entropy

SETS = ("all", "random", "selection")
SKY_ORDER = 6  # HEALPix order of the sky coverage: cells of 0.92 deg, a quarter of the side of a LoTSS mosaic

# Every number on the page, explained to somebody who has not read the method's paper.
MEANINGS = [
    ("Cutouts", "How many images were clustered and could be selected."),
    ("Selected", "How many images the selection holds, repeats counted."),
    ("Duplicates", "How many of the selected images are repeats of one that had been taken already."),
    ("Level", "One division of the images into groups of similar ones; level 1 is the finest."),
    ("Random", "As many images drawn blindly, each at most once: the baseline that a selection has to beat."),
    ("Clusters", "Into how many groups the level divides the images."),
    ("Coverage", "The fraction of these groups of which at least one image is there; 1 means that none is left out."),
    (
        "Evenness",
        "The entropy of the occupancy divided by its largest possible value; "
        "1 means that all groups hold the same number of images, 0 that one group holds all.",
    ),
    (
        "Entropy",
        "The same before it is divided, in nats; exp of it is the number of equally full groups that are as even.",
    ),
    (
        "Sky cells",
        "Of the sky cells (HEALPix, 0.92 degrees on a side) in which there is any cutout, the fraction of which at "
        "least one is there.",
    ),
    (
        "Gini",
        "How unequal the groups are in size; 0 means that all hold the same number of images, "
        "a value near 1 that a few hold nearly all.",
    ),
]


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for each purpose, so that one more draw here changes nothing there."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))


def occupancy(assignment: np.ndarray, positions: np.ndarray, clusters: int) -> np.ndarray:
    """How many of the images at ``positions`` (n,) lie in each cluster: int64, shape (clusters,)."""
    return np.bincount(assignment[positions], minlength=clusters)


def balance(counts: np.ndarray) -> dict[str, float]:
    """Coverage, entropy, also normalised, and Gini coefficient of counts per cluster, shape (K,)."""
    return {
        "entropy": round(occupancy_entropy(counts), 6),
        "coverage": round(coverage(counts), 6),
        "normalised_entropy": round(normalised_entropy(counts), 6),
        "gini": round(gini(counts), 6),
    }


def sky_coverage(ra_deg: np.ndarray, dec_deg: np.ndarray, sets: dict[str, np.ndarray]) -> dict[str, Any]:
    """Which part of the sky cells that hold any image is reached by each set.

    Parameters
    ----------
    ra_deg, dec_deg
        (N,) positions, NaN where there is none.
    sets
        Positions of the images in each set.

    Returns
    -------
    dict
        ``healpix_order``, ``cells`` that hold any image, and ``coverage`` per set; None without positions.
    """
    known = np.isfinite(ra_deg) & np.isfinite(dec_deg)
    cell = np.full(len(ra_deg), -1, dtype=np.int64)
    grid = HEALPix(nside=2**SKY_ORDER, order="nested")
    if known.any():
        cell[known] = grid.lonlat_to_healpix(ra_deg[known] * u.deg, dec_deg[known] * u.deg)
    cells = len(np.unique(cell[known]))
    reached = {name: len(np.unique(cell[positions][known[positions]])) for name, positions in sets.items()}
    fractions = {name: round(number / cells, 6) if cells else None for name, number in reached.items()}
    return {"healpix_order": SKY_ORDER, "cells": cells, "coverage": fractions}


def describe(values: np.ndarray) -> dict[str, Any]:
    """Number of finite values and their 5, 50 and 95 % quantiles; None when there are none."""
    finite = values[np.isfinite(values)]
    quantiles = np.quantile(finite, [0.05, 0.5, 0.95]).tolist() if len(finite) else [None] * 3
    return {"finite": len(finite), **dict(zip(("q05", "median", "q95"), quantiles, strict=True))}


def selection_numbers(
    assignments: list[np.ndarray],
    clusters_per_level: list[int],
    selected: np.ndarray,
    random: np.ndarray,
    peak_snr: np.ndarray,
) -> dict[str, Any]:
    """Compare a selection with all images and with a random one of equal size.

    Parameters
    ----------
    assignments
        Per level, (N,): cluster of each image.
    clusters_per_level
        Per level, number of clusters, empty ones included.
    selected, random
        Positions of the images in the selection (n,) and in the baseline.
    peak_snr
        (N,) peak signal to noise of the images, NaN where it could not be measured.

    Returns
    -------
    dict
        Plain numbers, ready for JSON.
    """
    number = len(assignments[0])
    sets = {"all": np.arange(number), "random": random, "selection": selected}
    levels = []
    for level, (assignment, clusters) in enumerate(zip(assignments, clusters_per_level, strict=True), start=1):
        measured = {name: balance(occupancy(assignment, sets[name], clusters)) for name in SETS}
        levels.append({"level": level, "clusters": clusters, **measured})
    distinct = len(np.unique(selected))
    return {
        "cutouts": number,
        "selected": len(selected),
        "selected_fraction": round(distinct / number, 6),
        "duplicates": len(selected) - distinct,
        "levels": levels,
        "peak_snr": {name: describe(peak_snr[sets[name]]) for name in SETS},
    }


def verdict(numbers: dict[str, Any]) -> str:
    """What the numbers say about the finest level, in a sentence."""
    level = numbers["levels"][0]
    ours, blind = level["selection"]["normalised_entropy"], level["random"]["normalised_entropy"]
    if abs(ours - blind) < 0.005:
        word = "no more evenly than"
    else:
        word = "more evenly than" if ours > blind else "less evenly than"
    return (
        f"On the finest level the selection is spread over the clusters {word} a random one of the same size: "
        f"evenness {ours:.3f} against {blind:.3f}. It reaches {100 * level['selection']['coverage']:.1f} % of the "
        f"{level['clusters']:,} clusters, the random one {100 * level['random']['coverage']:.1f} %."
    )
