"""The true objects of a part of a data set, with their magnitudes and their signal to noise in one band."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.coco_dataset import ANNOTATIONS, Dataset, open_dataset
from skyloom.datamodule.joint_grid import Frame
from skyloom.datamodule.joint_inputs import annotated_cutouts
from skyloom.errors import InputError, unknown_choice
from skyloom.store import Artifact

MAG = "mag_"


@dataclass(frozen=True)
class Truth:
    """Images of a data set and their objects.

    Attributes
    ----------
    data : Dataset
        The images of the part.
    classes : list of str
        Names by label; labels count from 0 in the order of the categories.
    index : BandIndex or None
        Pixels of the images; None for a data set without cutouts.
    band : str or None
        Band of the magnitudes; None where the annotations have none.
    zero_point_mag : float or None
        AB magnitude of one unit of the pixels.
    """

    data: Dataset
    classes: list[str]
    index: BandIndex | None
    band: str | None
    zero_point_mag: float | None

    def frame(self, row: int) -> Frame | None:
        """Cards and shape of an image, None without cards."""
        columns = self.data.images.columns
        cards = self.data.images["fits_header"][row] if "fits_header" in columns else None
        if cards is None and self.index is not None:
            cards = self.index.header(int(self.index.rows_of(self.data.cutout_id[row : row + 1])[0]))
        return None if cards is None else (cards, self.data.shape(row))

    def noise(self, row: int) -> float:
        """Noise of a pixel of an image in its unit, NaN where step=annotate noted none."""
        name = f"noise_{self.band}"
        value = self.data.images[name][row] if name in self.data.images.columns else None
        return float("nan") if value is None else float(value)

    def snr(self, row: int, mag: np.ndarray, area_px: np.ndarray) -> np.ndarray:
        """Flux over the noise of all pixels of the mask, float64 (n,): noise that is white, and no noise of the source.

        Parameters
        ----------
        row
            Image.
        mag
            AB magnitudes, (n,).
        area_px
            Pixels in each mask, (n,).
        """
        if self.zero_point_mag is None:
            return np.full(len(mag), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            flux = 10 ** ((self.zero_point_mag - mag) / 2.5)
            return np.asarray(flux / (self.noise(row) * np.sqrt(area_px)), dtype=np.float64)

    def objects(self, row: int) -> dict[str, Any]:
        """The objects of an image as `skyloom.metric.detection_scores.DetectionScores` takes them, with mag and snr."""
        own = self.data.objects(row)
        order = {number: label for label, number in enumerate(sorted(self.data.categories))}
        labels = np.array([order[int(number)] for number in self.data.labels(row)], dtype=np.int64)
        found = {"boxes": self.data.boxes(row).astype(np.float64), "labels": labels, "rle": own["rle"].to_list()}
        if self.band is not None:
            mag = own[MAG + self.band].cast(pl.Float64).fill_null(np.nan).to_numpy()
            area = own["area_px"].cast(pl.Float64).to_numpy()
            found |= {"mag": mag, "snr": self.snr(row, mag, area)}
        return found


def open_truth(dataset: Artifact, part: str | None, *, band: str | None, image_roots: str | None) -> Truth:
    """Read the images and objects of a part.

    Parameters
    ----------
    dataset
        Of kind ``dataset``.
    part
        Part of its split, or subset; None takes all.
    band
        Whose magnitudes to take; None: the one in the middle of those that the annotations have.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        No such part or band.
    InputError
        There is no image, or the data set is damaged.
    """
    schema: Mapping[str, pl.DataType] = pl.scan_parquet(dataset.file(ANNOTATIONS)).collect_schema()
    index = _index(dataset, image_roots)
    known = [name.removeprefix(MAG) for name in schema if name.startswith(MAG) and schema[name].is_numeric()]
    ordered = [one for one in (index.bands if index else ()) if one in known] or known
    if band is not None and band not in known:
        raise unknown_choice("band", band, known)
    chosen = band or (ordered[len(ordered) // 2] if ordered else None)
    data = open_dataset(dataset, part=part, columns=["area_px", *([MAG + chosen] if chosen else [])])
    if not len(data):
        raise InputError(f"dataset {dataset.id} has no image in part={part}; choose another part")
    zero_point = index.zero_point_mag.get(chosen) if index is not None and chosen is not None else None
    names = [data.categories[number] for number in sorted(data.categories)]
    return Truth(data, names, index, chosen, zero_point)


def _index(dataset: Artifact, image_roots: str | None) -> BandIndex | None:
    inputs = dataset.manifest["inputs"]
    there = any(inputs.get(role) for role in ("cutouts", "match"))
    return BandIndex(annotated_cutouts(dataset), image_roots=image_roots) if there else None
