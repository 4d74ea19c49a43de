"""step=split: train, validation and test parts that share no position on the sky."""

import hashlib
import re
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt
from scipy.spatial import cKDTree

from skyloom.errors import ConfigError, InputError
from skyloom.sky.geometry.sphere import (
    ARCSEC,
    border_points,
    cell_of,
    cell_size_arcsec,
    chord,
    unit_vectors,
    with_neighbours,
)
from skyloom.step.indexes import read_tables, window_scales
from skyloom.store import Artifact, Build, builds, of_kind

LARGEST_REACH = 0.5  # half diagonal of a window in units of a cell's side; then a window reaches no cell but neighbours
POINTS_PER_REACH = 16  # points on a border per half diagonal: borders are drawn this much too wide
IMAGE_LEVEL = 63  # marks names of images in the hash, where cells have their level


def _checked_fractions(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"'{name}' cannot name a part; use small letters, digits and _")
    if abs(sum(value.values()) - 1) > 1e-9:
        raise ValueError(f"the fractions add up to {sum(value.values()):g}; expected 1")
    return value


Fractions = Annotated[dict[str, NonNegativeFloat], AfterValidator(_checked_fractions)]


@builds("split", version=1, inputs={"cutouts": of_kind("cutouts")})
def split(
    build: Build,
    *,
    cutouts: Artifact,
    fractions: Fractions,
    level: Annotated[int, Field(ge=1, le=12)],
    without_sky: Literal["error", "group_by_image"],
    seed: NonNegativeInt,
) -> None:
    """Share cutouts among parts by HEALPix cell of the sky.

    A cell belongs to a part by a hash of its number and the seed, whatever cutouts there are. A cutout belongs to a
    part only when its whole footprint lies in cells of that part; those that reach across are left out.
    Writes ``split.parquet``: ``cutout_id``, ``split``, ``cell`` in the order of the index, and ``dropped.parquet``:
    ``cutout_id``, ``reason``, ``cell``. ``step=part`` makes a selection of one part.

    Parameters
    ----------
    build
        Where to write.
    cutouts
        Artifact of kind ``cutouts``.
    fractions
        Share of the sky per part; they add up to 1.
    level
        HEALPix level of the cells: 6 is 55', 5 is 1.8 degrees.
    without_sky
        Cutouts without a position: ``error`` refuses them; ``group_by_image`` keeps those of one image together.
    seed
        Start of the hash.

    Raises
    ------
    ConfigError
        Cells too small for the cutouts.
    InputError
        Cutouts without a position, or a part that gets none.
    """
    table, images = read_tables(cutouts)
    names = [name for name, share in fractions.items() if share > 0]
    edges = np.cumsum([fractions[name] for name in names])
    number = len(table)
    part = np.full(number, -1, dtype=np.int64)
    cell: np.ndarray = np.full(number, -1, dtype=np.int64)
    ra, dec = (table[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("ra_deg", "dec_deg"))
    has_sky = np.isfinite(ra) & np.isfinite(dec)
    placed, lost = np.flatnonzero(has_sky), np.flatnonzero(~has_sky)
    if len(placed):
        cell[placed], part[placed] = parts_by_sky(table[placed], images, level, edges, seed)
    if len(lost):
        part[lost] = _by_image(table[lost], edges, seed, without_sky)
    kept = part >= 0
    counts = {name: int((part == i).sum()) for i, name in enumerate(names)}
    if empty := [name for name, count in counts.items() if count == 0]:
        raise InputError(
            f"no cutout is left for {' and '.join(empty)}: the {number} cutouts touch {len(np.unique(cell[placed]))} "
            "cell(s); use a finer level, another seed, or a fraction of 0"
        )
    ids = pl.DataFrame({"cutout_id": table["cutout_id"], "cell": pl.Series(cell).replace(-1, None)})
    label = pl.Series("split", np.array(names)[part[kept]], dtype=pl.String)
    rows = ids.filter(kept).with_columns(label).select("cutout_id", "split", "cell")
    dropped = ids.filter(~kept).with_columns(reason=pl.lit("border")).select("cutout_id", "reason", "cell")
    for name, frame in (("split", rows), ("dropped", dropped)):
        with build.write(f"{name}.parquet") as path:
            frame.write_parquet(path, compression="zstd")
    build.count(read=number, kept=int(kept.sum()), without_sky_position=len(lost), **counts)
    why = "it reaches, or may reach, into a cell of another part; all are listed in dropped.parquet"
    build.drop("border cutout", len(dropped), why=why)
    build.note(parts=counts, cells=len(np.unique(cell[placed])), cell_arcmin=round(cell_size_arcsec(level) / 60, 3))


def part_of(cell: np.ndarray, level: int, edges: np.ndarray, seed: int) -> np.ndarray:
    """Part of each cell: where a hash of seed, level and cell, spread evenly over [0, 1), falls among ``edges``.

    Parameters
    ----------
    cell
        Integer, shape (N,).
    level
        HEALPix level of the cells.
    edges
        Cumulated fractions, shape (P,).
    seed
        Start of the hash (the finaliser of splitmix64, Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195).

    Returns
    -------
    ndarray
        int64 (N,), 0 to P - 1.
    """
    share = (hash_of(cell, level, seed) >> np.uint64(11)).astype(np.float64) / 2**53
    return np.minimum(np.searchsorted(edges, share, side="right"), len(edges) - 1)


def hash_of(number: np.ndarray, level: int, seed: int) -> np.ndarray:
    """Hash of seed, level and each number by the finaliser of splitmix64: uint64 (N,) of integers (N,)."""
    state = np.full(len(number), seed % 2**64, dtype=np.uint64)
    for value in (np.full(len(number), level), np.asarray(number, dtype=np.int64)):
        state = _mix(state ^ value.astype(np.uint64))
    return state


def parts_by_sky(
    table: pl.DataFrame, images: pl.DataFrame, level: int, edges: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cell and part of each cutout; part -1 where the footprint may touch a cell of another part.

    A footprint lies in the circle about its centre through its corners. The circle is connected, so if it leaves
    the part of its centre it meets the border of a cell of another part, and comes as near to one of the points drawn
    on that border as their spacing.
    """
    ra, dec = table["ra_deg"].to_numpy(), table["dec_deg"].to_numpy()
    scale = window_scales(table, images)
    if not np.isfinite(scale).all():
        name = table["image"][int(np.flatnonzero(~np.isfinite(scale))[0])]
        raise InputError(f"the pixel scale of image {name} is not known, so its cutouts have no size on the sky")
    reach = table["size_px"].to_numpy() * scale / np.sqrt(2)
    side = cell_size_arcsec(level)
    if reach.max() > LARGEST_REACH * side:
        raise ConfigError(f"level={level}: cells of {side / 60:.1f}' are too small for cutouts that reach "
                          f"{reach.max() / 60:.1f}' from their centre; use a lower level")  # fmt: skip
    cell = cell_of(ra, dec, level)
    own = part_of(cell, level, edges, seed)
    around = with_neighbours(with_neighbours(np.unique(cell), level), level)
    parts = part_of(around, level, edges, seed)
    points_per_side = int(np.clip(np.ceil(POINTS_PER_REACH * side / reach.max()), 8, 256))
    points, spacing = border_points(around, level, points_per_side)
    vectors = unit_vectors(ra, dec)
    limit = chord(reach) + spacing + ARCSEC * 1e-3
    for number in np.unique(own):
        foreign = points[parts != number].reshape(-1, 3)
        rows = np.flatnonzero(own == number)
        if len(foreign):
            near, _ = cKDTree(foreign).query(vectors[rows], distance_upper_bound=float(limit[rows].max()) * 1.001)
            own[rows[near <= limit[rows]]] = -1
    return cell, own


def _by_image(table: pl.DataFrame, edges: np.ndarray, seed: int, without_sky: str) -> np.ndarray:
    """Part of cutouts without a position, the same for all of an image."""
    if without_sky == "error":
        raise InputError(
            f"{len(table)} cutouts have no position on the sky (the first is in image {table['image'][0]}), so nobody "
            "can say what they share; without_sky=group_by_image keeps those of one image together"
        )
    names = table["image"].unique().sort()
    codes = np.array([int.from_bytes(_digest(name), "little", signed=True) for name in names], dtype=np.int64)
    parts = part_of(codes, IMAGE_LEVEL, edges, seed)
    return table["image"].replace_strict(names, pl.Series(parts), return_dtype=pl.Int64).to_numpy()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _mix(value: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
