"""Parts of a page on features: how much of their space they use, and a map of them."""

from typing import Any

import numpy as np

from skyloom.datamodule.labels import open_labels
from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.metric.representation import Moments, alpha_req
from skyloom.report.feature_set import FeatureSet
from skyloom.report.features import plots
from skyloom.report.features.embedding import Embedding
from skyloom.report.features.numbers import MEANINGS, representation_numbers, table_rows
from skyloom.report.page import Plot, Section, Table
from skyloom.report.selection.numbers import stream
from skyloom.report.tiles import grid_cells, mosaic, read_tiles
from skyloom.store import Artifact

TILE_PX = 48  # side of a picture on the map of thumbnails
READ_AT_ONCE = 256  # cutouts read at once for the map: 67 MB at 256 px


def representation_section(
    data: FeatureSet, found: Moments, numbers: dict[str, Any], *, uniformity_rows: int, dpi: int, seed: int
) -> Section:
    """Measures that need no labels; adds ``representation`` to ``numbers``."""
    rng = stream(seed, "uniformity")
    sample = np.sort(rng.choice(len(data), min(uniformity_rows, len(data)), replace=False))
    numbers["representation"] = representation_numbers(found, data.x.take(sample))
    text = []
    if numbers["representation"]["collapsed"]:
        text.append(f"These features have collapsed. {numbers['representation']['collapse']}")
    text.append(
        "None of these numbers replaces a score on labels: RankMe is meant for runs of one method, and rare kinds of "
        "sources, which matter most here, hardly change any of them."
    )
    if len(data) < 25_600:
        text.append(
            f"With {len(data):,} cutouts the ranks are lower than with more; the authors of RankMe take 25,600 or more."
        )
    if numbers["representation"]["zero_rows"]:
        text.append(f"{numbers['representation']['zero_rows']:,} cutouts have features of nothing but zeros.")
    spectrum = found.spectrum()
    if len(sample) < len(data):
        text.append(f"The uniformity is that of {len(sample):,} cutouts drawn at random; all else is of all cutouts.")
    pictures = []
    if spectrum.variances[0] > 0:
        picture = plots.spectrum_plot(spectrum.variances, alpha_req(spectrum), dpi=dpi)
        caption = (
            "Left: the variance along each principal component, and the power law fitted to its middle. Right: the "
            "part of the variance that the first components hold; dotted: 99 %."
        )
        pictures = [Plot("spectrum.png", picture, caption)]
    table = Table(["Measure", "Value", "Of at most"], table_rows(numbers))
    return Section("How much of their space they use", text=text, tables=[table], terms=MEANINGS, plots=pictures)


def colour_values(data: FeatureSet, color: str | None, labels: Artifact | None) -> tuple[np.ndarray | None, list[str]]:
    """What the map is coloured by: numbers (N,), or class numbers (N,) with the names of the classes.

    Raises
    ------
    ConfigError
        No such column, one that holds no numbers, or labels that are not used.
    """
    if (color == "label") != (labels is not None):
        raise ConfigError("color=label and labels=ID belong together; give both or neither")
    if color is None:
        return None, []
    if labels is not None:
        return _label_numbers(data, labels)
    table = data.index.table
    if color not in table.columns:
        raise unknown_choice("color", color, [name for name in table.columns if table[name].dtype.is_numeric()])
    if not table[color].dtype.is_numeric():
        raise ConfigError(f"color={color} is a column of texts; take one of numbers, such as peak_snr")
    return data.column(color), []


def _label_numbers(data: FeatureSet, artifact: Artifact) -> tuple[np.ndarray, list[str]]:
    labels = open_labels(artifact)
    if labels.cutouts.id != data.index.artifact.id:
        raise InputError(
            f"labels {artifact.id} are of cutouts {labels.cutouts.id}, the features of {data.index.artifact.id}; "
            "take labels of the same cutouts"
        )
    how_many = labels.targets.sum(axis=1)
    names = [*labels.classes, *(["several"] if (how_many > 1).any() else [])]
    own = np.where(how_many == 0, -1, np.where(how_many > 1, len(labels.classes), labels.targets.argmax(axis=1)))
    order = np.argsort(labels.cutout_id)
    at = order[np.searchsorted(labels.cutout_id, data.cutout_id, sorter=order).clip(max=len(order) - 1)]
    return np.where(labels.cutout_id[at] == data.cutout_id, own[at], -1), names


def map_section(
    data: FeatureSet, plane: Embedding, numbers: dict[str, Any], *, color: str | None, values: np.ndarray | None,
    names: list[str], thumbnails: int, dpi: int,
) -> Section:  # fmt: skip
    """Scatter, density and thumbnails of the plane; adds ``embedding`` to ``numbers``."""
    shown = np.isfinite(plane.xy).all(axis=1)
    positions, xy = plane.positions[shown], plane.xy[shown]
    kind = "principal components" if plane.method == "pca" else "UMAP"
    numbers["embedding"] = {
        "method": plane.method, "placed": len(positions), "fitted": plane.fitted,
        "variance_fraction": [round(value, 6) for value in plane.variance],
    }  # fmt: skip
    axes = ("first axis of UMAP", "second")
    text = list(plane.notes)
    if plane.method == "pca":
        first, second = (100 * value for value in plane.variance)
        axes = (f"first principal component ({first:.0f} % of the variance)", f"second ({second:.0f} %)")
    else:
        text.insert(0, "UMAP keeps who is near whom; distances between groups and their sizes mean little.")
    own = values[positions] if values is not None else None
    coloured = f", coloured by {color}" if color else ""
    grey = " Grey: no value." if color else ""
    pictures = [
        Plot("map.png", plots.scatter_plot(xy, own, label=color or "", names=names, axes_labels=axes, dpi=dpi),
             f"Each point is a cutout{coloured}, placed by {kind} of its features.{grey}"),
        Plot("density.png", plots.density_plot(xy, axes_labels=axes, dpi=dpi),
             "Where the cutouts crowd: kernel density over the middle 98 % of each axis."),
    ]  # fmt: skip
    if thumbnails:
        points, row, column = grid_cells(xy, thumbnails)
        tiles = np.concatenate([read_tiles(data, positions[points[start : start + READ_AT_ONCE]], TILE_PX)
                                for start in range(0, len(points), READ_AT_ONCE)])  # fmt: skip
        picture = plots.mosaic_plot(mosaic(tiles, row, column, thumbnails), dpi=dpi)
        caption = (
            f"The same map as pictures: in each of {thumbnails} x {thumbnails} cells the cutout nearest to its centre, "
            "all with one stretch of signal over noise. Like should lie beside like."
        )
        pictures.append(Plot("map_thumbnails.png", picture, caption, photo=True))
    return Section("Map", text=text, plots=pictures)
