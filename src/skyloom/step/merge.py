"""step=merge: several cutout indexes become one; what does not fit together is refused, nothing goes missing."""

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from skyloom.errors import ConfigError, InputError
from skyloom.step.indexes import carried_notes, read_tables, refuse_bands, write_tables
from skyloom.store import Artifact, Build, Store, builds

PLACE = ("image", "row0", "col0", "size_px")


def open_several(value: Any, _parameters: Mapping[str, Any], store: Store) -> tuple[Artifact, ...]:
    """Resolver of the input ``cutouts``: a list of references, in any order, each artifact once."""
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"cutouts={value!r}: expected a list of cutouts, as cutouts=[ID,ID]")
    found = {artifact.id: artifact for artifact in (store.open(item, "cutouts") for item in value)}
    return tuple(found[id] for id in sorted(found))


@builds("cutouts", version=1, inputs={"cutouts": open_several})
def merge(build: Build, *, cutouts: tuple[Artifact, ...], allow_mixed_sizes: bool) -> None:
    """Join cutout indexes.

    Writes ``cutouts.parquet`` (by image, row, column and size; ``source`` still names the artifact that indexed the
    row), ``images.parquet`` (each image once) and ``dropped.parquet`` (rows that another index has as well, with the
    ``kept_source`` of the one that is kept).

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifacts of kind ``cutouts``; their order does not matter.
    allow_mixed_sizes
        Accept windows of different sizes; batches of such an index need a selection by size.

    Raises
    ------
    InputError
        Different units or window sizes, one image name for two different images, a damaged table.
    """
    for artifact in cutouts:
        refuse_bands(artifact, "merge")
    tables, listed = zip(*(read_tables(artifact) for artifact in cutouts), strict=True)
    ids = [artifact.id for artifact in cutouts]
    images = _join_images(ids, listed)
    _check_fill(cutouts)
    sizes = sorted({size for table in tables for size in table["size_px"].unique()})
    if len(sizes) > 1 and not allow_mixed_sizes:
        each = "; ".join(f"{id} {_short(table['size_px'].unique().sort())} px"
                         for id, table in zip(ids, tables, strict=True))  # fmt: skip
        raise InputError(f"the cutouts have different window sizes ({each}); allow_mixed_sizes=true joins them anyway")
    every = pl.concat(
        [table.with_columns(_from=pl.lit(i, pl.Int32)) for i, table in enumerate(tables)], how="diagonal_relaxed"
    ).sort(*PLACE, "cutout_id", "_from")
    _check_ids(every)
    first = every["cutout_id"].is_first_distinct()
    kept, again = every.filter(first), every.filter(~first)
    dropped = again.join(kept.select("cutout_id", kept_source="source"), on="cutout_id", maintain_order="left")
    write_tables(build, cutouts=kept.drop("_from"), images=images, dropped=dropped.drop("_from"))
    surveys = kept["survey"].unique().sort().to_list()
    without = images.filter(~pl.col("has_wcs"))["image"].to_list() if "has_wcs" in images.columns else []
    units = images["unit"].drop_nulls().unique().to_list()
    build.count(artifacts=len(ids), images=len(images), read=len(every), kept=len(kept))
    build.drop(
        "repeated window", len(again), why="another of the indexes has the same cutout; listed in dropped.parquet"
    )
    build.note(**carried_notes(cutouts, kept))
    build.note(
        survey=surveys[0] if len(surveys) == 1 else None,
        surveys=surveys,
        unit=units[0] if units else None,
        rows_per_artifact={id: len(table) for id, table in zip(ids, tables, strict=True)},
        images_without_wcs={"number": len(without), "names": without[:20],
                            "meaning": "their cutouts have null ra_deg, dec_deg and healpix"},
    )  # fmt: skip


def _join_images(ids: list[str], listed: tuple[pl.DataFrame, ...]) -> pl.DataFrame:
    """Each image once, by name; refuses other content under one name, and different units."""
    every = pl.concat(
        [table.with_columns(_from=pl.lit(id)) for id, table in zip(ids, listed, strict=True)], how="diagonal_relaxed"
    )
    clash = every.group_by("image").agg(pl.col("fingerprint").n_unique()).filter(pl.col("fingerprint") > 1)
    if len(clash):
        name = str(clash["image"].min())
        two = every.filter(pl.col("image") == name).unique("fingerprint", keep="first", maintain_order=True)
        where = " and ".join(f"{path} (cutouts {id})" for path, id in two.select("path", "_from").rows()[:2])
        raise InputError(f"image {name} has different content in {where}; {len(clash)} such name(s). Index one of them "
                         "again under another name, or merge indexes of the same files")  # fmt: skip
    known = every.filter(pl.col("unit").is_not_null()).unique("unit", keep="first", maintain_order=True)
    if len(known) > 1:
        each = " and ".join(f"{unit} (image {image}, cutouts {id})"
                            for unit, image, id in known.select("unit", "image", "_from").rows()[:2])  # fmt: skip
        raise InputError(f"the cutouts have different units: {each}; work with them apart")
    # The place of a file is taken as a whole from the first index; only facts that it lacks come from another.
    place = every.unique("image", keep="first", maintain_order=True).drop("_from")
    facts = [name for name in place.columns if name not in ("image", "artifact", "path", "fingerprint")]
    filled = every.group_by("image", maintain_order=True).agg(pl.col(facts).drop_nulls().first())
    return (
        place.select("image", "artifact", "path", "fingerprint").join(filled, on="image", maintain_order="left")
        .select(place.columns).sort("image")
    )  # fmt: skip


def _check_fill(cutouts: tuple[Artifact, ...]) -> None:
    """Whoever reads cutouts fills their blank pixels as the index says, so one index can say only one thing."""
    ways = {json.dumps(artifact.notes.get("fill_value")): artifact.id for artifact in cutouts}
    if len(ways) > 1:
        each = ", ".join(f"{id}: fill_value={way}" for way, id in sorted(ways.items()))
        raise InputError(f"the cutouts fill blank pixels differently ({each}); index them with the same nan_policy")


def _check_ids(table: pl.DataFrame) -> None:
    """Two different windows with one id would be mistaken for each other from here on."""
    windows = table.select("cutout_id", "survey", *PLACE).unique()
    twice = windows.filter(windows["cutout_id"].is_duplicated())
    if len(twice):
        one, two = twice.sort("cutout_id", *PLACE).rows()[:2]
        raise InputError(
            f"cutout_id {one[0]} stands for two windows: {one[1:]} and {two[1:]}; rename one of the images and index "
            "it again"
        )


def _short(sizes: pl.Series) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
