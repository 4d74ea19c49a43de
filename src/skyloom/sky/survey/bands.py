"""Facts about a survey with several bands: what each band's pixels mean, and what the columns of tables are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from skyloom.errors import ConfigError
from skyloom.sky.survey.values import mapping, number, one_of, pixels, positive, text

CLASSES = ("galaxy", "star")
"""Kinds of objects, in the order of their numbers: category_id 0 is a galaxy, 1 a star."""

PSF_KEYS = {
    "kolmogorov_airy": ("fwhm_arcsec", "diameter_m", "obscuration"),
    "airy": ("diameter_m", "obscuration"),
    "gaussian": ("fwhm_arcsec",),
    "moffat": ("fwhm_arcsec", "beta"),
    "roman": ("sca", "pupil_bin"),
}
"""Models of a point-spread function that :mod:`skyloom.sky.drawing.psf` draws, and the keys that each needs."""

_WHOLE = ("sca", "pupil_bin")


@dataclass(frozen=True)
class Band:
    """One band of a survey.

    Attributes
    ----------
    name : str
        As in file names and columns (``H158``).
    zero_point_mag : float
        AB magnitude of one unit of pixel value.
    wavelength_nm : float
        Effective wavelength.
    psf : Mapping
        ``model`` and the keys of `PSF_KEYS`.
    extinction : float or None
        A_b / E(B-V) in magnitudes; None: nobody has said.
    """

    name: str
    zero_point_mag: float
    wavelength_nm: float
    psf: Mapping[str, Any]
    extinction: float | None

    def parameter(self) -> dict[str, Any]:
        """All of it: each value changes an annotation or a transform."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"psf": dict(self.psf)}

    @classmethod
    def from_mapping(cls, key: str, facts: object) -> Self:
        """Build a band from its lines in the survey's file."""
        known = [item.name for item in fields(cls)]
        facts = mapping(key, facts, known, known)
        model = facts["psf"].get("model") if isinstance(facts["psf"], Mapping) else None
        one_of(f"{key}.psf.model", model, tuple(PSF_KEYS))
        psf = mapping(f"{key}.psf", facts["psf"], ("model", *PSF_KEYS[str(model)]), PSF_KEYS[str(model)])
        extinction = facts["extinction"]
        return cls(
            name=text(f"{key}.name", facts["name"]),
            zero_point_mag=number(f"{key}.zero_point_mag", facts["zero_point_mag"]),
            wavelength_nm=positive(f"{key}.wavelength_nm", facts["wavelength_nm"]),
            psf={"model": model} | {name: _psf_value(f"{key}.psf.{name}", psf[name]) for name in PSF_KEYS[str(model)]},
            extinction=None if extinction is None else number(f"{key}.extinction", extinction),
        )


@dataclass(frozen=True)
class TableFacts:
    """What the columns of a table are called.

    Attributes
    ----------
    columns : Mapping
        Standard name to column of the file. ``{band}`` in a column stands for the name of each band: such a standard
        name (``mag``) has one column per band.
    classes : Mapping
        Values of the class column that mean ``galaxy`` and ``star``.
    """

    columns: Mapping[str, str]
    classes: Mapping[str, tuple[int, ...]]

    def parameter(self) -> dict[str, Any]:
        """All of it."""
        return {"columns": dict(self.columns), "classes": {key: list(value) for key, value in self.classes.items()}}

    def column(self, standard: str, *, band: str | None = None) -> str:
        """Name in the file of a standard column.

        Raises
        ------
        ConfigError
            The survey does not say which it is, or there is one per band and no band was given.
        """
        if standard not in self.columns:
            known = ", ".join(sorted(self.columns))
            raise ConfigError(f"the survey's file does not say which column holds '{standard}'; it knows {known}.")
        name = self.columns[standard]
        if "{band}" in name and band is None:
            raise ConfigError(f"column '{standard}' ({name}) has one column per band; ask for one band.")
        return name.replace("{band}", band or "")

    def category_of(self) -> dict[int, int]:
        """Class value of the file to category_id."""
        return {value: CLASSES.index(name) for name, values in self.classes.items() for value in values}

    @classmethod
    def from_mapping(cls, key: str, facts: object) -> Self:
        """Build the facts of a table from the survey's file."""
        facts = mapping(key, facts, ("columns", "classes"), ("columns",))
        columns = facts["columns"]
        if not isinstance(columns, Mapping) or not columns:
            raise ConfigError(f"survey.{key}.columns={columns!r}: expected standard names with the file's columns.")
        classes = mapping(f"{key}.classes", facts.get("classes") or {}, CLASSES)
        for name, values in classes.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or any(type(v) is not int for v in values):
                raise ConfigError(f"survey.{key}.classes.{name}={values!r}: expected a list of whole numbers.")
        return cls(
            columns={name: text(f"{key}.columns.{name}", column) for name, column in columns.items()},
            classes={name: tuple(values) for name, values in classes.items()},
        )


@dataclass(frozen=True)
class GridFacts:
    """Usual grid of cutouts on a tile: side of a window, and border of the tile to keep out of, in pixels."""

    window_px: int
    border_px: int

    @classmethod
    def from_mapping(cls, facts: object) -> Self:
        """Build the grid from the survey's file."""
        facts = mapping("grid", facts, ("window_px", "border_px"), ("window_px", "border_px"))
        return cls(
            pixels("grid.window_px", facts["window_px"], low=1), pixels("grid.border_px", facts["border_px"], low=0)
        )


def read_bands(value: object) -> tuple[Band, ...]:
    """Bands of a survey in the order of the channels.

    Raises
    ------
    ConfigError
        A key is missing, unknown or of the wrong kind, or two bands have one name.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"survey.bands={value!r}: expected a list of bands, or null.")
    bands = tuple(Band.from_mapping(f"bands[{i}]", facts) for i, facts in enumerate(value))
    names = [band.name for band in bands]
    if len(set(names)) < len(names):
        raise ConfigError(f"survey.bands: {', '.join(names)} has a name twice; each band needs its own.")
    return bands


def _psf_value(key: str, value: object) -> float | int:
    if key.endswith(tuple(f".{name}" for name in _WHOLE)):
        if type(value) is not int or value < 1:
            raise ConfigError(f"survey.{key}={value!r}: expected a whole number from 1.")
        return value
    number_ = number(key, value)
    if number_ < 0:
        raise ConfigError(f"survey.{key}={value!r}: expected a number from 0.")
    return number_
