"""What a detector must know of the data that it is fitted on, as the datamodule says it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skyloom.errors import InputError


@dataclass(frozen=True)
class DetectionData:
    """Channels and classes.

    Attributes
    ----------
    classes
        Names, by label.
    bands
        Survey and band of each channel.
    units, zero_point_mag
        Of each channel: its unit, and the AB magnitude of one such unit.
    pixel_scale_arcsec
        Of the images.
    mean, std
        float32 (C,) in the units of the images; None where they are not known.
    """

    classes: list[str]
    bands: list[list[str]]
    units: list[str]
    zero_point_mag: list[float]
    pixel_scale_arcsec: float
    mean: Tensor | None
    std: Tensor | None

    @property
    def in_chans(self) -> int:
        """Number of channels."""
        return len(self.bands)

    def facts(self) -> dict[str, Any]:
        """In plain types, but for mean and std, which the detector keeps with its weights."""
        return {key: value for key, value in vars(self).items() if key not in ("mean", "std")}


def detection_data(batches: Any) -> DetectionData:
    """Ask a datamodule for annotated images, such as :class:`skyloom.datamodule.roman_lsst.RomanLsstDataModule`.

    Raises
    ------
    InputError
        The classes are not numbered from 0 on.
    """
    labels = sorted(batches.categories)
    if labels != list(range(len(labels))):
        raise InputError(
            f"data set {batches.dataset.id}: expected classes numbered 0, 1, …, found {labels}; number its "
            "categories anew when it is made"
        )
    return DetectionData(
        classes=[batches.categories[label] for label in labels],
        bands=[list(band) for band in batches.bands],
        units=list(batches.units),
        zero_point_mag=[float(value) for value in batches.zero_point_mag],
        pixel_scale_arcsec=float(batches.images.grid.pixel_scale_arcsec),
        mean=batches.mean,
        std=batches.std,
    )
