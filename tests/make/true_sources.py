"""True objects with realistic sizes, colours and counts, without a table; bands as the files of surveys have them."""

from pathlib import Path

import numpy as np
import yaml

from skyloom.sky.drawing.truth_galaxy import Sources
from skyloom.sky.survey.bands import Band, read_bands

SURVEYS = Path(__file__).parents[2] / "conf" / "survey"
COLOURS = np.array([1.4, 0.7, 0.3, 0.0, -0.1, -0.2])


def bands_of(survey: str) -> tuple[Band, ...]:
    """Bands of a survey's file."""
    return read_bands(yaml.safe_load((SURVEYS / f"{survey}.yaml").read_text())["bands"])


def true_sources(rng: np.random.Generator, n: int, *, faintest: float = 25.3, zero_point: float = 27.0) -> Sources:
    """Galaxies and 7 % stars from magnitude 20 in the i band on; counts rise by 10^(0.35 m)."""
    mag = 20 + np.log10(1 + rng.random(n) * (10 ** (0.35 * (faintest - 20)) - 1)) / 0.35
    bands = mag[:, None] + COLOURS * rng.uniform(0.3, 1.3, (n, 1))
    is_star = rng.random(n) < 0.07
    radius = np.clip(0.9 * 10 ** (-0.08 * (mag - 20)) * rng.lognormal(0, 0.35, n), 0.08, 3)
    q, bulge_q = rng.uniform(0.25, 1, n), rng.uniform(0.5, 1, n)
    shape = np.column_stack(
        [
            radius / np.sqrt(q),
            radius * np.sqrt(q),
            radius / 2 / np.sqrt(bulge_q),
            radius / 2 * np.sqrt(bulge_q),
            rng.uniform(0, 180, n),
            rng.normal(0, 0.02, n),
            rng.normal(0, 0.02, n),
        ]
    )
    shape[is_star] = np.nan
    share = np.clip(rng.uniform(-0.3, 0.8, (n, 1)) + 0.1 * COLOURS, 0, 1)
    share[is_star] = 0
    return Sources(is_star, 10 ** (0.4 * (zero_point - bands)), share, shape, [None] * n)
