"""The annotations of an artifact, tile by tile, checked while they are read."""

from pathlib import Path

import polars as pl

from skyloom.datamodule.coco_dataset import BOX
from skyloom.errors import InputError
from skyloom.step.dataset_files import joint_schema
from skyloom.store import Artifact

NEEDED = ("cutout_id", "object_id", "category_id", *BOX, "area_px", "rle", "keypoint_x_px", "keypoint_y_px")


class TileAnnotations:
    """Annotations by tile.

    Parameters
    ----------
    artifact
        Of kind ``annotations``.

    Attributes
    ----------
    images : polars.DataFrame
        Its ``images.parquet``.
    schema : dict
        Columns of all tiles, with the widest type of each.
    number : int
        Annotations in all tiles.

    Raises
    ------
    InputError
        A file lacks a needed column, or tiles have columns that do not go together.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        self.images = artifact.table("images.parquet")
        listed = [name for name in artifact.manifest["files"] if name.startswith("annotations/")]
        self._files = {name.removeprefix("annotations/").removesuffix(".parquet"): name for name in sorted(listed)}
        schemas = []
        for name in self._files.values():
            path = artifact.file(name)
            schema = pl.read_parquet_schema(path)
            if lost := [column for column in NEEDED if column not in schema]:
                raise InputError(f"{path}: no column {', '.join(lost)}; expected annotations made by step=annotate")
            schemas.append(schema)
        self.schema = joint_schema(schemas)
        if not self.schema:
            raise InputError(f"annotations {artifact.id} hold no tile; expected annotations/<tile>.parquet")
        self.number = int(self.images["annotations"].sum())

    def read(self, tile: str) -> pl.DataFrame:
        """The annotations of a tile; none where a tile has no file.

        Raises
        ------
        InputError
            One object twice in one image, or a box without a size.
        """
        if tile not in self._files:
            return pl.DataFrame(schema=self.schema)
        table = self.artifact.table(self._files[tile])
        again = table.filter(pl.struct("cutout_id", "object_id").is_duplicated())
        if len(again):
            raise InputError(
                f"{self._where(tile)}: object {again['object_id'][0]} is annotated {len(again)} times in cutout "
                f"{again['cutout_id'][0]}; an object may be there once per image. Make the annotations again"
            )
        sides = pl.col("bbox_w_px", "bbox_h_px")
        bad = table.filter(~pl.all_horizontal(sides.is_finite() & (sides > 0)).fill_null(False))
        if len(bad):
            raise InputError(
                f"{self._where(tile)}: the box of object {bad['object_id'][0]} in cutout {bad['cutout_id'][0]} has no "
                f"width or height ({len(bad)} such boxes); make the annotations again"
            )
        return table

    def check(self, cutout_id: pl.Series, counts: pl.Series) -> None:
        """Compare the objects found for images with what the annotations say of them.

        Raises
        ------
        InputError
            They differ.
        """
        said = pl.DataFrame({"cutout_id": cutout_id, "found": counts}).join(
            self.images.select("cutout_id", "annotations"), on="cutout_id", how="left"
        )
        wrong = said.filter(pl.col("found").cast(pl.Int64) != pl.col("annotations").cast(pl.Int64))
        if len(wrong):
            id, found, expected = wrong.row(0)
            raise InputError(
                f"annotations {self.artifact.id}: images.parquet counts {expected} objects in cutout {id}, "
                f"annotations/ holds {found}; remove the artifact and make it again"
            )

    def _where(self, tile: str) -> str:
        return str(self.artifact.path / self._files[tile])


def objects_in_several_parts(annotations: Path, images: pl.DataFrame) -> int:
    """Number of true objects that are annotated in images of more than one part.

    Parameters
    ----------
    annotations
        ``annotations.parquet`` of a data set; an object is the same where its id and its position are, since numbers of
        objects may be numbers within a tile.
    images
        Its images: cutout_id and ``split``.
    """
    table = pl.scan_parquet(annotations)
    same = [name for name in ("object_id", "ra_deg", "dec_deg") if name in table.collect_schema()]
    placed = table.select("cutout_id", *same).join(images.lazy().select("cutout_id", "split"), on="cutout_id")
    parts = placed.group_by(same).agg(pl.col("split").n_unique())
    return int(parts.filter(pl.col("split") > 1).select(pl.len()).collect().item())
