"""What a format of step=labelled gives: images that can be read, with their labels, and what was left out."""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from skyloom.errors import ConfigError, InputError
from skyloom.store import Store, fingerprint

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Member:
    """One labelled image.

    Attributes
    ----------
    name : str
        Unique in the set and the same on every machine; the cutout's id comes from it.
    labels : tuple of str
        Its classes.
    read : callable
        Returns the pixels (H, W), or (H, W, 3) of a colour picture, in any type of number; raises InputError, which
        names the file, where that fails.
    split : str or None
        Official part: ``train``, ``val`` or ``test``.
    fold : int or None
        Official fold.
    ra_deg, dec_deg : float or None
        ICRS position of the middle of the image.
    """

    name: str
    labels: tuple[str, ...]
    read: Callable[[], np.ndarray]
    split: str | None = None
    fold: int | None = None
    ra_deg: float | None = None
    dec_deg: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """Something of the files that becomes no cutout, and why."""

    name: str
    reason: str
    why: str


@dataclass
class LabelledSet:
    """The images of a set.

    Attributes
    ----------
    members : list of Member
        In an order that depends on their names alone.
    left_out : list of LeftOut
        What was found beside them.
    pixel_scale_arcsec : float or None
        Side of a pixel, where the set has one for all images.
    """

    members: list[Member]
    left_out: list[LeftOut] = field(default_factory=list)
    pixel_scale_arcsec: float | None = None


@dataclass(frozen=True)
class LabelledFiles:
    """The input ``files`` of step=labelled."""

    path: Path
    fingerprint: str

    def identity(self) -> dict[str, Any]:
        """Digest of the content, wherever it lies."""
        return {"files": 1, "digest": self.fingerprint}


def open_files(value: Any, parameters: Mapping[str, Any], store: Store) -> LabelledFiles:
    """Resolver of the input ``files``: a file or a folder."""
    if value is None:
        raise ConfigError("files must be given: files=PATH, the file or folder of the labelled set")
    path = Path(str(value)).expanduser().absolute()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; check files=…")
    return LabelledFiles(path, fingerprint(path))


def decode(data: bytes, where: str) -> np.ndarray:
    """Pixels of a PNG or JPEG as it stores them: (H, W), or (H, W, 3) in colour; transparent ones are NaN.

    Raises
    ------
    InputError
        The picture is damaged or of another format.
    """
    try:
        with Image.open(io.BytesIO(data)) as file:
            file.load()
            picture: Image.Image = file
            if picture.mode == "P":
                picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
            elif picture.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not picture.mode.startswith("I"):
                picture = picture.convert("RGB")
            pixels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: expected a whole PNG or JPEG, found something else ({_line(error)})") from error
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels
    colours, opaque = pixels[..., :-1].astype(np.float32), pixels[..., -1] > 0
    colours[~opaque] = np.nan
    return colours[..., 0] if colours.shape[2] == 1 else colours


def unzipped(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Pixels of a picture in a zip file."""
    where = f"{archive.filename}, {name}"
    try:
        data = archive.read(name)
    except (zipfile.BadZipFile, zlib.error, OSError, KeyError, RuntimeError) as error:
        raise InputError(f"{where}: cannot be unpacked ({_line(error)}); fetch the file again") from error
    return decode(data, where)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
