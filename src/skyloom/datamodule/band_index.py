"""Reads the pixels of all bands behind an index of band cutouts, joined from the images that fill each cutout."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.wcs import WCS

from skyloom.datamodule.image_files import check_unchanged, find_image, root_folders, rows_of
from skyloom.datamodule.packed_pixels import open_packed
from skyloom.errors import InputError, unknown_choice
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.geometry.wcs_cards import moved_cards, wcs_of
from skyloom.store import Artifact

OPEN_IMAGES = 64  # memory-mapped files kept open at once, far below the usual limit of 1,024


class BandIndex:
    """The rows of a ``cutouts`` artifact of a survey with bands, and their pixels.

    Parameters
    ----------
    artifact
        Artifact of kind ``cutouts`` whose images have one file per band.
    image_roots
        Folders in which images are looked for that no longer lie where they were indexed.

    Attributes
    ----------
    table : polars.DataFrame
        ``cutouts.parquet``, shape (N, ...).
    cutout_id : ndarray
        int64, shape (N,).
    bands : tuple of str
        In the order of the channels.
    unit : str or None
        Of the pixels.
    zero_point_mag : dict
        By band the AB magnitude of one unit.
    pixel_scale_arcsec : float
        Side of a pixel.

    Raises
    ------
    InputError
        The cutouts are not those of a survey with bands.
    """

    def __init__(self, artifact: Artifact, *, image_roots: Sequence[str] | str | None = None) -> None:
        if "pieces.parquet" not in artifact.manifest["files"]:
            raise InputError(
                f"cutouts {artifact.id} have one image per cutout; expected cutouts of a survey with bands, made by "
                "step=cutouts survey=roman or survey=lsst"
            )
        self.artifact = artifact
        self.table = artifact.table("cutouts.parquet")
        self.cutout_id = self.table["cutout_id"].to_numpy()
        notes = artifact.notes
        self.bands: tuple[str, ...] = tuple(notes["bands"])
        self.unit: str | None = notes["unit"]
        self.zero_point_mag: dict[str, float] = dict(notes["zero_point_mag"])
        self.pixel_scale_arcsec = float(notes["pixel_scale_arcsec"])
        self._roots = root_folders(image_roots)
        images = artifact.table("images.parquet")
        self._images = {(row["image"], row["band"]): row for row in images.iter_rows(named=True)}
        self._names = sorted({name for name, _ in self._images})
        self._corners = self.table.select("row0", "col0", "height_px", "width_px").to_numpy()
        self._first, self._pieces = self._sorted_pieces(artifact.table("pieces.parquet"))
        self._open: OrderedDict[tuple[str, str], Image] = OrderedDict()
        self._checked: set[tuple[str, str]] = set()
        self._packed = open_packed(artifact, len(self.table))

    def __len__(self) -> int:
        return len(self.cutout_id)

    def __getstate__(self) -> dict[str, Any]:
        own: dict[str, Any] = {"_open": OrderedDict(), "_checked": set(), "_packed": copy(self._packed)}
        return {**self.__dict__, **own}  # each process opens its own files

    def rows_of(self, cutout_ids: np.ndarray) -> np.ndarray:
        """Row numbers of cutouts by id, int64 (M,) of int64 (M,); InputError for an id that is not in the index."""
        return rows_of(self.artifact, self.cutout_id, cutout_ids)

    def shape(self, row: int) -> tuple[int, int]:
        """Height and width of a cutout in pixels."""
        height, width = self._corners[row, 2:]
        return int(height), int(width)

    def read(self, row: int, bands: Sequence[str] | None = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Pixels of a cutout.

        Parameters
        ----------
        row
            Row number.
        bands
            Which bands in which order; None: all in the order of `bands`.
        out
            float32 array of shape (C, H, W) to write into; None makes a new one.

        Returns
        -------
        ndarray
            float32, shape (C, H, W), `out` if given, in `unit`; NaN where an image is blank and where no image reaches.

        Raises
        ------
        ConfigError
            The cutouts have no such band.
        InputError
            An image is gone, cannot be read, or is not the one that was indexed.
        """
        wanted = self.bands if bands is None else tuple(bands)
        for band in wanted:
            if band not in self.bands:
                raise unknown_choice("band", band, self.bands)
        height, width = self.shape(row)
        if self._packed:
            stored = self._packed.read(np.array([row]))[0]
            if self.bands != wanted:
                stored = stored[[self.bands.index(band) for band in wanted]]
            if out is None:
                return stored
            out[...] = stored
            return out
        pieces = self._pieces[self._first[row] : self._first[row + 1]]
        whole = len(pieces) == 1 and tuple(pieces[0, 3:5]) == (height, width)
        pixels = np.empty((len(wanted), height, width), np.float32) if out is None else out
        if not whole:
            pixels.fill(np.nan)
        for code, row0, col0, rows, cols, to_row, to_col in pieces.tolist():
            for channel, band in enumerate(wanted):
                part = pixels[channel, to_row : to_row + rows, to_col : to_col + cols]
                self._image(self._names[code], band).read(row0, col0, rows, cols, out=part)
        return pixels

    def check_images(self, rows: np.ndarray) -> None:
        """Look whether the images of rows are there, before long work begins; packed cutouts need none.

        Raises
        ------
        InputError
            When one is gone. Whether its content has changed is seen when it is read.
        """
        if self._packed is None:
            numbers = [self._pieces[self._first[row] : self._first[row + 1], 0] for row in rows.tolist()]
            for code in np.unique(np.concatenate(numbers)):
                for band in self.bands:
                    self.image_path(self._names[int(code)], band)

    def header(self, row: int) -> str:
        """World coordinates of a cutout as FITS cards of 80 characters, joined to one string."""
        row0, col0, height, width = (int(v) for v in self._corners[row])
        cards = self._entry(self.table["image"][row], self.bands[0])["fits_header"]
        return moved_cards(cards, row0, col0, (height, width))

    def wcs(self, row: int) -> WCS:
        """World coordinates of a cutout; the centre of its first pixel is (0, 0)."""
        return wcs_of(self.header(row))

    def image_path(self, image: str, band: str) -> Path:
        """Where the file of an image and band lies now.

        Raises
        ------
        InputError
            When it is nowhere to be found.
        """
        return find_image(self.artifact, self._entry(image, band), self._roots)

    def _entry(self, image: str, band: str) -> dict[str, Any]:
        try:
            return self._images[image, band]
        except KeyError as error:
            raise InputError(
                f"images.parquet of cutouts {self.artifact.id} lists no file of image {image} in band {band}; the "
                "artifact is damaged, remove it and run step=cutouts again"
            ) from error

    def _image(self, image: str, band: str) -> Image:
        key = image, band
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        path = self.image_path(image, band)
        if key not in self._checked:
            check_unchanged(self.artifact, self._entry(image, band), path)
            self._checked.add(key)
        if len(self._open) >= OPEN_IMAGES:
            self._open.popitem(last=False)[1].close()
        self._open[key] = open_image(path)
        return self._open[key]

    def _sorted_pieces(self, pieces: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Pieces in the order of the rows: where those of each row begin, (N + 1,), and the pieces, (P, 7)."""
        rows = rows_of(self.artifact, self.cutout_id, pieces["cutout_id"].to_numpy())
        codes = pieces["image"].replace_strict({n: i for i, n in enumerate(self._names)}, return_dtype=pl.Int32)
        numbers = pieces.select(codes, "row0", "col0", "height", "width", "to_row", "to_col").to_numpy()
        first = np.searchsorted(np.sort(rows), np.arange(len(self) + 1))
        return first, numbers[np.argsort(rows, kind="stable")]


def survey_facts(cutouts: Artifact) -> Mapping[str, Any]:
    """What the survey's file said when band cutouts were made; step=pack hands it on. Empty where nobody knows."""
    facts = cutouts.parameters.get("survey") or cutouts.notes.get("survey_facts")
    return facts if isinstance(facts, Mapping) else {}


def truth_of(artifact: Artifact, tile: str) -> pl.DataFrame:
    """Truth objects in the cutouts of a tile: cutout_id, object_id, category_id, ra_deg, dec_deg, x_px, y_px and more.

    Raises
    ------
    StoreError
        The cutouts have no such tile, or no truth.
    """
    return artifact.table(f"truth/{tile}.parquet")


def detections_of(artifact: Artifact, tile: str) -> pl.DataFrame:
    """Detections in the cutouts of a tile: cutout_id, detection_id, ra_deg, dec_deg, x_px, y_px and more.

    Raises
    ------
    StoreError
        The cutouts have no such tile, or no detections.
    """
    return artifact.table(f"detections/{tile}.parquet")
