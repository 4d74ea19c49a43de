"""Images with the bands of one survey or of several, each brought onto the grid of the last."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.joint_grid import Placement, frame_of, placement
from skyloom.errors import InputError

CACHED = 65536  # placements of about 2 kB kept per process: the cutouts of 290 Roman tiles


class JointImages:
    """The images of cutouts, which have the same id in every survey.

    Parameters
    ----------
    indexes
        Cutouts by survey.
    surveys
        Whose bands make the channels, in this order; the last gives the grid.
    annotated
        The cutouts in whose pixels boxes and masks are given; they need not be among the channels.
    combine, interpolation, conserve_flux
        As in :func:`skyloom.datamodule.joint_grid.placement`.
    cache
        Whether to keep what was worked out of two WCS for the next epoch.

    Attributes
    ----------
    bands : tuple of (str, str)
        Survey and band of each channel.
    """

    def __init__(
        self,
        indexes: Mapping[str, BandIndex],
        surveys: Sequence[str],
        annotated: BandIndex,
        *,
        combine: str,
        interpolation: str,
        conserve_flux: bool,
        cache: bool = True,
    ) -> None:
        self.indexes = {survey: indexes[survey] for survey in surveys}
        self.grid, self.annotated = indexes[surveys[-1]], annotated
        self.bands = tuple((survey, band) for survey in surveys for band in indexes[survey].bands)
        self._options = {"combine": combine, "interpolation": interpolation, "conserve_flux": conserve_flux}
        self._cache = cache
        self._orders: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for index in (*self.indexes.values(), annotated):
            order = np.argsort(index.cutout_id, kind="stable")
            self._orders[index.artifact.id] = order, index.cutout_id[order]
        self._kept: OrderedDict[tuple[str, int], Placement] = OrderedDict()

    def read(self, cutout_id: int) -> tuple[np.ndarray, Placement]:
        """Read an image.

        Returns
        -------
        image : ndarray
            float32 (C, H, W) in the units of the surveys; NaN where one of them is blank or does not reach.
        placement : Placement
            Brings masks and positions of the annotations onto it.

        Raises
        ------
        InputError
            A cutout is missing or cannot be read, or two do not overlap; the message names the cutout.
        """
        parts = []
        for index in self.indexes.values():
            pixels = index.read(self._row(index, cutout_id))
            parts.append(self._placement(index, cutout_id).image(pixels))
        return np.concatenate(parts), self._placement(self.annotated, cutout_id)

    def annotated_shape(self, cutout_id: int) -> tuple[int, int]:
        """Height and width of the image in whose pixels the annotations are given."""
        return self.annotated.shape(self._row(self.annotated, cutout_id))

    def _placement(self, index: BandIndex, cutout_id: int) -> Placement:
        key = index.artifact.id, cutout_id
        if key in self._kept:
            return self._kept[key]
        own, grid = (frame_of(i, self._row(i, cutout_id)) for i in (index, self.grid))
        try:
            made = placement(own, grid, **self._options)  # type: ignore[arg-type]
        except InputError as error:
            raise InputError(
                f"cutout {cutout_id} of cutouts {index.artifact.id} and {self.grid.artifact.id}: {error}"
            ) from error
        if self._cache:
            if len(self._kept) >= CACHED:
                self._kept.popitem(last=False)
            self._kept[key] = made
        return made

    def _row(self, index: BandIndex, cutout_id: int) -> int:
        """Row of a cutout, without sorting all ids for each."""
        rows, sorted_ids = self._orders[index.artifact.id]
        at = int(np.searchsorted(sorted_ids, cutout_id))
        if at == len(sorted_ids) or sorted_ids[at] != cutout_id:
            index.rows_of(np.array([cutout_id]))  # tells what is wrong
        return int(rows[at])
