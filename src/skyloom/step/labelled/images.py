"""Makes cutouts with pixels and labels of a labelled set: measured once, then written shard by shard."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from skyloom.errors import ConfigError, InputError
from skyloom.progress import progress
from skyloom.sky.noise import robust_rms
from skyloom.sky.window.sliding import sample_step_px
from skyloom.step.labelled.format import LabelledFiles, LabelledSet, LeftOut, Member
from skyloom.step.labelled.groups import groups_of, write_labels, write_left_out
from skyloom.step.labelled.tables import cutout_table, image_table
from skyloom.step.pixel_array import Layout, join_shards, write_shard
from skyloom.store import Build

BATCH = 512  # images per resumable piece and per shard, as step=pack has it: 184 MB at 300 px
RMS_SAMPLES = 1024  # pixels per image for its noise, as step=cutouts has it
SHOWN = 20  # names in the notes
MEASURED = {
    "height_px": pl.Int32, "width_px": pl.Int32, "dtype": pl.String, "row0": pl.Int32, "col0": pl.Int32,
    "blank": pl.Int64, "peak": pl.Float32, "rms": pl.Float32, "constant": pl.Boolean, "grey": pl.Boolean,
    "digest": pl.UInt64, "reason": pl.String, "why": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How images are taken from a set.

    Attributes
    ----------
    window_px
        Side of the central window; None takes images whole, which must then be square and of one size.
    colour
        What is done about a colour picture.
    on_bad_image
        Whether one that cannot be used ends the step, or is left out.
    """

    window_px: int | None
    colour: Literal["refuse", "grey"]
    on_bad_image: Literal["error", "skip"]


def write_images(build: Build, found: LabelledSet, files: LabelledFiles, survey: str, reading: Reading,
                 group_level: int) -> None:  # fmt: skip
    """Write ``cutouts.parquet``, ``images.parquet``, ``labels.parquet``, ``dropped.parquet`` and ``pixels.zarr``."""
    members, measured = found.members, []
    starts = range(0, len(members), BATCH)
    with progress(2 * len(starts), "labelled", "pieces") as bar:
        for start in starts:
            some = members[start : start + BATCH]
            measured.append(build.shard(f"measured-{start:08d}", lambda path, some=some: _measure(path, some, reading)))  # type: ignore[misc]
            bar.advance()
        facts = pl.concat([pl.read_parquet(path) for path in measured], how="vertical") if measured else None
        good = np.flatnonzero(facts["reason"].is_null().to_numpy()) if facts is not None else np.empty(0, int)
        if facts is None or not len(good):
            raise InputError(f"{files.path}: none of {len(members)} images can be used; {_first(found, facts)}")
        kept, facts, bad = [members[i] for i in good], facts[good], facts.filter(pl.col("reason").is_not_null())
        lost = [members[i] for i in np.setdiff1d(np.arange(len(members)), good)]
        size = reading.window_px or _one_size(facts, kept, files)
        layout = Layout.fitted(len(kept), "float32", "blosc", 3, 1, BATCH)
        pieces = []
        for start in range(0, len(kept), layout.shard_rows):
            some = kept[start : start + layout.shard_rows]
            pieces.append(
                build.shard(
                    f"pixels-{start:08d}",
                    lambda path, some=some, start=start: write_shard(  # type: ignore[misc]
                        path, np.stack([_window(_pixels(m, reading)[0], size)[0] for m in some]), start=start,
                        total=len(kept), layout=layout,
                    ),
                )
            )  # fmt: skip
            bar.advance()
    join_shards(build, pieces, layout)
    table = cutout_table(kept, facts, size, survey, build.request.id)
    with build.write("cutouts.parquet") as path:
        table.write_parquet(path, compression="zstd", statistics=True)
    with build.write("images.parquet") as path:
        image_table(kept, facts, files, found.pixel_scale_arcsec).write_parquet(path, compression="zstd")
    build.table = "cutouts.parquet"
    unused = [LeftOut(m.name, *told) for m, told in zip(lost, bad.select("reason", "why").iter_rows(), strict=True)]
    write_left_out(build, [*found.left_out, *unused])
    alike = _alike(facts)
    group = groups_of(table, group_level, alike)
    write_labels(
        build, table["cutout_id"], [m.labels for m in kept], [m.split for m in kept], [m.fold for m in kept], group
    )
    constant = [m.name for m, flat in zip(kept, facts["constant"], strict=True) if flat]
    grey = int(facts["grey"].sum())
    build.count(read=len(members) + len(found.left_out), kept=len(kept), colour_turned_grey=grey)
    build.note(
        survey=survey, unit=None, window_px=size, strategy="labelled", packed=layout.facts(),
        same_pixels=_told([[kept[i].name for i in rows] for rows in _runs(alike)],
                          "images equal in every pixel; they share a group, so that no fold parts them"),
        constant_images=_told(constant, "all their pixels are equal, so that only the label is left of them"),
    )  # fmt: skip


