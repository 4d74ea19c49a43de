"""Fingerprints of input files: fast enough for hundreds of gigabytes, the same wherever the file lies."""

import hashlib
from pathlib import Path

from skyloom.errors import InputError

WHOLE_BELOW = 8 << 20  # bytes; smaller files are read whole
BLOCKS = 128  # evenly spaced blocks of larger files, first and last included
BLOCK = 32 << 10  # bytes per block: 4 MiB are read of a file of any size


def fingerprint(path: Path) -> str:
    """Fingerprint a file, or a folder such as a Zarr array, by its size and content.

    Files up to 8 MiB are hashed whole. Of larger ones the size and 128 evenly spaced blocks of 32 KiB are
    hashed: reading all of 577 GB of mosaics before the first pixel is used would double the cost of every
    command. A file that was exchanged, truncated, or processed again is recognised; a change of a few pixels
    between two blocks at unchanged size is not. ``skyloom verify`` reads artifacts whole.

    Parameters
    ----------
    path
        File, or folder whose files (sorted by relative path) are fingerprinted one by one.

    Returns
    -------
    str
        32 hex digits; does not depend on the path or the modification time.

    Raises
    ------
    InputError
        When the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for item in sorted(p for p in path.rglob("*") if p.is_file()):
                digest.update(f"{item.relative_to(path).as_posix()}\0".encode())
                digest.update(fingerprint(item).encode())
            return digest.hexdigest()[:32]
        size = path.stat().st_size
        digest.update(f"{size}\0".encode())
        with path.open("rb") as file:
            if size <= WHOLE_BELOW:
                digest.update(file.read())
            else:
                for i in range(BLOCKS):
                    file.seek(i * (size - BLOCK) // (BLOCKS - 1))
                    digest.update(file.read(BLOCK))
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error
    return digest.hexdigest()[:32]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
