"""The pieces of step=download: what is still to fetch, whether it is there and has room, and one mosaic at a time."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from skyloom.errors import InputError, StoreError
from skyloom.progress import progress
from skyloom.sky.files.fetch import Fetcher, MissingError
from skyloom.sky.files.fits_whole import check_whole, is_fits
from skyloom.sky.files.remote_list import Checksums
from skyloom.store import Build
from skyloom.store.fingerprint import sha256_file

INCOMING = "_incoming"  # no mosaic is called so: names start with a letter or a digit


def look_up(
    build: Build, fetcher: Fetcher, pool: ThreadPoolExecutor, urls: dict[tuple[str, str], str]
) -> dict[tuple[str, str], int | None]:
    """Sizes of the files that are still to come, -1 for those that the server does not have."""

    def look(item: tuple[tuple[str, str], str]) -> int | None:
        (name, file), url = item
        whole = _incoming(build, name) / file
        if whole.exists():
            return whole.stat().st_size
        try:
            return fetcher.size(url)
        except MissingError:
            return -1

    sizes: dict[tuple[str, str], int | None] = {}
    with progress(len(urls), "download: asking for sizes", "files") as bar:
        for key, size in zip(urls, pool.map(look, urls.items()), strict=True):
            sizes[key] = size
            bar.advance()
    return sizes


def leave_out_missing(
    build: Build, sizes: dict[tuple[str, str], int | None], urls: dict[tuple[str, str], str], on_missing: str
) -> None:
    """Stop at files that the server does not have, or finish the pieces of their mosaics as empty ones."""
    missing = [key for key, size in sizes.items() if size == -1]
    if missing and on_missing == "error":
        name, file = missing[0]
        raise InputError(
            f"{len(missing)} of {len(sizes)} files are not on the server, the first is {name}/{file} "
            f"({urls[missing[0]]}); correct mosaics, files or base_url, or leave such mosaics out with on_missing=skip"
        )
    for name in dict.fromkeys(name for name, _ in missing):
        lost = [{"mosaic": name, "file": f, "url": urls[name, f]} for n, f in missing if n == name]

        def make(folder: Path, lost: list[dict[str, str]] = lost) -> None:
            folder.mkdir()
            _note_missing(folder, lost)

        build.shard(name, make)


def check_room(build: Build, sizes: dict[tuple[str, str], int | None]) -> None:
    """Refuse to start when the disk has less room than the files need."""
    needed = sum(size or 0 for size in sizes.values())
    arrived = sum(f.stat().st_size for f in _incoming(build, "").rglob("*") if f.is_file() and f.suffix != ".json")
    free = shutil.disk_usage(build.path).free
    if needed - arrived > free:
        raise StoreError(
            f"the files need {(needed - arrived) / 1e9:.1f} GB, the disk of {build.path.parents[1]} has "
            f"{free / 1e9:.1f} GB free; put the store on a larger disk (paths.store) or ask for fewer mosaics"
        )


def fetch_mosaic(
    build: Build, name: str, files: list[str], urls: dict[tuple[str, str], str], checksums: Checksums | None,
    on_missing: str, fetcher: Fetcher, advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Make the piece of one mosaic: its files, whole and checked, and a record of them."""
    incoming = _incoming(build, name)
    incoming.mkdir(parents=True, exist_ok=True)

    def make(folder: Path) -> None:
        records = []
        for file in files:
            path, url = incoming / file, urls[name, file]
            try:
                fetcher.fetch(url, path, advance=advance)
            except MissingError:  # found out only now by a server that does not answer HEAD
                if on_missing == "error":
                    raise
                folder.mkdir()
                _note_missing(folder, [{"mosaic": name, "file": file, "url": url}])
                return
            try:
                if is_fits(path):
                    check_whole(path)
                digest = sha256_file(path)
                if checksums:
                    checksums.check(f"{name}/{file}", digest)
            except InputError as error:
                path.unlink()  # the next run fetches it anew
                raise InputError(f"{url} has arrived, but cannot be used: {error}") from error
            records.append({"mosaic": name, "file": file, "path": f"mosaics/{name}/{file}",
                            "bytes": path.stat().st_size, "sha256": digest, "url": url})  # fmt: skip
        folder.mkdir()
        for file in files:
            link(incoming / file, folder / file)
        (folder / "files.json").write_text(json.dumps(records))

    build.shard(name, make)
    shutil.rmtree(incoming)


def _note_missing(folder: Path, lost: list[dict[str, str]]) -> None:
    (folder / "missing.json").write_text(json.dumps(lost))


def clear_up(build: Build) -> None:
    """Remove folders of arriving files that hold none, so that a refused request leaves nothing."""
    incoming = _incoming(build, "")
    for folder in [*incoming.iterdir(), incoming]:
        with suppress(OSError):  # not empty: the next run goes on with what is in it
            folder.rmdir()


def _incoming(build: Build, name: str) -> Path:
    return build.scratch(INCOMING) / name


def link(source: Path, target: Path) -> None:
    """A second name for a file, so that no moment of the renaming can lose it; a copy where disks have no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
