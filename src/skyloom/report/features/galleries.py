"""Parts of a page on features that show cutouts: nearest neighbours of some, and the most isolated ones."""

from typing import Any

import numpy as np
import polars as pl

from skyloom.cluster.neighbours import isolation, nearest_rows
from skyloom.cluster.rows import Metric
from skyloom.report.feature_set import FeatureSet
from skyloom.report.features import plots
from skyloom.report.features.numbers import number
from skyloom.report.features.physical import Windows
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection.numbers import stream
from skyloom.report.tiles import read_tiles

TILE_PX = 96
LISTED = 24  # outliers in the table on the page; outliers.parquet has all
CANDIDATES = 10  # times as many cutouts as asked for get their exact distance


def windows_of(data: FeatureSet) -> Windows:
    """Geometry of the N cutouts."""
    _, image = np.unique(data.index.table["image"].to_numpy(), return_inverse=True)
    columns = (data.column(name).astype(np.int64) for name in ("row0", "col0", "size_px"))
    return Windows(image[data.rows], *columns)


def neighbours_section(
    data: FeatureSet, numbers: dict[str, Any], *, queries: list[int] | None, galleries: int, neighbours: int,
    metric: Metric, pictures: bool, dpi: int, seed: int,
) -> Section:  # fmt: skip
    """Galleries of the nearest neighbours of chosen or random cutouts; adds ``neighbours`` to ``numbers``."""
    title = "Nearest neighbours"
    if queries is not None:
        own = data.positions_of(np.array(queries, dtype=np.int64))
    else:
        own = np.sort(stream(seed, "galleries").choice(len(data), min(galleries, len(data)), replace=False))
    if len(own) == 0 or len(data) < 2:
        return Section(title, text=["No galleries were asked for, or there is only one cutout."])
    index, distance = nearest_rows(data.x, data.x.take(own), neighbours, metric=metric, own=own)
    windows = windows_of(data)
    pair = (np.repeat(own, index.shape[1]), index.ravel())
    overlap = windows.overlap(*pair).reshape(index.shape)
    same = (windows.image[pair[0]] == windows.image[pair[1]]).reshape(index.shape)
    numbers["neighbours"] = {
        "metric": metric,
        "overlapping_fraction": number(overlap.mean()),
        "same_image_fraction": number(same.mean()),
        "queries": [
            {"cutout_id": int(data.cutout_id[one]), "neighbours": data.cutout_id[index[i]].tolist(),
             "distances": [number(value) for value in distance[i]], "overlaps": overlap[i].tolist()}
            for i, one in enumerate(own)
        ],
    }  # fmt: skip
    text = [
        f"The {index.shape[1]} nearest of all {len(data):,} cutouts to each of {len(own)}, by "
        f"{'1 - cosine' if metric == 'cosine' else 'Euclidean'} distance; the search is exact. "
        f"{100 * overlap.mean():.0f} % of the neighbours share pixels with the cutout in front (marked =), which shows "
        f"nothing but that the same sky gives the same features; {100 * same.mean():.0f} % are of the same image."
    ]
    if not pictures:
        return Section(title, text=[*text, "No image is shown (thumbnails=0); numbers.json has the ids."])
    shown = np.column_stack([own, index])
    tiles = read_tiles(data, shown.ravel(), TILE_PX)
    captions = [
        f"{data.cutout_id[row[0]]}" if j == 0 else f"{distance[i, j - 1]:.3g}{' =' if overlap[i, j - 1] else ''}"
        for i, row in enumerate(shown) for j in range(len(row))
    ]  # fmt: skip
    picture = plots.gallery_plot(tiles, captions, columns=shown.shape[1], title="Cutout, then its neighbours", dpi=dpi)
    caption = (
        "Each row: a cutout with its id, then its nearest neighbours in the space of the features, nearest first, with "
        "their distance. All have one stretch of signal over noise."
    )
    return Section(title, text=text, plots=[Plot("neighbours.png", picture, caption, photo=True)])


def outliers_section(
    data: FeatureSet, numbers: dict[str, Any], *, outliers: int, neighbour: int, reference: int, pictures: bool,
    dpi: int, seed: int,
) -> tuple[Section, pl.DataFrame | None]:  # fmt: skip
    """The most isolated cutouts and their table; adds ``outliers`` to ``numbers``.

    All cutouts are screened by their distance to the ``neighbour``-th nearest of a random sample, an upper bound of
    that to the ``neighbour``-th nearest of all, which those that come first in it then get.
    """
    title = "Outliers"
    if outliers == 0 or len(data) < neighbour + 2:
        return Section(title, text=["None were asked for, or there are too few cutouts to be isolated from."]), None
    sample = min(max(reference, neighbour + 1), len(data))
    drawn = np.sort(stream(seed, "outliers").choice(len(data), sample, replace=False))
    bound = isolation(data.x, drawn, neighbour)
    order = np.lexsort((data.cutout_id, -bound))
    few = order[: max(CANDIDATES * outliers, 100)]
    distance = nearest_rows(data.x, data.x.take(few), neighbour, own=few)[1][:, -1]
    best = np.lexsort((data.cutout_id[few], -distance))[:outliers]
    found, distance = few[best], distance[best]
    rest = float(bound[order[len(few)]]) if len(order) > len(few) else 0.0
    exact = bool(len(few) == len(order) or distance[-1] >= rest)
    usual = float(np.median(bound))
    table = data.index.table[data.rows[found]].select(
        "cutout_id", "image", "row0", "col0", "size_px", "ra_deg", "dec_deg", "peak_snr"
    ).with_columns(pl.Series("distance", distance))  # fmt: skip
    numbers["outliers"] = {
        "neighbour": neighbour, "reference": sample, "exact": exact, "median_distance_to_reference": number(usual),
        "cutouts": [{"cutout_id": int(data.cutout_id[one]), "distance": number(value)}
                    for one, value in zip(found, distance, strict=True)],
    }  # fmt: skip
    said = "no other cutout is more isolated" if exact else "others may be as isolated as the last of these"
    text = [
        f"The cutouts that are farthest from their neighbour number {neighbour} among all {len(data):,} (Euclidean); "
        f"by the bound from a sample of {sample:,}, {said}. Defects of images and rare sources come first."
    ]
    rows = [
        [str(row["cutout_id"]), row["image"], f"{row['row0']}, {row['col0']}", f"{row['distance']:.4g}",
         _or_unknown(row["peak_snr"], ".3g"), _or_unknown(row["ra_deg"], ".5f"), _or_unknown(row["dec_deg"], ".5f")]
        for row in table.head(LISTED).iter_rows(named=True)
    ]  # fmt: skip
    heads = ["Cutout", "Image", "Row, column", "Distance", "Peak S/N", "RA", "Dec"]
    section = Section(title, text=text, tables=[Table(heads, rows, text_columns=3)])
    if pictures:
        captions = [f"{data.cutout_id[one]}: {value:.3g}" for one, value in zip(found, distance, strict=True)]
        picture = plots.gallery_plot(read_tiles(data, found, TILE_PX), captions, columns=8, title="Most isolated first",
                                     dpi=dpi)  # fmt: skip
        caption = "The most isolated cutouts, with their id and distance; outliers.parquet lists them."
        section.plots.append(Plot("outliers.png", picture, caption, photo=True))
    return section, table


def _or_unknown(value: float | None, form: str) -> str:
    return "" if value is None or not np.isfinite(value) else format(value, form)
