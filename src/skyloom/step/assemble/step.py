"""step=assemble: annotations of all tiles, without the corrupt cutouts, as one data set with parts and subsets."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import Field, NonNegativeInt

from skyloom.datamodule.coco_dataset import ANNOTATIONS, categories_of
from skyloom.errors import ConfigError, InputError
from skyloom.progress import say
from skyloom.step.assemble.images import DROPPED, WHY, headers_of, kept_images, marked
from skyloom.step.assemble.objects import TileAnnotations, objects_in_several_parts
from skyloom.step.assemble.parts import Subset, split_images, subset_columns
from skyloom.step.dataset_files import write_annotations, write_coco_parts, write_images
from skyloom.step.split import Fractions
from skyloom.store import Artifact, Build, Store, builds, of_kind


def open_frame(value: Any, parameters: Mapping[str, Any], store: Store) -> Artifact:
    """Resolver of the input ``cutouts``: None takes those that the annotations were made for."""
    own = parameters["annotations"].inputs["cutouts"] if isinstance(parameters["annotations"], Artifact) else None
    found = own if value is None else store.open(value, "cutouts")
    if found is None:
        raise ConfigError("annotations must be given: annotations=ID, made by step=annotate")
    if own is not None and found.id != own.id:
        raise InputError(
            f"annotations {parameters['annotations'].id} are those of cutouts {own.id}, not of {found.id}; leave out "
            "cutouts=…, or give another survey's cutouts as match=…"
        )
    return found


def open_integrity(value: Any, _parameters: Mapping[str, Any], store: Store) -> tuple[Artifact, ...]:
    """Resolver of the input ``integrity``: one reference or a list, in any order; None is none."""
    items = [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
    found = {artifact.id: artifact for artifact in (store.open(item, "integrity") for item in items)}
    return tuple(found[id] for id in sorted(found))


@builds(
    "dataset",
    version=1,
    inputs={
        "annotations": of_kind("annotations"),
        "cutouts": open_frame,
        "match": of_kind("cutouts"),
        "integrity": open_integrity,
    },
)
def assemble(
    build: Build,
    *,
    annotations: Artifact,
    cutouts: Artifact,
    match: Artifact | None,
    integrity: tuple[Artifact, ...],
    by: Literal["cell", "cutout"],
    fractions: Fractions,
    level: Annotated[int, Field(ge=1, le=12)],
    subsets: list[Subset],
    coco: bool,
    seed: NonNegativeInt,
) -> None:
    """Combine the annotations of all tiles to one data set.

    Writes ``images.parquet`` (one row per image, by tile and number: image_id, cutout_id, tile, number, file_name,
    height_px, width_px, split, subsets as Booleans, ra_deg, dec_deg, annotations, fits_header and more),
    ``annotations.parquet`` (all objects in the order of the images, annotation_id counting from 1),
    ``categories.json``, ``dropped.parquet`` (cutout_id, tile, file_name, reason, detail), and with ``coco`` one COCO
    file per part.

    Parameters
    ----------
    build
        Where to write.
    annotations
        Artifact of kind ``annotations``.
    cutouts
        Artifact of kind ``cutouts`` that the annotations were made for; None takes it from them.
    match
        Cutouts of another survey; images without a partner there are left out. None asks for no partner.
    integrity
        Artifacts of kind ``integrity`` of the cutouts or of ``match``: what they call corrupt is left out.
    by
        ``cell``: no position of the sky is in two parts; ``cutout``: each cutout by itself.
    fractions
        Share per part; they add up to 1.
    level
        HEALPix level of the cells.
    subsets
        Fixed numbers of images of a part, smaller ones within larger ones.
    coco
        Write COCO files.
    seed
        Start of the hashes.

    Raises
    ------
    ConfigError
        Cells too small for the cutouts; a subset that cannot be drawn.
    InputError
        Annotations that are damaged or hold an object twice, an integrity report of other cutouts, or a part that gets
        no image.
    """
    objects = TileAnnotations(annotations)
    table = marked(cutouts, objects.images, match, integrity)
    own = pl.col(DROPPED).is_null()
    if not table.select(own.any()).item():
        raise InputError(f"none of the {len(table)} cutouts of {cutouts.id} is left; dropped: {_reasons(table)}")
    good = table.filter(own)
    split = split_images(good, cutouts.table("images.parquet"), by, fractions, level, seed)
    border = good["cutout_id"].filter(split.is_null())
    table = table.with_columns(
        pl.when(pl.col("cutout_id").is_in(border.implode())).then(pl.lit("border cutout"))
        .otherwise(DROPPED).alias(DROPPED)
    )  # fmt: skip
    images = kept_images(good.with_columns(split), objects.images)
    images = images.with_columns(subset_columns(images, subsets, seed))
    counts = write_annotations(
        build, images, images["tile"].unique(maintain_order=True).to_list(), objects.read, objects.schema
    )
    objects.check(images["cutout_id"], counts)
    images = images.with_columns(counts, fits_header=headers_of(cutouts, images["cutout_id"]))
    categories = [{"id": number, "name": name} for number, name in categories_of(annotations).items()]
    write_images(build, images, categories)
    if coco:
        info = {"description": f"skyloom dataset {build.request.id}", "version": "1"}
        write_coco_parts(build, images, categories, info)
    _tell(build, table, images, objects.number, subsets)
    if shared := objects_in_several_parts(build.path / ANNOTATIONS, images):
        say(f"assemble: {shared:,} objects are annotated in images of several parts, which are not independent then"
            + ("; by=cell keeps their sky apart" if by == "cutout" else ""))  # fmt: skip
    build.count(objects_in_several_parts=shared)
    build.note(
        survey=cutouts.notes.get("survey"), cutouts=cutouts.id, match=match.id if match else None,
        categories={category["name"]: category["id"] for category in categories},
        **{name: annotations.notes[name] for name in ("snr", "compat", "source") if name in annotations.notes},
    )  # fmt: skip


def _tell(build: Build, table: pl.DataFrame, images: pl.DataFrame, objects: int, subsets: list[Subset]) -> None:
    """Write what was left out, and count: read = kept + dropped, for images and for annotations."""
    dropped = table.filter(pl.col(DROPPED).is_not_null())
    listed = dropped.select("cutout_id", "tile", "file_name", pl.col(DROPPED).alias("reason"), "detail")
    with build.write("dropped.parquet") as path:
        listed.write_parquet(path, compression="zstd")
    for (reason,), rows in listed.group_by(["reason"], maintain_order=True):
        build.drop(str(reason), len(rows), why=WHY[str(reason)], examples=rows["file_name"].head(20).to_list())
    parts = dict(images["split"].value_counts().sort("split").rows())
    written = int(images["annotations"].sum())
    build.count(
        read=len(table), kept=len(images), tiles=images["tile"].n_unique(), annotations_read=objects,
        annotations=written, without_objects=int((images["annotations"] == 0).sum()), **parts,
    )  # fmt: skip
    build.drop("annotation of a dropped image", objects - written, why="its image was left out")
    build.note(parts=parts, subsets={subset.name: int(images[subset.name].sum()) for subset in subsets})


def _reasons(table: pl.DataFrame) -> str:
    return ", ".join(f"{reason} {number}" for reason, number in table[DROPPED].value_counts().sort(DROPPED).rows())
