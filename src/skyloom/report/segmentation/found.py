"""Reads the detections of a catalogue, or those chosen from candidates, in the images of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from skyloom.datamodule.candidate_table import BOX, IMAGES, CandidateTable, chosen_rows
from skyloom.errors import InputError
from skyloom.report.segmentation.inputs import Selection
from skyloom.store import Artifact

CATALOG = "catalog.parquet"
COLUMNS = ("cutout_id", *BOX, "class", "score", "rle", "mag")
IMAGES_AT_ONCE = 256  # images whose candidates are in memory together: some tens of MB


@dataclass(frozen=True)
class Found:
    """What a catalogue holds of some images.

    Attributes
    ----------
    name : str
        Of the catalogue.
    artifact : Artifact
        Of kind ``catalog`` or ``candidates``.
    images : polars.DataFrame
        cutout_id, height_px, width_px and fits_header of the images that the detector looked at, of those asked for.
    rows : polars.DataFrame
        ``COLUMNS`` of its detections in them, image by image; ``mag`` is NaN where nobody knows.
    other_images : int
        Images that it looked at and nobody asked for.
    least_score : float
        From which detections were kept.
    has_mag : bool
        Whether magnitudes were measured in the band that was asked for.
    """

    name: str
    artifact: Artifact
    images: pl.DataFrame
    rows: pl.DataFrame
    other_images: int
    least_score: float
    has_mag: bool


def read_found(
    name: str,
    artifact: Artifact,
    cutout_id: np.ndarray,
    *,
    selection: Selection,
    band: str | None,
    classes: Sequence[str],
) -> Found:
    """Read the detections in the images of some ids.

    Parameters
    ----------
    name
        Of the catalogue, for messages.
    artifact
        Of kind ``catalog`` or ``candidates``.
    cutout_id
        int64 (N,): images that are asked for.
    selection
        What is chosen of candidates.
    band
        Whose magnitudes are wanted; None: none.
    classes
        Names of the data set's classes by label.

    Raises
    ------
    InputError
        Its classes are not those of the data set, or an image stands in it twice.
    ConfigError
        A score below that from which candidates were kept.
    """
    own = [str(one) for one in artifact.notes["classes"]]
    if own != list(classes):
        raise InputError(
            f"catalogs.{name} ({artifact.kind} {artifact.id}) has the classes {', '.join(own)}, the data set "
            f"{', '.join(classes)}; give a catalogue of a detector with the same classes in the same order"
        )
    images = artifact.table(IMAGES).with_columns(pl.col("cutout_id").is_in(cutout_id.tolist()).alias("wanted"))
    wanted = images.filter("wanted").select("image_row", "cutout_id", "height_px", "width_px", "fits_header")
    if twice := wanted.filter(pl.col("cutout_id").is_duplicated()).height:
        raise InputError(f"catalogs.{name} ({artifact.kind} {artifact.id}): {twice} rows of {IMAGES} share a cutout_id")
    if artifact.kind == "candidates":
        table = CandidateTable(artifact)
        score = table.least_score if selection.score is None else selection.score
        table.check_score(score)
        rows, has_mag = _chosen(table, wanted, score, selection), False
    else:
        score = float(artifact.notes["score"])
        rows, has_mag = _listed(artifact, wanted, band)
    return Found(name, artifact, wanted.drop("image_row"), rows, len(images) - len(wanted), score, has_mag)


def _listed(artifact: Artifact, wanted: pl.DataFrame, band: str | None) -> tuple[pl.DataFrame, bool]:
    """Detections of a catalogue, and whether it has magnitudes."""
    scan = pl.scan_parquet(artifact.file(CATALOG))
    mag = f"mag_mask_{band}"
    has_mag = band is not None and mag in scan.collect_schema().names()
    value = (pl.col(mag).cast(pl.Float64) if has_mag else pl.lit(None, pl.Float64)).fill_null(np.nan).alias("mag")
    rows = scan.filter(pl.col("cutout_id").is_in(wanted["cutout_id"].to_list())).with_columns(value).select(COLUMNS)
    return rows.collect(), has_mag


def _chosen(table: CandidateTable, wanted: pl.DataFrame, score: float, selection: Selection) -> pl.DataFrame:
    """Detections chosen from the candidates of the images that are wanted, a few images at a time."""
    parts = []
    rows, total = set(wanted["image_row"].to_list()), len(table.images)
    for start in range(0, total, IMAGES_AT_ONCE):
        stop = min(start + IMAGES_AT_ONCE, total)
        if rows.isdisjoint(range(start, stop)):
            continue
        found = table.read(start, stop, masks=True, score=score)
        kept = chosen_rows(found, table.images, score=score, nms=selection.nms, top_k=selection.top_k,
                           across_classes=selection.across_classes)  # fmt: skip
        parts.append(found[kept].join(wanted.select("image_row", "cutout_id"), on="image_row", maintain_order="left"))
    schema = {**dict.fromkeys(BOX, pl.Float64), "class": pl.Int8, "score": pl.Float32, "rle": pl.String}
    nothing = pl.DataFrame(schema={"cutout_id": pl.Int64, **schema})
    whole = pl.concat([nothing, *(part.select(nothing.columns).cast(nothing.schema) for part in parts)])
    return whole.with_columns(mag=pl.lit(np.nan, pl.Float64)).select(COLUMNS)
