"""Writes tiny labelled sets in the true layouts: the FIRST zip, MiraBest, MNIST, a folder per class."""

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 24


def galaxy(number: int, side: int = SIDE) -> np.ndarray:
    """An 8-bit picture whose pixels are zero but for a source, as those of the published sets; each is different."""
    pixels = np.zeros((side, side), dtype=np.uint8)
    row, col = 4 + number % 7, 4 + number // 7 % 13
    pixels[row : row + 3, col : col + 2] = 40 + number % 200
    pixels[row, col] = 255
    return pixels


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def first_zip(path: Path, extra: dict[str, bytes] | None = None) -> Path:
    """Each class with 6 training, 2 validation and 2 test pictures, all of them again in ``all``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("galaxy_data")
        number = 0
        for code, label in enumerate(("FRI", "FRII", "Compact", "Bent")):
            for folder, images in (("train", 6), ("valid", 2), ("test", 2)):
                for _ in range(images):
                    name = f"{100 + number * 1.5:g}_{-5 + number}_{code}_Some_Tab1.png"
                    for place in (folder, "all"):
                        archive.writestr(f"galaxy_data/{place}/{label}/{name}", png(galaxy(number)))
                    number += 1
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def mirabest_npz(path: Path, **changes: np.ndarray) -> Path:
    """Three batches of four pictures, one of which is blank, and a test batch."""
    n = np.arange(16)
    arrays = {
        "data": np.stack([galaxy(i) * (i != 5) for i in n]),
        "labels": n % 2,
        "filenames": np.array(
            [f"BestCat_proc/Cropped/{100 + 100 * (i % 2)}_{10 + i}.5_{-5 + i:+08.3f}.png" for i in n]
        ),
        "split": np.array([f"data_batch_{i // 4 + 1}" if i < 12 else "test_batch" for i in n]),
        "label_names": np.array(["FRI", "FRII"]),
    }
    np.savez_compressed(path, **(arrays | changes))  # type: ignore[arg-type]
    return path


def mnist_folder(path: Path, *, zipped: bool = False) -> Path:
    """30 training and 10 test digits."""
    path.mkdir(parents=True)
    for part, number in (("train", 30), ("t10k", 10)):
        images = np.stack([galaxy(i + len(part), 28) for i in range(number)])
        labels = np.arange(number, dtype=np.uint8) % 10
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
            file = path / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            file.write_bytes(gzip.compress(data) if zipped else data)
    return path


def class_folders(path: Path, *, parts: tuple[str, ...] = ("",)) -> Path:
    """Two classes of three PNGs each, in each part."""
    for p, part in enumerate(parts):
        for c, label in enumerate(("ring", "spiral")):
            folder = path / part / label
            folder.mkdir(parents=True)
            for i in range(3):
                (folder / f"{i}.png").write_bytes(png(galaxy(p * 6 + c * 3 + i)))
    return path
