"""Tells a whole FITS file from one that was cut short, by what its headers promise."""

import warnings
from pathlib import Path

from astropy.io import fits

from skyloom.errors import InputError
from skyloom.sky.image import open_image

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")


def is_fits(path: Path) -> bool:
    """Whether a file is a FITS file by its name."""
    return path.name.lower().endswith(SUFFIXES)


def check_whole(path: Path) -> None:
    """Check that a FITS file holds all that its headers promise and that its image can be opened.

    The headers of all HDUs are read, no pixels (a gzipped file is unpacked once in memory). Padding after the last
    data unit may be missing.

    Raises
    ------
    InputError
        It is not FITS, is cut short, or holds no 2-D image.
    """
    open_image(path).close()
    if path.name.lower().endswith(".gz"):
        return  # opening has unpacked it to the end, and gzip keeps a checksum
    size = path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with the headers is the reader's business; here sizes count
        with fits.open(path, lazy_load_hdus=False, disable_image_compression=True) as hdus:
            last = hdus[-1]
            needed = last.fileinfo()["datLoc"] + last.size
    if size < needed:
        raise InputError(f"{path}: cut short, its headers promise {needed} bytes, found {size}")
