"""Where the pixels that a detector sees come from: one protocol, and the images of a data set or of cutouts."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.coco_dataset import IMAGES, in_part
from skyloom.datamodule.joint_images import JointImages
from skyloom.datamodule.joint_inputs import cutouts_of
from skyloom.errors import ConfigError, InputError
from skyloom.product.detection_channels import Channels, band_facts
from skyloom.sky.geometry.resample import noise_kept
from skyloom.sky.source_photometry import noise_factor, pixel_area_factor
from skyloom.sky.survey.bands import Band
from skyloom.store import Artifact

IMAGE_COLUMNS: dict[str, Any] = {
    "image_row": pl.Int32,
    "cutout_id": pl.Int64,
    "name": pl.String,
    "height_px": pl.Int32,
    "width_px": pl.Int32,
    "fits_header": pl.String,
    "row0": pl.Int64,
    "col0": pl.Int64,
    "core_row0": pl.Int64,
    "core_row1": pl.Int64,
    "core_col0": pl.Int64,
    "core_col1": pl.Int64,
}


class Source(Protocol):
    """Images by row number. A source travels to worker processes by pickle, and opens its files there by itself.

    Attributes
    ----------
    images : polars.DataFrame
        ``IMAGE_COLUMNS``, one row per image. ``cutout_id`` is null for images that are no cutouts. ``fits_header``
        holds the WCS cards of this very image (of a tile: moved to its first pixel); null without a WCS. ``row0`` and
        ``col0``: first pixel of a tile in its mosaic, else 0. ``core_*``: the rows and columns, from the first to one
        past the last, in pixels of the image, that are its own, where tiles overlap; else the whole image. Tiles of one
        mosaic have one ``name`` and stand together.
    bands : tuple of (str, str)
        Survey and band of each channel.
    units : tuple of (str or None)
        Of each channel.
    zero_point_mag : tuple of (float or None)
        Of each channel, the AB magnitude of one unit; None where nobody knows.
    pixel_scale_arcsec : float
        Side of a pixel.
    facts : tuple of (Band or None)
        Of each channel what its survey's file says of the band, its PSF among it; None where nobody has said.
    """

    images: pl.DataFrame
    bands: tuple[tuple[str, str], ...]
    units: tuple[str | None, ...]
    zero_point_mag: tuple[float | None, ...]
    pixel_scale_arcsec: float
    facts: tuple[Band | None, ...]

    def read(self, row: int) -> np.ndarray:
        """Pixels of an image, float32 (C, H, W) in `units`, NaN where blank.

        Raises
        ------
        InputError
            It cannot be read, or is not the file that was indexed.
        """

    def area_factor(self, row: int) -> np.ndarray:
        """What sums of the pixels of an image are to be multiplied with to be fluxes in `units`, float64 (C,).

        1, but where an image was interpolated onto a finer or coarser grid without regard to the area of its pixels.
        """

    def noise_factor(self, row: int) -> np.ndarray:
        """What errors that take the noise of pixels as independent are to be multiplied with, float64 (C,).

        1, but where an image was interpolated, see :func:`skyloom.sky.source_photometry.noise_factor`.
        """


class CutoutSource:
    """The images of cutouts, whole or those of a part of a data set; annotations are never read.

    Parameters
    ----------
    cutouts
        By survey.
    channels
        Whose bands make the channels; the last survey gives the grid.
    dataset, part
        A data set to take the images of, all of them or those of a part of its split or of a subset; None takes all
        cutouts of the survey that gives the grid.
    image_roots
        Folders in which images that have moved are looked for.

    Raises
    ------
    ConfigError
        The cutouts of a survey are missing, or there is no such part.
    InputError
        An image of the data set is not among the cutouts.
    """

    def __init__(
        self,
        cutouts: Mapping[str, Artifact | None],
        channels: Channels,
        *,
        dataset: Artifact | None = None,
        part: str | None = None,
        image_roots: Sequence[str] | str | None = None,
    ) -> None:
        if not channels.surveys or len(set(channels.surveys)) != len(channels.surveys):
            raise ConfigError(f"surveys={list(channels.surveys)}: expected names, each once, as [lsst, roman]")
        found = {survey: _cutouts(dataset, survey, cutouts.get(survey)) for survey in channels.surveys}
        indexes = {survey: BandIndex(artifact, image_roots=image_roots) for survey, artifact in found.items()}
        self.channels, self._indexes = channels, indexes
        self._grid = indexes[channels.surveys[-1]]
        self._joint = JointImages(
            indexes,
            channels.surveys,
            self._grid,
            combine=channels.combine,
            interpolation=channels.interpolation,
            conserve_flux=channels.conserve_flux,
            cache=False,  # every image is read once
        )
        self.bands = self._joint.bands
        self.units = tuple(indexes[survey].unit for survey, _ in self.bands)
        self.zero_point_mag = tuple(indexes[survey].zero_point_mag.get(band) for survey, band in self.bands)
        self.pixel_scale_arcsec = self._grid.pixel_scale_arcsec
        known = {survey: band_facts(artifact) for survey, artifact in found.items()}
        self.facts = tuple(known[survey].get(band) for survey, band in self.bands)
        self._rows = self._chosen(dataset, part)
        self.images = self._table()

    def read(self, row: int) -> np.ndarray:
        """Pixels of an image, float32 (C, H, W) in `units`, NaN where blank; see `Source`."""
        return self._joint.read(int(self._grid.cutout_id[self._rows[row]]))[0]

    def area_factor(self, row: int) -> np.ndarray:
        """Area of a pixel over that of the survey's own pixel where values were interpolated, float64 (C,)."""
        if self.channels.combine == "wcs" and self.channels.conserve_flux:
            return np.ones(len(self.bands))
        return np.array([self._area(survey, row) for survey, _ in self.bands], dtype=np.float64)

    def noise_factor(self, row: int) -> np.ndarray:
        """From the area of a pixel and the kind of interpolation, float64 (C,); see `Source`."""
        kind = "cubic" if self.channels.combine == "resize" else self.channels.interpolation
        kept = noise_kept(kind)
        return np.array(
            [noise_factor(self._area(survey, row), kept) if self._resampled(survey) else 1.0
             for survey, _ in self.bands], dtype=np.float64,
        )  # fmt: skip

    def _resampled(self, survey: str) -> bool:
        return self._indexes[survey] is not self._grid and self.channels.combine != "pad"

    def _area(self, survey: str, row: int) -> float:
        """Area of a pixel of the grid over that of the survey's own."""
        own, grid = self._indexes[survey], self._grid
        if not self._resampled(survey):
            return 1.0
        if self.channels.combine == "wcs":
            return pixel_area_factor(grid.pixel_scale_arcsec, own.pixel_scale_arcsec, conserve_flux=False)
        id = grid.cutout_id[self._rows[row] : self._rows[row] + 1]
        height, width = grid.shape(int(self._rows[row]))
        own_height, own_width = own.shape(int(own.rows_of(id)[0]))
        return own_height * own_width / (height * width)

    def _chosen(self, dataset: Artifact | None, part: str | None) -> np.ndarray:
        if dataset is None:
            if part is not None:
                raise ConfigError(f"part={part} needs a data set; give dataset=ID, or part=null for all cutouts")
            return np.arange(len(self._grid))
        images = dataset.table(IMAGES)
        if part is not None:
            images = images.filter(pl.Series(in_part(dataset, images, part)))
        if images.is_empty():
            raise InputError(f"dataset {dataset.id} has no image in part={part}; choose another part")
        return np.asarray(self._grid.rows_of(images["cutout_id"].to_numpy()))

    def _table(self) -> pl.DataFrame:
        rows = self._rows.tolist()
        shapes = np.array([self._grid.shape(row) for row in rows], dtype=np.int64).reshape(-1, 2)
        chosen = self._grid.table[rows]
        zero = np.zeros(len(rows), dtype=np.int64)
        return pl.DataFrame(
            {
                "image_row": np.arange(len(rows)),
                "cutout_id": chosen["cutout_id"],
                "name": chosen["file_name"],
                "height_px": shapes[:, 0],
                "width_px": shapes[:, 1],
                "fits_header": [self._grid.header(row) for row in rows],
                "row0": zero,
                "col0": zero,
                "core_row0": zero,
                "core_row1": shapes[:, 0],
                "core_col0": zero,
                "core_col1": shapes[:, 1],
            },
            schema=IMAGE_COLUMNS,
        )


def _cutouts(dataset: Artifact | None, survey: str, given: Artifact | None) -> Artifact:
    if given is None and dataset is None:
        raise ConfigError(f"no images of survey {survey}: give a data set, dataset=ID, or its cutouts, {survey}=ID")
    return given if dataset is None and given is not None else cutouts_of(dataset, survey, given)  # type: ignore[arg-type]
