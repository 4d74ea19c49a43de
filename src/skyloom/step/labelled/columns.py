"""Labels, parts and folds from the columns of a catalogue."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.catalog_files import open_table
from skyloom.step.labelled.format import SPLIT_NAMES, LeftOut

if TYPE_CHECKING:
    from skyloom.step.labelled.catalog import LabelColumns

TRUE = {"1", "true", "t", "yes", "y"}
FALSE = {"0", "false", "f", "no", "n"}


@dataclass(frozen=True)
class LabelRow:
    """What a row of a catalogue says.

    Attributes
    ----------
    number : int
        Of the row, from 0.
    labels : tuple of str
        Sorted, each once.
    split : str or None
        Part.
    fold : int or None
        Fold.
    """

    number: int
    labels: tuple[str, ...]
    split: str | None
    fold: int | None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"row {self.number}"


def label_rows(path: Path, options: "LabelColumns", classes: list[str] | None) -> tuple[list[LabelRow], list[LeftOut]]:
    """Read the rows that carry a label, and those that do not.

    Raises
    ------
    ConfigError
        No column of labels is given.
    InputError
        A column is missing, or holds what cannot be a part, a fold or a truth value.
    """
    if not options.labels:
        raise ConfigError(f"format=table needs sources.labels=COLUMN; {path} has {', '.join(open_table(path).names)}")
    blank = {word.strip().lower() for word in options.no_label}
    own = _classes(path, options, blank) if options.columns_are == "classes" else _values(path, options, blank)
    if classes and (lost := sorted(set(classes) - {name for labels in own for name in labels})):
        there = ", ".join(sorted({name for labels in own for name in labels})[:20])
        raise InputError(f"{path}: no row of class {lost[0]}; there are {there or 'none'}")
    split = texts(path, "sources.split", options.split) if options.split else [""] * len(own)
    fold = texts(path, "sources.fold", options.fold) if options.fold else [""] * len(own)
    rows, left_out = [], []
    for number, labels in enumerate(own):
        kept = labels if classes is None else labels & set(classes)
        if not labels and options.columns_are == "values":
            left_out.append(LeftOut(f"row {number}", "no label", "its value is empty or one of sources.no_label"))
        elif labels and not kept:
            left_out.append(LeftOut(f"row {number}", "other class", "classes names those that are kept"))
        else:
            part = _part(path, split[number], number, blank)
            rows.append(LabelRow(number, tuple(sorted(kept)), part, _fold(path, fold[number], number, blank)))
    return rows, left_out


def texts(path: Path, option: str, name: str, *, exact: bool = False) -> list[str]:
    """Values of a column as text: whole numbers without a point, missing ones empty.

    With ``exact`` numbers with a fraction are refused, because ids that went through float64 have lost digits.
    """
    table = open_table(path)
    spelt = next(
        (other for other in (name, *table.names) if other in table.names and other.lower() == name.lower()), None
    )
    if spelt is None:
        near = get_close_matches(name, table.names, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise InputError(f"{path}: {option}={name} is not a column; it has {', '.join(table.names[:60])}{hint}")
    values, _ = table.column(spelt)
    if values.ndim != 1:
        raise InputError(f"{path}: column '{spelt}' holds arrays of {values.shape[1:]}, expected single values")
    if exact and values.dtype.kind == "f":
        raise InputError(
            f"{path}: column '{spelt}' holds {values.dtype}, in which ids lose digits; store whole numbers or text"
        )
    hidden = np.ma.getmaskarray(values)
    return [
        "" if masked else _text(value) for value, masked in zip(np.ma.getdata(values).tolist(), hidden, strict=True)
    ]


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode().strip() if isinstance(value, bytes) else str(value).strip()


def _values(path: Path, options: "LabelColumns", blank: set[str]) -> list[set[str]]:
    """Labels that the columns hold."""
    columns = [texts(path, "sources.labels", name) for name in options.labels or []]
    found = []
    for values in zip(*columns, strict=True):
        parts = [
            part for value in values for part in (value.split(options.separator) if options.separator else [value])
        ]
        found.append({part.strip() for part in parts if part.strip().lower() not in blank | {""}})
    return found


def _classes(path: Path, options: "LabelColumns", blank: set[str]) -> list[set[str]]:
    """Names of the columns that say yes."""
    found: list[set[str]] = []
    for name in options.labels or []:
        values = texts(path, "sources.labels", name)
        found = found or [set() for _ in values]
        for number, value in enumerate(values):
            if value.lower() in TRUE:
                found[number].add(name)
            elif value.lower() not in FALSE | blank | {""}:
                raise InputError(
                    f"{path}: row {number} of column '{name}' holds '{value}', expected 0 or 1, or true or false; "
                    "sources.columns_are=values takes the values as names of classes"
                )
    return found


def _part(path: Path, value: str, number: int, blank: set[str]) -> str | None:
    if value.lower() in blank | {""}:
        return None
    if value.lower() not in SPLIT_NAMES:
        raise InputError(f"{path}: row {number} has the part '{value}', expected one of {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[value.lower()]


def _fold(path: Path, value: str, number: int, blank: set[str]) -> int | None:
    if value.lower() in blank | {""}:
        return None
    if not value.isdecimal():
        raise InputError(f"{path}: row {number} has the fold '{value}', expected a whole number from 0")
    return int(value)
