"""Mean, standard deviation, range and percentiles of any number of pixels in one pass, by parts that can be merged."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# A bin of the sketch is all float32 numbers with the same upper 18 bits: sign, exponent and 9 bits of the mantissa.
SHIFT = 14
BINS = 1 << (32 - SHIFT)
RELATIVE_ERROR = 2.0**-10  # of a percentile: half the width of a bin, for normal numbers


@dataclass
class Moments:
    """What is known of some pixels.

    Mean and squared deviations are exact in float64 for each part (two passes over it) and merged by the pairwise
    formula of Chan, Golub & LeVeque (1983, Am. Stat. 37, 242, eq. 2.1), which loses nothing to a large mean over a tiny
    variance. Percentiles come from a histogram whose bins have a constant relative width, as in DDSketch (Masson et
    al. 2019, VLDB 12, 2195): merging adds counts, so they do not depend on the parts.

    Attributes
    ----------
    count, blank
        Pixels that are finite, and that are not.
    mean, squares
        Mean, and sum of squared deviations from it.
    low, high
        Lowest and highest pixel; NaN without any.
    bins
        int64 (262144,), counts in the order of the values.
    """

    count: int
    blank: int
    mean: float
    squares: float
    low: float
    high: float
    bins: np.ndarray

    @classmethod
    def none(cls) -> "Moments":
        """Of no pixels at all."""
        return cls(0, 0, 0.0, 0.0, np.nan, np.nan, np.zeros(BINS, dtype=np.int64))

    @classmethod
    def of(cls, pixels: np.ndarray) -> "Moments":
        """Measure an array of any shape; NaN and infinite pixels only count as blank."""
        flat = np.ascontiguousarray(pixels, dtype=np.float32).ravel()
        good = np.isfinite(flat)
        values = flat if good.all() else flat[good]
        if len(values) == 0:
            return cls(0, len(flat), 0.0, 0.0, np.nan, np.nan, np.zeros(BINS, dtype=np.int64))
        exact = values.astype(np.float64)
        mean = float(exact.mean())
        exact -= mean
        rest = float(exact.sum())  # what rounding left in the mean
        squares = float(np.dot(exact, exact)) - rest * rest / len(exact)
        mean += rest / len(exact)
        number = histogram(values)
        ends = float(values.min()), float(values.max())
        return cls(len(values), len(flat) - len(values), mean, max(squares, 0.0), *ends, number)

    def merged(self, other: "Moments") -> "Moments":
        """Both together."""
        blank = self.blank + other.blank
        if not self.count or not other.count:
            some = self if self.count else other
            return Moments(some.count, blank, some.mean, some.squares, some.low, some.high, some.bins)
        count, step = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            blank,
            self.mean + step * other.count / count,
            self.squares + other.squares + step * step * self.count * other.count / count,
            min(self.low, other.low),
            max(self.high, other.high),
            self.bins + other.bins,
        )

    def percentile(self, percent: float) -> float:
        """Return a percentile, right to 0.1 % of its own value; the ends are exact, and so is 0."""
        if not self.count:
            return float("nan")
        place = percent / 100.0 * (self.count - 1)
        at = int(np.searchsorted(self.bins.cumsum(), place, side="right"))
        value = _middle(np.array([min(at, BINS - 1)]))[0]
        return float(np.clip(value, self.low, self.high))

    def summary(self, percentiles: list[float]) -> dict[str, Any]:
        """Return plain numbers; ``std`` is that of the population."""
        std = float(np.sqrt(self.squares / self.count)) if self.count else float("nan")
        return {
            "count": self.count,
            "blank": self.blank,
            "mean": self.mean if self.count else float("nan"),
            "std": std,
            "min": self.low,
            "max": self.high,
            "percentiles": {f"{p:g}": self.percentile(p) for p in percentiles},
        }


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Count the finite pixels of an array by bin.

    Parameters
    ----------
    pixels
        float32, any shape, C-contiguous.

    Returns
    -------
    ndarray
        int64 (262144,), in the order of the values.
    """
    flat = pixels.ravel()
    good = np.isfinite(flat)
    return np.bincount(_bin_of(flat if good.all() else flat[good]), minlength=BINS)


def _bin_of(values: np.ndarray) -> np.ndarray:
    """Bin of each float32: the upper bits of a whole number that grows with the value."""
    bits = values.view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> SHIFT).astype(np.int64)


def _middle(bins: np.ndarray) -> np.ndarray:
    """Value in the middle of each bin; 0 for the two that hold it."""
    ends = []
    for ordered in (bins.astype(np.uint32) << SHIFT, (bins.astype(np.uint32) << SHIFT) | np.uint32((1 << SHIFT) - 1)):
        bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).astype(np.uint32)
        ends.append(bits.view(np.float32).astype(np.float64))
    middle = 0.5 * (ends[0] + ends[1])
    return np.where(np.abs(middle) < np.finfo(np.float32).tiny, 0.0, middle)
