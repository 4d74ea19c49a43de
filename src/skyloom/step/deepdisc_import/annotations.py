"""Reads and checks lists of annotated images as DeepDISC and detectron2 keep them in JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, InputError
from skyloom.store import Store, fingerprint

XYXY, XYWH = 0, 1  # detectron2's BoxMode of absolute boxes
NAME_KEYS = ("file_name", "filename")
OBJECT_KEYS = ("obj_id", "object_id", "objectId", "hsc_oid", "id")


@dataclass(frozen=True)
class AnnotationFiles:
    """The input ``files`` of step=deepdisc_import: (part or None, path, fingerprint) of each."""

    entries: tuple[tuple[str | None, Path, str], ...]

    def identity(self) -> list[dict[str, Any]]:
        """Parts and digests of content, in the order given."""
        return [{"part": part, "digest": digest} for part, _, digest in self.entries]


def open_annotation_files(value: Any, _parameters: Mapping[str, Any], _store: Store) -> AnnotationFiles:
    """Resolver: one path, a list of paths, or paths (or lists of them) by part."""
    if not value:
        raise ConfigError("files must be given: files=PATH, files=[PATH,PATH] or files={train:PATH,val:PATH}")
    parts: dict[str | None, Any] = (
        {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {None: value}
    )
    entries = []
    for part, given in parts.items():
        for item in given if isinstance(given, list | tuple) else [given]:
            path = Path(str(item)).expanduser().absolute()
            if not path.is_file():
                raise InputError(f"{path}: no such file; check files=…")
            entries.append((part, path, fingerprint(path)))
    return AnnotationFiles(tuple(entries))


def read_records(path: Path) -> list[dict[str, Any]]:
    """The images of a file, each with its annotations.

    Raises
    ------
    InputError
        No JSON, not a list of images, or an image without size or annotations.
    """
    try:
        records = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON list of images; it cannot be read ({error})") from error
    if isinstance(records, dict) and {"images", "annotations"} <= records.keys():
        raise InputError(f"{path}: this is a COCO file; expected the list of images that DeepDISC and detectron2 keep")
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: expected a list of at least one image, found {type(records).__name__}")
    for number, record in enumerate(records):
        where = f"{path}, image {number}"
        if not isinstance(record, dict) or not isinstance(record.get("annotations"), list):
            raise InputError(f"{where}: expected a mapping with a list 'annotations'")
        for key in ("height", "width"):
            if not isinstance(record.get(key), int) or record[key] < 1:
                raise InputError(f"{where}: expected '{key}' in pixels, found {record.get(key)!r}")
        if not name_of(record):
            raise InputError(f"{where}: expected its file under one of {', '.join(NAME_KEYS)}, filename_<band>")
    return records


def name_of(record: Mapping[str, Any]) -> str | None:
    """File of an image: ``file_name``, ``filename``, or the first of ``filename_<band>`` in the order of their keys."""
    keys = [*NAME_KEYS, *sorted(key for key in record if key.startswith(("filename_", "file_name_")))]
    return next((str(record[key]) for key in keys if record.get(key)), None)


def object_of(annotation: Mapping[str, Any], number: int) -> str:
    """Name of an object: its own id, a whole number even where the file has it as a float; else its number."""
    for key in OBJECT_KEYS:
        value = annotation.get(key)
        if value is not None:
            return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return str(number)


def box_of(annotation: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    """Corners x0, y0, x1, y1 of a box.

    Raises
    ------
    InputError
        No box of four finite numbers, a negative side, or another mode than absolute XYXY and XYWH.
    """
    box, mode = annotation.get("bbox"), annotation.get("bbox_mode", XYWH)
    if not _numbers(box, 4):
        raise InputError(f"{where}: expected a 'bbox' of four finite numbers, found {box!r}")
    if mode not in (XYXY, XYWH):
        raise InputError(f"{where}: expected bbox_mode 0 (XYXY_ABS) or 1 (XYWH_ABS), found {mode!r}")
    x, y, third, fourth = (float(value) for value in box or ())
    x1, y1 = (third, fourth) if mode == XYXY else (x + third, y + fourth)
    if x1 < x or y1 < y:
        raise InputError(f"{where}: the box {box} has a negative side")
    return x, y, x1, y1


def polygons_of(annotation: Mapping[str, Any], where: str) -> list[list[float]] | None:
    """Polygons of an object; None where its mask is given as run lengths.

    Raises
    ------
    InputError
        Neither.
    """
    found = annotation.get("segmentation")
    if isinstance(found, dict) and {"size", "counts"} <= found.keys():
        return None
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise InputError(f"{where}: expected 'segmentation' as a list of polygons or run lengths, found {found!r}")
    if any(not _numbers(polygon) or len(polygon) % 2 for polygon in found):
        raise InputError(f"{where}: expected polygons of x, y, x, y, … with finite numbers")
    return [[float(value) for value in polygon] for polygon in found]


def _numbers(value: Any, length: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and length in (None, len(value))
        and all(isinstance(item, int | float) and math.isfinite(item) for item in value)
    )
