"""Tells a whole FITS file from one that was cut short, by what its headers promise."""

import gzip
import warnings
import zlib
from pathlib import Path

from astropy.io import fits

from skyloom.errors import InputError
from skyloom.sky.files.image import open_image

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.fz")
_BLOCK = 1 << 20  # bytes of a packed file that are unpacked at once


def is_fits(path: Path) -> bool:
    """Whether a file is a FITS file by its name."""
    return path.name.lower().endswith(SUFFIXES)


def check_whole(path: Path) -> None:
    """Check that a FITS file holds all that its headers promise and that its image or table can be opened.

    The headers of all HDUs are read, no pixels (a gzipped image is unpacked once in memory, a gzipped table from end to
    end). Padding after the last data unit may be missing.

    Raises
    ------
    InputError
        It is not FITS, is cut short, or holds neither a 2-D image nor a table.
    """
    packed = path.name.lower().endswith(".gz")
    try:
        open_image(path).close()
    except InputError:
        if not _holds_table(path):
            raise
    else:
        if packed:
            return  # opening has unpacked it to the end, and gzip keeps a checksum
    size = _unpacked_size(path) if packed else path.stat().st_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with the headers is the reader's business; here sizes count
        with fits.open(path, lazy_load_hdus=False, disable_image_compression=True) as hdus:
            last = hdus[-1]
            needed = last.fileinfo()["datLoc"] + last.size
    if size < needed:
        raise InputError(f"{path}: cut short, its headers promise {needed} bytes, found {size}")


def _holds_table(path: Path) -> bool:
    """Whether the headers of a file that shows no image can be read and one of them is of a table."""
    if path.name.lower().endswith(".fz"):
        return False  # a packed image is stored as a table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, lazy_load_hdus=False) as hdus:
                return any(isinstance(hdu, fits.BinTableHDU | fits.TableHDU) for hdu in hdus)
    except (OSError, EOFError, zlib.error, ValueError):
        return False


def _unpacked_size(path: Path) -> int:
    """Size of the content of a gzipped file, which is read to the end; gzip keeps a checksum."""
    size = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                size += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cut short or damaged ({error}); fetch it again.") from error
    return size
