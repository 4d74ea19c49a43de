"""format=table of step=labelled: the rows of a catalogue find their cutouts, by a key or by position."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat
from scipy.spatial import cKDTree

from skyloom.errors import InputError
from skyloom.sky.catalog import read_catalog
from skyloom.sky.geometry.sphere import angle_arcsec, chord, unit_vectors
from skyloom.step.labelled.columns import LabelRow, label_rows, texts
from skyloom.step.labelled.format import LeftOut
from skyloom.step.labelled.groups import groups_of, write_labels, write_left_out
from skyloom.store import Artifact, Build


class LabelColumns(BaseModel):
    """Options ``sources`` of step=labelled; see conf/step/labelled.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Annotated[
        Annotated[list[str], Field(min_length=1)] | None,
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ]
    columns_are: Literal["values", "classes"]
    separator: Annotated[str, Field(min_length=1)] | None
    no_label: list[str]
    id: str | None
    key: str
    ra: str | None
    dec: str | None
    radius_arcsec: PositiveFloat
    split: str | None
    fold: str | None

    def parameter(self) -> dict[str, Any]:
        """What enters the id."""
        return self.model_dump()

    @property
    def multi_label(self) -> bool:
        """Whether a cutout may have none or several labels."""
        return len(self.labels or []) > 1 or self.separator is not None or self.columns_are == "classes"


def write_table_labels(
    build: Build, path: Path, cutouts: Artifact, options: LabelColumns, classes: list[str] | None, group_level: int
) -> None:
    """Write ``labels.parquet``, by the row of the cutouts, and ``dropped.parquet`` for rows of the catalogue.

    Raises
    ------
    InputError
        A column is missing, or no row of the catalogue finds a cutout.
    """
    rows, left_out = label_rows(path, options, classes)
    read = len(rows) + len(left_out)
    table = cutouts.table("cutouts.parquet")
    identity = _keys(path, options) if options.id else _positions(path, options)
    rows = _each_once(rows, identity, left_out)
    matched, hint = (_by_key if options.id else _by_position)(rows, identity, table, options, left_out)
    if not matched:
        reasons = pl.Series([item.reason for item in left_out]).value_counts(sort=True).rows() if left_out else []
        told = ", ".join(f"{number} {reason}" for reason, number in reasons)
        raise InputError(
            f"{path}: none of {read} rows labels any of the {len(table)} cutouts {cutouts.id} ({told}); {hint}"
        )
    write_left_out(build, left_out)
    order = sorted(matched)
    labelled, own = table[order], [matched[at] for at in order]
    write_labels(
        build, labelled["cutout_id"], [row.labels for row in own], [row.split for row in own],
        [row.fold for row in own], groups_of(labelled, group_level), multi_label=options.multi_label,
    )  # fmt: skip
    build.table = "labels.parquet"
    build.count(read=read, kept=len(order), rows_used=len({row.number for row in own}),
                cutouts_without_label=len(table) - len(order))  # fmt: skip


def _keys(path: Path, options: LabelColumns) -> list[Any]:
    return texts(path, "sources.id", options.id or "", exact=True)


def _positions(path: Path, options: LabelColumns) -> list[Any]:
    catalog = read_catalog(path, ra=options.ra, dec=options.dec)
    return list(zip(catalog.ra_deg.tolist(), catalog.dec_deg.tolist(), strict=True))


def _each_once(rows: list[LabelRow], identity: list[Any], left_out: list[LeftOut]) -> list[LabelRow]:
    """One row per key or position; those that contradict each other are all left out."""
    found: dict[Any, list[LabelRow]] = {}
    for row in rows:
        found.setdefault(identity[row.number], []).append(row)
    kept = []
    for same in found.values():
        if len({(frozenset(row.labels), row.split, row.fold) for row in same}) > 1:
            why = "rows of one key or position have different labels, and none is known to be right"
            left_out += [LeftOut(row.name, "contradicting", why) for row in same]
        else:
            kept.append(same[0])
            left_out += [LeftOut(row.name, "repeated", "an earlier row says the same") for row in same[1:]]
    return kept


def _by_key(
    rows: list[LabelRow], keys: list[Any], table: pl.DataFrame, options: LabelColumns, left_out: list[LeftOut]
) -> tuple[dict[int, LabelRow], str]:
    """Row of the catalogue for each row of the cutouts that has one, and what to do when there are none."""
    if options.key not in table.columns:
        raise InputError(f"sources.key={options.key} is no column of the cutouts; they have {', '.join(table.columns)}")
    places: dict[str, list[int]] = {}
    for at, key in enumerate(table[options.key].cast(pl.String).to_list()):
        places.setdefault(key, []).append(at)
    matched = {}
    for row in rows:
        own = places.get(keys[row.number], [])
        if not own:
            left_out.append(LeftOut(row.name, "no cutout", f"no cutout has its {options.id} as {options.key}"))
        matched.update(dict.fromkeys(own, row))
    first = table[options.key].cast(pl.String)[0]
    return matched, f"compare sources.id with the column {options.key} of the cutouts, whose first value is {first}"


def _by_position(
    rows: list[LabelRow], positions: list[Any], table: pl.DataFrame, options: LabelColumns, left_out: list[LeftOut]
) -> tuple[dict[int, LabelRow], str]:
    """The same by the nearest row within a radius of the middle of each cutout."""
    ra, dec = (table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("ra_deg", "dec_deg"))
    placed = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    if not len(placed):
        raise InputError("the cutouts have no positions on the sky; join by a key: sources.id=COLUMN")
    good = [row for row in rows if np.isfinite(positions[row.number][0])]
    lost = {row.number for row in rows} - {row.number for row in good}
    left_out += [LeftOut(r.name, "no position", "right ascension or declination is missing or impossible")
                 for r in rows if r.number in lost]  # fmt: skip
    if not good:
        return {}, "give the columns with sources.ra and sources.dec"
    there = np.array([positions[row.number] for row in good])
    vectors, middles = unit_vectors(there[:, 0], there[:, 1]), unit_vectors(ra[placed], dec[placed])
    limit = float(chord(options.radius_arcsec))
    apart, nearest = cKDTree(vectors).query(middles)
    matched = {int(placed[i]): good[nearest[i]] for i in np.flatnonzero(apart <= limit)}
    used = {row.number for row in matched.values()}
    reach, _ = cKDTree(middles).query(vectors)
    for row, distance in zip(good, reach, strict=True):
        if row.number in used:
            continue
        if distance <= limit:
            left_out.append(LeftOut(row.name, "another is nearer", "another row is nearer to each cutout within reach"))
        else:
            why = f"the middle of no cutout lies within {options.radius_arcsec:g} arcsec"
            left_out.append(LeftOut(row.name, "no cutout", why))
    near = float(angle_arcsec(reach.min()))
    return matched, f"the nearest pair is {near:.4g} arcsec apart, sources.radius_arcsec={options.radius_arcsec:g}"
