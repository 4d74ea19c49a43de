"""step=labelled: a set of labelled images as cutouts, or the labels of a catalogue for cutouts that exist."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt

from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.step.labelled.catalog import LabelColumns, write_table_labels
from skyloom.step.labelled.format import LabelledFiles, LabelledSet, LeftOut, open_files
from skyloom.step.labelled.images import Reading, write_images
from skyloom.store import Artifact, Build, builds, of_kind

FORMATS = Path(__file__).parent / "formats"
TABLE = "table"


def _known(name: str) -> str:
    names = {path.stem for path in FORMATS.glob("*.py") if not path.stem.startswith("_")} | {TABLE}
    if name not in names:
        raise unknown_choice("format", name, names)
    return name


@builds(
    lambda values: "labels" if values["format"] == TABLE else "cutouts",
    version=1,
    inputs={"files": open_files, "cutouts": of_kind("cutouts")},
)
def labelled(
    build: Build,
    *,
    format: Annotated[str, AfterValidator(_known)],
    files: LabelledFiles,
    classes: Annotated[list[str], Field(min_length=1)] | None,
    group_level: Annotated[int, Field(ge=1, le=12)],
    set_name: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None,
    window_px: PositiveInt | None,
    colour: Literal["refuse", "grey"],
    on_bad_image: Literal["error", "skip"],
    cutouts: Artifact | None,
    sources: LabelColumns,
) -> None:
    """Bring labelled data into the store.

    A set of images becomes an artifact of kind ``cutouts`` with its pixels, as ``step=pack`` writes them, and
    ``labels.parquet``. With ``format=table`` the result is of kind ``labels`` and holds ``labels.parquet`` alone.

    Parameters
    ----------
    build
        Where to write.
    format
        A module of :mod:`skyloom.step.labelled.formats`, or ``table``.
    files
        File or folder of the set, or the catalogue.
    classes
        Classes that are kept; None keeps all.
    group_level
        HEALPix level of the cells that make the groups.
    set_name
        What ``cutouts.parquet`` calls the survey; None: the name of the format.
    window_px
        Side of the central window that is taken of each image; None takes square images of one size whole.
    colour
        Whether colour pictures are refused or turned grey.
    on_bad_image
        ``error`` stops at an image that cannot be used; ``skip`` counts and names it.
    cutouts
        Of ``format=table``: what the labels are for.
    sources
        Of ``format=table``: columns of the catalogue and how its rows find their cutouts.

    Raises
    ------
    ConfigError
        An option does not go with the format.
    InputError
        Files are damaged or of another layout, or nothing is left.
    """
    if format == TABLE:
        if cutouts is None:
            raise ConfigError("format=table labels cutouts that exist: give cutouts=ID")
        write_table_labels(build, files.path, cutouts, sources, classes, group_level)
        return
    if cutouts is not None:
        raise ConfigError(f"cutouts={cutouts.id} are not read with format={format}; they go with format=table")
    read: Callable[[Path], LabelledSet] = getattr(
        importlib.import_module(f"skyloom.step.labelled.formats.{format}"), format
    )
    found = read(files.path)
    if classes is not None:
        found = _of_classes(found, classes, files)
    write_images(build, found, files, set_name or format, Reading(window_px, colour, on_bad_image), group_level)


def _of_classes(found: LabelledSet, classes: list[str], files: LabelledFiles) -> LabelledSet:
    there = {label for member in found.members for label in member.labels}
    if lost := sorted(set(classes) - there):
        raise InputError(f"{files.path}: no image of class {lost[0]}; there are {', '.join(sorted(there)) or 'none'}")
    kept = [member for member in found.members if set(member.labels) <= set(classes)]
    other = [
        LeftOut(member.name, "other class", "classes names those that are kept")
        for member in found.members
        if not set(member.labels) <= set(classes)
    ]
    return LabelledSet(kept, [*found.left_out, *other], found.pixel_scale_arcsec)
