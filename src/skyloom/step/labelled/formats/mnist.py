"""format=mnist: handwritten digits from local idx files; nothing is downloaded."""

import gzip
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from skyloom.errors import InputError
from skyloom.step.labelled.format import LabelledSet, Member

PARTS = {"train": "train", "t10k": "test"}
UNSIGNED_BYTE = 8  # type code of an idx file


def mnist(path: Path) -> LabelledSet:
    """Read MNIST (LeCun et al. 1998, Proc. IEEE 86, 2278) from the folder of its four idx files, as they are or .gz.

    The folder is the one with the files, or one that torchvision made (``MNIST/raw`` below it).
    """
    folder = next((place for place in (path, path / "raw", path / "MNIST" / "raw") if _file(place, "train", 3)), None)
    if folder is None:
        raise InputError(
            f"{path}: expected a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte "
            "and t10k-labels-idx1-ubyte (or .gz); MNIST is read from local files only"
        )
    members = []
    for part, split in PARTS.items():
        images, labels = (_idx(folder, part, dimensions) for dimensions in (3, 1))
        if len(images) != len(labels):
            raise InputError(f"{folder}: {len(images)} images and {len(labels)} labels of {part}; fetch them again")
        members += [
            Member(f"{split}/{i:05d}", (str(label),), partial(images.__getitem__, i), split)
            for i, label in enumerate(labels.tolist())
        ]
    return LabelledSet(members)


def _file(folder: Path, part: str, dimensions: int) -> Path | None:
    name = f"{part}-{'images' if dimensions == 3 else 'labels'}-idx{dimensions}-ubyte"
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _idx(folder: Path, part: str, dimensions: int) -> np.ndarray:
    """Array of an idx file: two zero bytes, type, number of axes, their lengths (big-endian), then the bytes."""
    path = _file(folder, part, dimensions)
    if path is None:
        raise InputError(f"{folder}: the {'images' if dimensions == 3 else 'labels'} of {part} are missing")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        if (zeros, kind, axes) != (0, UNSIGNED_BYTE, dimensions):
            raise ValueError(f"it begins with {data[:4].hex()}")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise InputError(f"{path}: expected a whole idx file of {dimensions} axes ({error}); fetch it again") from error
