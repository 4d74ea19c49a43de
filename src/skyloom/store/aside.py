"""Files and folders that appear under their name only when they are whole and on disk."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"


@contextmanager
def written_aside(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``final``; what was written there is synced and renamed on success."""
    final.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{platform.node()}-{os.getpid()}"  # on a shared disk others write, too
    temporary = final.with_name(f"{TEMPORARY}{writer}-{final.name}")
    try:
        yield temporary
        sync(temporary)
        if final.is_dir():
            shutil.rmtree(final)
        temporary.replace(final)
        sync_entry(final.parent)  # the entry alone: its other pieces are on disk, or being made by other threads
    finally:
        remove(temporary)


def sync(path: Path) -> None:
    """Flush a file, or a folder and all it holds, to disk."""
    targets = [path] if path.is_file() else [path, *path.rglob("*")]
    for target in targets:
        sync_entry(target)


def sync_entry(path: Path) -> None:
    """Flush a file, or the list of entries of a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
