"""How faint a catalogue goes: limits in magnitude by convention, by survey length, and from its own counts."""

import numpy as np

from skyloom.errors import ConfigError, InputError

GOLD_MAG_I = 25.3  # the LSST gold sample (Ivezić et al. 2019, ApJ 873, 111, sect. 3.1)


def coadd_depth(full_depth_mag: float = 26.8, *, years: float, full_years: float = 10.0) -> float:
    """Depth of a coadd after part of a survey, in magnitudes: noise falls with the square root of the exposure.

    ``full_depth_mag - 2.5 log10(sqrt(full_years / years))``; 26.8 is LSST's i band after 10 years, 26.42 after 5.
    """
    if not 0 < years <= full_years:
        raise ConfigError(f"years={years}: expected more than 0 and at most {full_years:g}")
    return full_depth_mag - 2.5 * float(np.log10(np.sqrt(full_years / years)))


def turn_off(
    mag: np.ndarray, *, fit_range_mag: tuple[float, float] = (21.0, 26.2), bins: int = 400, share: float = 0.8
) -> float:
    """Magnitude at which counts fall below a share of the power law that brighter ones follow.

    Counts of an Euclidean-like sky are a straight line in log N against magnitude; where the catalogue becomes
    incomplete they fall below it. Counts are those of ``bins`` equal bins over the fit range and as far beyond as
    there are sources. The crossing is the first bin after the counts' maximum below ``share`` of the line, refined by
    the average of 5 neighbouring bins, so that one poor bin does not decide.

    Parameters
    ----------
    mag
        Magnitudes, shape (N,); NaN is left out.
    fit_range_mag
        Where the line is fitted, weighted by the counts.
    bins
        Within the fit range.
    share
        0 to 1.

    Returns
    -------
    float
        Centre of that bin; NaN when counts never fall below.

    Raises
    ------
    InputError
        Too few sources in the fit range to draw a line.
    """
    low, high = fit_range_mag
    if not low < high or bins < 2 or not 0 < share < 1:
        raise ConfigError(
            f"fit_range_mag={fit_range_mag}, bins={bins}, share={share}: expected low < high, 0 < share < 1"
        )
    mag = np.asarray(mag, dtype=np.float64)
    mag = mag[np.isfinite(mag)]
    width = (high - low) / bins
    last = max(high, float(mag.max(initial=high))) + 10 * width
    edges = low + width * np.arange(int(np.ceil((last - low) / width)) + 1)
    counts = np.histogram(mag, edges)[0].astype(np.float64)
    centre = (edges[:-1] + edges[1:]) / 2
    used = (centre < high) & (counts > 0)
    if used.sum() < 3:
        raise InputError(f"{int(counts.sum())} sources at {low} to {high} mag are too few for a line; use other limits")
    slope, offset = np.polyfit(centre[used], np.log10(counts[used]), 1, w=np.sqrt(counts[used]))
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    below = smooth < share * 10 ** (slope * centre + offset)
    start = int(smooth.argmax())
    after = np.flatnonzero(below[start:])
    return float(centre[start + after[0]]) if len(after) else float("nan")
