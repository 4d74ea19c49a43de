"""format=image_folder: a folder per class, with PNG, JPEG, FITS or npy images in it."""

from functools import partial
from pathlib import Path

import numpy as np

from skyloom.errors import InputError
from skyloom.sky.files.image import SUFFIXES, open_image
from skyloom.step.cutouts.table import sky_positions
from skyloom.step.labelled.format import PICTURES, SPLIT_NAMES, LabelledSet, LeftOut, Member, decode

FILES = tuple(suffix for suffix in SUFFIXES if suffix != ".zarr")


def image_folder(path: Path) -> LabelledSet:
    """List ``CLASS/**/FILE``, or ``SPLIT/CLASS/**/FILE`` where every folder is called train, val or test.

    A FITS image with a WCS gives the position of its middle.
    """
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder with a folder per class, found a file")
    tops = [p.name for p in path.iterdir() if p.is_dir()]
    parts = bool(tops) and all(name.lower() in SPLIT_NAMES for name in tops)
    members, left_out = [], []
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        relative = file.relative_to(path)
        name, folders = relative.as_posix(), relative.parts[:-1]
        if not file.name.lower().endswith((*PICTURES, *FILES)):
            left_out.append(LeftOut(name, "other file", f"its name does not end in {', '.join((*PICTURES, *FILES))}"))
        elif len(folders) < 1 + parts:
            left_out.append(LeftOut(name, "no class", "it does not lie in a folder of a class"))
        else:
            split = SPLIT_NAMES[folders[0].lower()] if parts else None
            ra, dec = _position(file)
            members.append(Member(name, (folders[int(parts)],), partial(_read, file), split, ra_deg=ra, dec_deg=dec))
    return LabelledSet(members, left_out)


def _read(path: Path) -> np.ndarray:
    if not path.name.lower().endswith(PICTURES):
        with open_image(path) as image:
            return image.read(0, 0, *image.shape)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return decode(data, str(path))


def _position(path: Path) -> tuple[float | None, float | None]:
    """Middle of a FITS image; what is wrong with a file is told when it is read."""
    if path.name.lower().endswith((*PICTURES, ".npy")):
        return None, None
    try:
        with open_image(path) as image:
            height, width = image.shape
            # A window of side 1 at a fractional corner has its centre exactly there.
            ra, dec, _ = sky_positions(image, np.array([(height - 1) / 2]), np.array([(width - 1) / 2]), 1)
    except InputError:
        return None, None
    return (None, None) if ra is None or dec is None else (float(ra[0]), float(dec[0]))
