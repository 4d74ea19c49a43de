"""step=download: the images of a survey from its server, whole and with their checksums."""

import json
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import AfterValidator, BeforeValidator, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from skyloom.errors import InputError
from skyloom.progress import progress
from skyloom.sky.files.fetch import Fetcher
from skyloom.sky.files.remote_files import remote_files
from skyloom.sky.files.remote_list import SAFE_NAME, Checksums, ImageNames, open_checksums, open_names
from skyloom.sky.survey.facts import Survey
from skyloom.step.download.pieces import check_room, clear_up, fetch_mosaic, leave_out_missing, link, look_up
from skyloom.step.images import SurveyFacts
from skyloom.store import Build, builds

COLUMNS = {"mosaic": pl.String, "file": pl.String, "path": pl.String, "bytes": pl.Int64, "sha256": pl.String,
           "url": pl.String}  # fmt: skip


def _check_url(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is no address; give base_url=https://… (the survey may not have one)")
    return value.rstrip("/")


def _check_files(value: list[str]) -> list[str]:
    if not value or not all(SAFE_NAME.fullmatch(name) for name in value):
        raise ValueError(f"{value} is not a list of plain file names such as [mosaic-blanked.fits]")
    return sorted(set(value))


@builds(
    "images",
    version=1,
    inputs={"mosaics": open_names, "checksums": open_checksums},
    free=("workers", "retries", "retry_wait_s", "timeout_s"),
)
def download(
    build: Build,
    *,
    survey: SurveyFacts,
    mosaics: ImageNames,
    files: Annotated[list[str], AfterValidator(_check_files)],
    base_url: Annotated[str, BeforeValidator(_check_url)],
    checksums: Checksums | None,
    on_missing: Literal["error", "skip"],
    workers: PositiveInt,
    retries: NonNegativeInt,
    retry_wait_s: NonNegativeFloat,
    timeout_s: PositiveFloat,
) -> None:
    """Download images of a survey.

    Writes ``mosaics/<name>/<file>`` and ``files.parquet`` (mosaic, file, path, bytes, sha256, url; by mosaic and
    file). With ``on_missing=skip`` also ``dropped.parquet``. A mosaic, or a tile of a survey with bands, is one
    resumable piece; of a file that broke off the rest is fetched.

    Parameters
    ----------
    build
        Where to write.
    survey
        Facts of the survey.
    mosaics
        Names of the images or tiles.
    files
        Files of each image; of a survey with ``tiles.remote`` the kinds of files: image (of every band), segmentation,
        detections, truth.
    base_url
        Address above ``<mosaic>/<file>``, or above ``tiles.remote``.
    checksums
        Expected sha256 of every file; None: there are none, sizes and FITS headers are all that can be checked.
    on_missing
        A file that the server does not have: ``error`` stops before anything is fetched, ``skip`` leaves its
        mosaic out.
    workers
        Mosaics fetched at the same time.
    retries, retry_wait_s, timeout_s
        See :class:`skyloom.sky.files.fetch.Fetcher`.

    Raises
    ------
    InputError
        A file is not there, does not arrive, is no whole FITS file or has another checksum.
    StoreError
        The disk has less room than the files need.
    """
    urls = remote_files(survey, mosaics.names, files, base_url)
    of_each: dict[str, list[str]] = {name: [] for name in mosaics.names}
    for name, file in urls:
        of_each[name].append(file)
    if checksums:
        checksums.check_covers([f"{name}/{file}" for name, file in urls])
    fetcher = Fetcher(retries=retries, retry_wait_s=retry_wait_s, timeout_s=timeout_s)
    todo = [name for name in mosaics.names if not build.done(name)]
    with ThreadPoolExecutor(workers) as pool:
        try:
            sizes = look_up(build, fetcher, pool, {key: url for key, url in urls.items() if key[0] in set(todo)})
            leave_out_missing(build, sizes, urls, on_missing)
            sizes = {key: size for key, size in sizes.items() if not build.done(key[0])}
            check_room(build, sizes)
            total = sum(size or 0 for size in sizes.values()) if None not in sizes.values() else None
            with progress(total, "download", "bytes") as bar:
                lock = threading.Lock()

                def advance(n: int) -> None:
                    with lock:
                        bar.advance(n)

                futures = [
                    pool.submit(fetch_mosaic, build, name, of_each[name], urls, checksums, on_missing, fetcher, advance)
                    for name in todo
                    if not build.done(name)
                ]
                wait(futures, return_when=FIRST_EXCEPTION)
                for future in futures:
                    if future.done():
                        future.result()  # raises what went wrong
        except BaseException:
            fetcher.stop()
            pool.shutdown(cancel_futures=True)
            clear_up(build)
            raise
    _join(build, mosaics, of_each, survey, base_url)


def _join(build: Build, mosaics: ImageNames, files: dict[str, list[str]], survey: Survey, base_url: str) -> None:
    """Put the pieces together and tell the manifest what is there and what is not."""
    pieces = {name: build.shard(name, _never) for name in mosaics.names}
    whole = {name: piece for name, piece in pieces.items() if (piece / "files.json").exists()}
    left_out = [name for name in pieces if name not in whole]
    lost = [row for name in left_out for row in json.loads((pieces[name] / "missing.json").read_text())]
    if not whole:
        raise InputError(f"none of the {len(pieces)} mosaics is on the server; the first address is {lost[0]['url']}")
    rows = [row for piece in whole.values() for row in json.loads((piece / "files.json").read_text())]
    table = pl.DataFrame(rows, schema=COLUMNS)
    with build.write("mosaics") as folder:
        folder.mkdir()
        for name, piece in whole.items():
            (folder / name).mkdir()
            for file in files[name]:
                link(piece / file, folder / name / file)
    with build.write("files.parquet") as path:
        table.write_parquet(path, compression="zstd")
    if lost:
        with build.write("dropped.parquet") as path:
            pl.DataFrame(lost).with_columns(reason=pl.lit("not on the server")).write_parquet(path)
    build.table = "files.parquet"
    build.count(read=len(pieces), kept=len(whole), files=len(table), bytes=int(table["bytes"].sum()))
    build.drop("mosaic not on the server", len(left_out), why="a file is missing; see dropped.parquet",
               examples=left_out)  # fmt: skip
    build.note(survey=survey.name, unit=survey.unit, base_url=base_url)


def _never(folder: Path) -> None:
    raise RuntimeError(f"{folder} should have been fetched before")
