"""Which columns of a table of sources say what, and what its numbers of classes mean."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from skyloom.errors import InputError
from skyloom.sky.catalog import column_of, guess_column, listed
from skyloom.sky.files.catalog_files import Table

CATEGORIES = ("galaxy", "star")
Choice = str | Literal[False] | None

# Columns in common use, most wanted first; compared whatever the case. Fluxes are not guessed: their units differ.
USUAL: dict[str, tuple[str, ...]] = {
    "mag": ("mag", "magnitude", "mag_auto", "mag_i", "i_mag", "i_psfmag", "mag_i_cmodel", "mag_true_i", "mag_h158",
            "mag_psf_i", "mag_mask_i", "mag_psf_h158", "mag_mask_h158"),
    "snr": ("snr", "s_n", "signal_to_noise", "peak_snr", "snr_i", "snr_i_cmodel", "snr_h158"),
    "size": ("size", "size_arcsec", "fwhm_arcsec", "fwhm", "half_light_radius", "size_true"),
    "flux": (),
    "class": ("class_name", "class", "category_id", "truth_type", "extendedness", "refextendedness", "pred_class"),
}  # fmt: skip
# What numbers mean under names that surveys use.
ENCODINGS: dict[str, dict[str, list[Any]]] = {
    "category_id": {"galaxy": [0], "star": [1]},
    "truth_type": {"galaxy": [1], "star": [2]},
    "extendedness": {"galaxy": [1], "star": [0]},
    "refextendedness": {"galaxy": [1], "star": [0]},
}


class Columns(BaseModel):
    """Columns of one table: a name, null to look for a usual one, or false for none."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    ra: str | None = None
    dec: str | None = None
    id: str | None = None
    mag: Choice = None
    snr: Choice = None
    size: Choice = None
    flux: Choice = None
    category: Choice = Field(default=None, alias="class")
    classes: dict[str, list[Any]] | None = None
    colour: tuple[str, str] | None = None
    zero_point_mag: float | None = None

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        if unknown := set(self.classes or {}) - set(CATEGORIES):
            raise ValueError(f"classes: {', '.join(sorted(unknown))}: expected the values of galaxy and star")
        return self

    def parameter(self) -> dict[str, Any]:
        """For the request of a report: what was said."""
        return self.model_dump(by_alias=True, exclude_none=True)

    def of(self, quantity: str) -> Choice:
        """What was said of a quantity, by its name in ``USUAL``."""
        chosen: Choice = getattr(self, "category" if quantity == "class" else quantity)
        return chosen

    def find(self, quantity: str, table: Table, option: str) -> str | None:
        """The column of a quantity, None if there is none.

        Raises
        ------
        InputError
            A column that was named is not there.
        """
        said = self.of(quantity)
        if said is False:
            return None
        if said is not None:
            return column_of(table, f"{option}.{quantity}", said)
        return guess_column(table, USUAL[quantity])

    def encoding(self, column: str, table: Table, option: str, *, text: bool) -> dict[Any, str]:
        """Category by value of a class column.

        Raises
        ------
        InputError
            The column has numbers whose meaning nobody said.
        """
        said = self.classes or ENCODINGS.get(column.lower())
        if said is None and text:
            said = {name: [name] for name in CATEGORIES}
        if said is None:
            raise InputError(
                f"{table.path}: the numbers of column '{column}' may mean anything; say which are galaxies and stars "
                f"with columns={{{option.removeprefix('columns.')}: {{classes: {{galaxy: [0], star: [1]}}}}}}"
            )
        return {value: name for name, values in said.items() for value in values}


def missing_magnitude(table: Table, name: str) -> InputError:
    """The error for a table without magnitudes where they are needed."""
    return InputError(
        f"{name} ({table.path}) has no magnitude column of a usual name ({', '.join(USUAL['mag'])}); name it with "
        f"columns={{{name}: {{mag: NAME}}}}, or leave magnitudes out with {{mag: false}}; it has {listed(table)}"
    )
