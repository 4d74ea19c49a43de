"""step=part: one part of a split as a selection, for all that takes a selection."""

import polars as pl

from skyloom.datamodule.coco_dataset import IMAGES
from skyloom.datamodule.labels import open_labels
from skyloom.errors import InputError, unknown_choice
from skyloom.store import Artifact, Build, builds, of_kind


@builds(
    "selection",
    version=1,
    inputs={"split": of_kind("split", "cutouts", "labels", "dataset"), "selection": of_kind("selection")},
)
def part(build: Build, *, split: Artifact, part: str, selection: Artifact | None) -> None:
    """Take one part of a split, or what a selection has in common with it.

    Writes ``selection.parquet``: ``cutout_id`` and ``row``, by row. Without a selection ``row`` is the row in the
    cutouts; with one, its rows (and repeats and other columns) are kept as they are.

    Parameters
    ----------
    build
        Where to write.
    split
        Artifact of kind ``split`` or ``dataset``, or labels that came with official parts (kinds ``cutouts`` and
        ``labels``).
    part
        Name of the part, such as ``train``, or of a subset of a data set.
    selection
        Artifact of kind ``selection``, of which the cutouts in the part are taken; None takes all of the part.

    Raises
    ------
    ConfigError
        No such part.
    InputError
        The selection has cutouts that the split does not know, or none in the part; the cutouts have no labels, or the
        data set no cutouts.
    """
    rows, every, cutouts = {"split": _drawn, "dataset": _assembled}.get(split.kind, _official)(split)
    if part not in (parts := rows["split"].drop_nulls().unique().sort().to_list()):
        raise unknown_choice("part", part, parts)
    inside = rows.filter(pl.col("split") == part).select("cutout_id")
    if selection is None:
        place = cutouts.table("cutouts.parquet").select("cutout_id").with_row_index("row")
        table = place.join(inside, on="cutout_id", how="semi", maintain_order="left")
        table = table.select("cutout_id", pl.col("row").cast(pl.Int64))
        read = len(every)
    else:
        given = selection.table("selection.parquet")
        if lost := len(given.join(every, on="cutout_id", how="anti")):
            raise InputError(
                f"{lost} cutouts of selection {selection.id} are not in split {split.id}; it was made from other "
                "cutouts ('skyloom lineage ID' tells)"
            )
        table = given.join(inside, on="cutout_id", how="semi", maintain_order="left")
        read = len(given)
        if table.is_empty():
            raise InputError(f"selection {selection.id} has no cutout in part {part} of split {split.id}")
    with build.write("selection.parquet") as path:
        table.write_parquet(path, compression="zstd")
    build.table = "selection.parquet"
    build.count(read=read, kept=len(table), distinct=table["cutout_id"].n_unique())
    build.drop("other part", read - len(table), why=f"not in part {part}, or at a border of parts")


def _drawn(split: Artifact) -> tuple[pl.DataFrame, pl.DataFrame, Artifact]:
    """Cutouts with their parts, all cutouts that were split, and where they are, by step=split."""
    rows = split.table("split.parquet")
    every = pl.concat([rows.select("cutout_id"), split.table("dropped.parquet").select("cutout_id")])
    return rows, every, split.inputs["cutouts"]


def _official(labelled: Artifact) -> tuple[pl.DataFrame, pl.DataFrame, Artifact]:
    """The same of labels, by whoever published them."""
    labels = open_labels(labelled)
    rows = pl.DataFrame(
        {"cutout_id": labels.cutout_id, "split": labels.split.tolist()}, schema_overrides={"split": pl.String}
    )
    return rows, rows.select("cutout_id"), labels.cutouts


def _assembled(dataset: Artifact) -> tuple[pl.DataFrame, pl.DataFrame, Artifact]:
    """The same of a data set; its subsets are parts as well."""
    if "cutouts" not in dataset.inputs:
        raise InputError(f"dataset {dataset.id} came from a file and has no cutouts, so there is nothing to select")
    images = dataset.table(IMAGES)
    subsets = [images.filter(name).select("cutout_id", split=pl.lit(name)) for name in dataset.notes.get("subsets", {})]
    rows = pl.concat([images.select("cutout_id", "split"), *subsets])
    return rows, images.select("cutout_id"), dataset.inputs["cutouts"]