def _measure(path: Path, members: Sequence[Member], reading: Reading) -> None:
    """Read each image once and note what it is, or why it cannot be used."""
    rows: list[tuple[Any, ...]] = []
    for member in members:
        try:
            pixels, grey, dtype = _pixels(member, reading)
        except InputError as error:
            if reading.on_bad_image == "error":
                raise InputError(f"{error}; mend it, or leave such images out with on_bad_image=skip") from error
            reason = "colour picture" if "colour picture" in str(error) else "unreadable"
            rows.append((*[None] * (len(MEASURED) - 2), reason, str(error)))
            continue
        window, row0, col0 = _window(pixels, reading.window_px)
        good = window[np.isfinite(window)]
        step = sample_step_px(min(window.shape), RMS_SAMPLES)
        rms = robust_rms(window[::step, ::step].reshape(1, -1))[0]
        peak = float(good.max()) if len(good) else float("nan")
        digest = int.from_bytes(hashlib.blake2b(window.tobytes(), digest_size=8).digest(), "little")
        flat = len(good) == 0 or bool(good.min() == good.max())
        facts = (row0, col0, window.size - len(good), peak, float(rms), flat, grey, digest, None, None)
        rows.append((*pixels.shape, dtype, *facts))
    pl.DataFrame(rows, schema=MEASURED, orient="row").write_parquet(path)


def _pixels(member: Member, reading: Reading) -> tuple[np.ndarray, bool, str]:
    """Pixels float32 (H, W), whether they were in colour, and the type they had."""
    pixels = member.read()
    dtype, values = str(pixels.dtype), np.asarray(pixels, dtype=np.float32)
    if values.ndim == 3 and values.shape[2] == 3:
        if reading.colour == "refuse":
            raise InputError(
                f"{member.name}: a colour picture, expected one channel; colour=grey turns such pictures grey"
            )
        # Luma of Rec. ITU-R BT.601, as Pillow has it, not rounded to 8 bits.
        return values @ np.array([0.299, 0.587, 0.114], dtype=np.float32), True, dtype
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{member.name}: an array of shape {values.shape}, expected (height, width)")
    return values, False, dtype


def _window(pixels: np.ndarray, size: int | None) -> tuple[np.ndarray, int, int]:
    """Central square window and its first row and column, which are negative, and NaN there, beyond the image."""
    if size is None or pixels.shape == (size, size):
        return np.ascontiguousarray(pixels), 0, 0
    start = [(length - size) // 2 for length in pixels.shape]
    window = np.full((size, size), np.nan, dtype=np.float32)
    inside = [slice(max(-s, 0), max(-s, 0) + min(length, size)) for s, length in zip(start, pixels.shape, strict=True)]
    there = [slice(max(s, 0), max(s, 0) + min(length, size)) for s, length in zip(start, pixels.shape, strict=True)]
    window[tuple(inside)] = pixels[tuple(there)]
    return window, start[0], start[1]


def _one_size(facts: pl.DataFrame, members: Sequence[Member], files: LabelledFiles) -> int:
    shapes = list(zip(facts["height_px"], facts["width_px"], strict=True))
    other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None or shapes[0][0] != shapes[0][1]:
        height, width = shapes[other or 0]
        raise ConfigError(
            f"{files.path}: image {members[other or 0].name} has {height} x {width} px, expected squares of one size "
            f"(the first image has {shapes[0][0]} x {shapes[0][1]}); take the central part of each with window_px=…"
        )
    return int(shapes[0][0])


def _alike(facts: pl.DataFrame) -> np.ndarray:
    """Number that images with equal pixels share, int64 (N,); constant images are not alike for that."""
    codes = facts["digest"].rank("dense").to_numpy().astype(np.int64)
    flat = facts["constant"].to_numpy()
    codes[flat] = codes.max() + 1 + np.arange(flat.sum())
    return codes


def _runs(codes: np.ndarray) -> list[np.ndarray]:
    """Rows of each number that comes up more than once."""
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return [np.flatnonzero(inverse == i) for i in np.flatnonzero(counts > 1)]


def _told(names: list[Any], meaning: str) -> dict[str, Any]:
    return {"number": len(names), "names": names[:SHOWN], "meaning": meaning}


def _first(found: LabelledSet, facts: pl.DataFrame | None) -> str:
    if facts is not None and len(facts):
        return f"the first: {facts['why'][0]}"
    return (
        f"the first thing left out: {found.left_out[0].name} ({found.left_out[0].why})" if found.left_out else "empty"
    )
