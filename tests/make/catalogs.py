"""A truth and two catalogues of detections whose completeness, purity, shreds and blends are known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

STEP_ARCSEC = 20.0  # between the places of the field: nothing of one place is near another
ARCSEC = 1 / 3600


@dataclass(frozen=True)
class Known:
    """Files, and what is true of them within a radius of 0.5 arcsec.

    Both catalogues: 100 isolated truths, of which ``missed`` have no detection; 20 pairs of truths 0.3 arcsec apart, of
    which ``unrecognised`` have one detection and the others two; ``shreds`` second detections beside isolated truths,
    and ``spurious`` ones far from all.
    """

    truth: Path
    good: Path
    poor: Path
    truths: int
    numbers: dict[str, dict[str, int]]


ISOLATED, PAIRS, PAIR_ARCSEC, SHRED_ARCSEC = 100, 20, 0.3, 0.4
NUMBERS = {
    "good": {"missed": 10, "unrecognised": 5, "shreds": 3, "spurious": 4},
    "poor": {"missed": 30, "unrecognised": 12, "shreds": 8, "spurious": 20},
}


def write_catalogs(folder: Path, *, seed: int = 0, ra_deg: float = 359.99, dec_deg: float = 10.0) -> Known:
    """Write ``truth.parquet``, ``good.parquet`` (encoded as LSST's tables) and ``poor.csv`` around a position."""
    rng = np.random.default_rng(seed)
    places = ISOLATED + PAIRS + max(own["spurious"] for own in NUMBERS.values())
    side = int(np.ceil(np.sqrt(places)))
    east, north = (axis.ravel()[:places] * STEP_ARCSEC for axis in np.meshgrid(np.arange(side), np.arange(side)))
    mag, star = rng.uniform(20, 26, places), rng.random(places) < 0.3
    one, pair, empty = np.split(np.arange(places), [ISOLATED, ISOLATED + PAIRS])
    truth = _table(
        ra_deg, dec_deg,
        np.concatenate([east[one], east[pair] - PAIR_ARCSEC / 2, east[pair] + PAIR_ARCSEC / 2]),
        np.concatenate([north[one], north[pair], north[pair]]),
        np.concatenate([mag[one], mag[pair], mag[pair] + 0.5]),
        np.concatenate([star[one], star[pair], star[pair]]),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    files = {"truth": folder / "truth.parquet", "good": folder / "good.parquet", "poor": folder / "poor.csv"}
    truth.select(
        object_id=pl.format("t{}", "number"), ra="ra", dec="dec", mag_i="mag",
        truth_type=pl.when("star").then(2).otherwise(1),
    ).write_parquet(files["truth"])  # fmt: skip
    for name, own in NUMBERS.items():
        seen, lone = one[own["missed"] :], pair[: own["unrecognised"]]
        both = pair[own["unrecognised"] :]
        shredded, false = seen[: own["shreds"]], empty[: own["spurious"]]
        rows = np.concatenate([seen, lone, both, both, shredded, false])
        shift = np.concatenate([
            np.full(len(seen), 0.05), np.full(len(lone), -PAIR_ARCSEC / 2),
            np.full(len(both), -PAIR_ARCSEC / 2), np.full(len(both), PAIR_ARCSEC / 2),
            np.full(len(shredded), SHRED_ARCSEC), np.zeros(len(false)),
        ])  # fmt: skip
        table = _table(ra_deg, dec_deg, east[rows] + shift, north[rows], mag[rows] + 0.1, star[rows])
        if name == "good":
            table.select(
                objectId="number", coord_ra="ra", coord_dec="dec", mag_i="mag",
                snr_i=10 ** (11.2 - 0.4 * pl.col("mag")),
                extendedness=pl.when("star").then(0.0).otherwise(1.0),
            ).write_parquet(files[name])  # fmt: skip
        else:
            table.select(
                "ra", "dec", "mag", id=pl.format("d{}", "number"), kind=pl.when("star").then(1).otherwise(0)
            ).write_csv(files[name])
    return Known(files["truth"], files["good"], files["poor"], len(truth), NUMBERS)


def _table(
    ra: float, dec: float, east: np.ndarray, north: np.ndarray, mag: np.ndarray, star: np.ndarray
) -> pl.DataFrame:
    """Positions at offsets in arcsec, by rows of constant declination."""
    declination = dec + north * ARCSEC
    right_ascension = (ra + east * ARCSEC / np.cos(np.radians(declination))) % 360
    return pl.DataFrame(
        {"number": np.arange(len(east)), "ra": right_ascension, "dec": declination, "mag": mag, "star": star}
    )


def threshold_sweep(path: Path) -> Path:
    """A sweep of 3 scores and 3 NMS thresholds: completeness falls and purity grows with the score."""
    score, nms = (axis.ravel() for axis in np.meshgrid([0.3, 0.5, 0.7], [0.4, 0.5, 0.6]))
    purity = 0.6 + 0.4 * score - 0.1 * np.abs(nms - 0.5)
    completeness = 1 - 0.5 * score - 0.1 * np.abs(nms - 0.5)
    pl.DataFrame({"score": score, "nms": nms, "completeness": completeness, "purity": purity}).write_parquet(path)
    return path
