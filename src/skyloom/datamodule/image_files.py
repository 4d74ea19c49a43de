"""The image files behind a cutout index: where they lie now, whether they are unchanged, and rows by id."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skyloom.errors import InputError
from skyloom.store import Artifact, fingerprint


def root_folders(image_roots: Sequence[str] | str | None) -> list[Path]:
    """Folders in which moved images are looked for; a string may name several, separated as in PATH."""
    roots = image_roots.split(os.pathsep) if isinstance(image_roots, str) else list(image_roots or [])
    return [Path(root).expanduser() for root in roots]


def find_image(artifact: Artifact, entry: Mapping[str, Any], roots: Sequence[Path]) -> Path:
    """Where an image lies now: where it was indexed, or at the same place below one of the image roots.

    Parameters
    ----------
    artifact
        The cutouts.
    entry
        Row of their ``images.parquet``.
    roots
        Folders for images that have moved.

    Raises
    ------
    InputError
        When it is nowhere to be found.
    """
    if entry["artifact"]:
        path = artifact.path.parents[1] / "images" / entry["artifact"] / entry["path"]
    else:
        path = Path(entry["path"])
    if path.exists():
        return path
    for root in roots:
        for start in range(1, len(path.parts)):
            if (moved := root.joinpath(*path.parts[start:])).exists():
                return moved
    raise InputError(
        f"image {entry['image']} of cutouts {artifact.id} is no longer at {path}; "
        "put it back, or name the folder it moved to: paths.images=FOLDER"
    )


def check_unchanged(artifact: Artifact, entry: Mapping[str, Any], path: Path) -> None:
    """Compare a file with the one that was indexed.

    Raises
    ------
    InputError
        When its content is another.
    """
    if fingerprint(path) != entry["fingerprint"]:
        raise InputError(
            f"{path} is not the file that cutouts {artifact.id} were indexed from (its content has changed); "
            "put the old file back or run step=cutouts again"
        )


def rows_of(artifact: Artifact, have: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row numbers of cutouts by id.

    Parameters
    ----------
    artifact
        The cutouts, for the message.
    have
        int64, shape (N,): the id of each row.
    wanted
        int64, shape (M,).

    Returns
    -------
    ndarray
        int64, shape (M,).

    Raises
    ------
    InputError
        When an id is not in the index.
    """
    order = np.argsort(have, kind="stable")
    at = np.searchsorted(have, wanted, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)]
    lost = np.asarray(wanted)[have[rows] != wanted]
    if len(lost):
        raise InputError(
            f"{len(lost)} of {len(wanted)} cutout ids (first: {lost[0]}) are not in cutouts "
            f"{artifact.id}; the selection or features belong to other cutouts ('skyloom lineage ID' tells)"
        )
    return rows


def tile_file(artifact: Artifact, tile: str, role: str, *, image_roots: Sequence[str] | str | None = None) -> Path:
    """Where another file of a tile lies now, unchanged since its cutouts were made.

    Parameters
    ----------
    artifact
        Band cutouts made on a grid, whose ``files.parquet`` lists such files.
    tile
        Name of the tile.
    role
        ``segmentation``, ``detections`` or ``truth``.
    image_roots
        Folders in which files are looked for that have moved.

    Raises
    ------
    InputError
        The tile has no such file, or it is gone or has changed.
    """
    files = artifact.table("files.parquet") if "files.parquet" in artifact.manifest["files"] else None
    rows = [] if files is None else [row for row in files.to_dicts() if (row["tile"], row["role"]) == (tile, role)]
    if not rows:
        raise InputError(
            f"cutouts {artifact.id} list no {role} of tile {tile}; expected cutouts of a survey that has such files "
            f"(survey.tiles.{role}), made on a grid"
        )
    entry = {**rows[0], "image": f"{role} of tile {tile}"}
    path = find_image(artifact, entry, root_folders(image_roots))
    check_unchanged(artifact, entry, path)
    return path
