"""True objects of a table as numbers that can be drawn: fluxes, shapes, and what is wrong with the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import galsim
import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.errors import InputError
from skyloom.sky.drawing.light_profile import galaxy, star
from skyloom.sky.drawing.profile_forms import Profiles, forms
from skyloom.sky.survey.bands import CLASSES, Band, TableFacts

SHAPE_COLUMNS = (
    "size_disk_arcsec", "size_minor_disk_arcsec", "size_bulge_arcsec", "size_minor_bulge_arcsec",
    "position_angle_deg", "shear_1", "shear_2",
)  # fmt: skip
NJY_MAG = 31.4  # AB magnitude of 1 nJy (Oke & Gunn 1983, ApJ 266, 713)
STAR = CLASSES.index("star")
ROUNDING = 1.001  # a minor axis may exceed the major by this factor, as float32 columns of round objects do


Problem = tuple[str, str] | None
"""Reason and detail; None: all is well."""


@dataclass(frozen=True)
class Sources:
    """Objects that can be drawn, in the order of their table.

    Attributes
    ----------
    is_star
        Shape (n,); a star has no shape, its numbers are NaN.
    flux
        In units of the image, shape (n, C); 0 where the table has no magnitude.
    bulge_fraction
        Part of the flux in the bulge, shape (n, C); 0 for stars.
    shape
        Columns of `SHAPE_COLUMNS`, shape (n, 7): half-light semi-axes in arcsec, angle in degrees, reduced shear.
    problem
        Per object why it cannot be drawn: ``(reason, detail)``, or None.
    """

    is_star: NDArray[np.bool_]
    flux: NDArray[np.float64]
    bulge_fraction: NDArray[np.float64]
    shape: NDArray[np.float64]
    problem: list[Problem]

    def __len__(self) -> int:
        return len(self.is_star)

    def __getitem__(self, rows: NDArray[np.intp]) -> "Sources":
        problem = [self.problem[i] for i in rows]
        return Sources(self.is_star[rows], self.flux[rows], self.bulge_fraction[rows], self.shape[rows], problem)

    def ellipses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Half-light radius (geometric mean of the semi-axes, arcsec) and axis ratio of disk and bulge, each (n, 2)."""
        major, minor = self.shape[:, (0, 2)], self.shape[:, (1, 3)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(major * minor), np.minimum(minor / major, 1.0)

    def on_pixels(self, jacobian: NDArray[np.float64]) -> Profiles:
        """Profiles on the pixels of an image, by arcsec per pixel, (n, 2, 2); a part without size is a point."""
        radius, q = self.ellipses()
        parts = []
        for part in range(2):
            form = forms(radius[:, part], q[:, part], self.shape[:, 4], self.shape[:, 5:], jacobian)
            parts.append(np.where(np.isfinite(form).all(axis=1, keepdims=True), form, 0.0))
        return Profiles(*parts)

    def profile(self, i: int, channel: int) -> galsim.GSObject:
        """GalSim's profile of an object in a band before the PSF, in the sky's frame."""
        flux = float(self.flux[i, channel])
        if self.is_star[i]:
            return star(flux)
        radius, q = self.ellipses()
        return galaxy(
            disk_hlr_arcsec=radius[i, 0], disk_q=q[i, 0], bulge_hlr_arcsec=radius[i, 1], bulge_q=q[i, 1],
            position_angle_deg=self.shape[i, 4], bulge_fraction=float(self.bulge_fraction[i, channel]), flux=flux,
            shear_1=self.shape[i, 5], shear_2=self.shape[i, 6],
        )  # fmt: skip


def check_columns(columns: Sequence[str], facts: TableFacts, bands: Sequence[Band], where: str) -> None:
    """Check that a truth table has what drawing needs.

    Raises
    ------
    ConfigError
        The survey's file does not say which column holds something that is needed.
    InputError
        The table lacks a column; the message names it, what it stands for, and the file.
    """
    for standard, column in needed_columns(facts, bands).items():
        if column not in columns:
            raise InputError(
                f"{where} has no column {column}, in which the survey's file says {standard} is found; correct "
                f"survey.truth.columns, or give the table that column (it has {', '.join(columns)})"
            )


def needed_columns(facts: TableFacts, bands: Sequence[Band]) -> dict[str, str]:
    """By what it stands for the column of each number that drawing needs."""
    needed = {name: facts.column(name) for name in SHAPE_COLUMNS}
    for band in bands:
        for standard in ("bulge_fraction", "mag_galaxy", "mag_star"):
            needed[f"{standard} of band {band.name}"] = facts.column(standard, band=band.name)
    return needed


def sources_of(truth: pl.DataFrame, facts: TableFacts, bands: Sequence[Band]) -> Sources:
    """Take what can be drawn out of a truth table.

    Parameters
    ----------
    truth
        With ``category_id`` and the columns of :func:`needed_columns`.
    facts
        What the columns are called.
    bands
        In the order of the channels; their zero points turn magnitudes into flux.
    """
    is_star = truth["category_id"].to_numpy() == STAR
    share, mag = (np.empty((len(truth), len(bands))) for _ in range(2))
    for c, band in enumerate(bands):
        own = [_floats(truth, facts.column(name, band=band.name)) for name in ("mag_star", "mag_galaxy")]
        mag[:, c] = np.where(is_star, *own)
        share[:, c] = np.where(is_star, 0.0, _floats(truth, facts.column("bulge_fraction", band=band.name)))
    zero = np.array([band.zero_point_mag for band in bands])
    with np.errstate(over="ignore", invalid="ignore"):
        flux = 10 ** (0.4 * (zero - mag))
    flux[~np.isfinite(flux)] = 0.0
    shape = np.column_stack([_floats(truth, facts.column(name)) for name in SHAPE_COLUMNS])
    shape[is_star] = np.nan
    problem = _problems(is_star, flux, share, shape)
    return Sources(is_star, flux, np.where(flux > 0, share, 0.0), shape, problem)


def _floats(table: pl.DataFrame, column: str) -> NDArray[np.float64]:
    return table[column].cast(pl.Float64).fill_null(np.nan).to_numpy()


def _problems(
    is_star: NDArray[np.bool_], flux: NDArray[np.float64], share: NDArray[np.float64], shape: NDArray[np.float64]
) -> list[Problem]:
    """Why objects cannot be drawn; None for the others."""
    seen: NDArray[np.bool_] = flux > 0
    wrong: NDArray[np.bool_] = seen & ~((share >= 0) & (share <= 1))
    parts = {"disk": ((share < 1) & seen).any(axis=1), "bulge": ((share > 0) & seen).any(axis=1)}
    problem: list[Problem] = [None] * len(flux)

    def note(bad: NDArray[np.bool_], reason: str, tell: Callable[[int], str]) -> None:
        for i in np.flatnonzero(bad):
            problem[i] = reason, tell(int(i))

    numbers = np.isfinite(shape[:, 4:]).all(axis=1) & (np.hypot(shape[:, 5], shape[:, 6]) < 1)
    note(~is_star & ~numbers, "bad_shape", partial(_tell, "angle, shear_1, shear_2 = {}, {}, {}", shape[:, 4:]))
    for k, (part, drawn) in enumerate(parts.items()):
        major, minor = shape[:, 2 * k], shape[:, 2 * k + 1]
        good = np.isfinite(major) & (minor > 0) & (minor <= major * ROUNDING)
        axes = f"half-light axes of the {part}: {{}} and {{}} arcsec, expected major >= minor > 0"
        note(~is_star & drawn & ~good, "bad_shape", partial(_tell, axes, shape[:, 2 * k : 2 * k + 2]))
    note(np.any(wrong, axis=1), "bad_shape", lambda i: f"bulge_fraction={share[i][wrong[i]][0]}, expected 0 to 1")
    note(~np.any(seen, axis=1), "no_flux", lambda i: "no band has a magnitude")
    return problem


def _tell(text: str, values: NDArray[np.float64], i: int) -> str:
    return text.format(*values[i])
