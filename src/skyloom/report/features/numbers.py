"""The numbers of a report on features, and a plain sentence for each."""

import math
from typing import Any

import numpy as np

from skyloom.metric import representation as measure

MEANINGS = [
    ("RankMe", "How many directions the features use, by the entropy of their singular values, not centred "
     "(Garrido et al. 2023). Larger is better, between runs of one method only."),
    ("Effective rank", "The same with the mean taken away (Roy & Vetterli 2007)."),
    ("Participation ratio", "How many equally strong directions would have the same variances; it sees the strongest."),
    ("NESum", "All variances over the largest one (He & Ozay 2022)."),
    ("Stable rank", "Squared size of the features over that of their strongest direction, not centred."),
    ("alpha", "How fast the variances fall with their rank, λ ~ rank^-alpha (alpha-ReQ, Agrawal et al. 2022); "
     "near 1 generalised best, larger means too few directions, smaller noise."),
    ("Collapse std", "Spread of the directions of the features over its ideal 1/√D; 0 when all point the same way."),
    ("Uniformity", "How evenly the directions fill the sphere (Wang & Isola 2020): 0 is all alike, about -4 is even."),
    ("Numerical rank", "Directions that rise above the rounding of float32."),
    ("99 % of the variance", "How many principal components hold it."),
    ("Constant", "Dimensions that have one value for all cutouts, and so tell nothing."),
    ("Zeros", "Part of all values that is exactly 0, as behind a ReLU."),
]  # fmt: skip


def representation_numbers(found: measure.Moments, sample: np.ndarray) -> dict[str, Any]:
    """All measures of a representation.

    Parameters
    ----------
    found
        Moments of all rows.
    sample
        (n, D) some of them, for the uniformity.

    Returns
    -------
    dict
        Plain numbers, None where one is not defined.
    """
    spectrum = found.spectrum()
    fit = measure.alpha_req(spectrum)
    verdict = measure.collapse(found)
    dimensions = found.dimensions
    constant = np.flatnonzero(found.minimum == found.maximum)
    zeros = found.zeros / found.count
    return {
        "collapsed": verdict is not None,
        "collapse": verdict,
        "rankme": number(measure.rankme(spectrum)),
        "effective_rank": number(measure.effective_rank(spectrum)),
        "participation_ratio": number(measure.participation_ratio(spectrum)),
        "nesum": number(measure.nesum(spectrum)),
        "stable_rank": number(measure.stable_rank(spectrum)),
        "alpha": number(fit.alpha),
        "alpha_r2": number(fit.r2),
        "alpha_ranks": [fit.first, fit.last],
        "collapse_std": number(measure.collapse_std(found)),
        "collapse_std_ideal": number(dimensions**-0.5),
        "uniformity": number(measure.uniformity(sample)) if len(sample) > 1 else None,
        "uniformity_rows": len(sample),
        "numerical_rank": measure.numerical_rank(spectrum),
        "dimensions_99": measure.dimensions_for(spectrum),
        "constant_dimensions": len(constant),
        "zero_fraction": number(zeros.mean()),
        "dimensions_mostly_zero": int((zeros > 0.99).sum()),
        "zero_rows": found.zero_rows,
        "variances": [number(value) for value in spectrum.variances],
    }


def table_rows(numbers: dict[str, Any]) -> list[list[str]]:
    """Rows of the table: measure, value, of at most."""
    found, most = numbers["representation"], numbers["dimensions"]
    top = min(most, numbers["cutouts"])
    alpha = f"{_text(found['alpha'])} (R² {_text(found['alpha_r2'])})"
    return [
        ["RankMe", _text(found["rankme"]), f"{top}"],
        ["Effective rank", _text(found["effective_rank"]), f"{top}"],
        ["Participation ratio", _text(found["participation_ratio"]), f"{most}"],
        ["NESum", _text(found["nesum"]), f"{most}"],
        ["Stable rank", _text(found["stable_rank"]), f"{top}"],
        ["alpha", alpha, ""],
        ["Collapse std", _text(found["collapse_std"]), f"{found['collapse_std_ideal']:.3g} (ideal)"],
        ["Uniformity", _text(found["uniformity"]), "0 (worst)"],
        ["Numerical rank", f"{found['numerical_rank']}", f"{top}"],
        ["99 % of the variance", f"{found['dimensions_99']}", f"{most}"],
        ["Constant", f"{found['constant_dimensions']}", f"{most}"],
        ["Zeros", f"{100 * found['zero_fraction']:.2f} %", "100 %"],
    ]


def number(value: float) -> float | None:
    """Six significant digits, so that JSON is the same on machines that round the last ones differently."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _text(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4g}"
