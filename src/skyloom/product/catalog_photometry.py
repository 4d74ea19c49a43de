"""Fluxes and magnitudes of detections in every band: in their masks, and of a point source at their place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skyloom.errors import ConfigError, unknown_choice
from skyloom.product.detection_source import Source
from skyloom.sky.drawing.psf_stamps import PsfStamps
from skyloom.sky.local_background import ring_median
from skyloom.sky.mask.placed import PlacedMask
from skyloom.sky.psf_position import refined_positions
from skyloom.sky.source_photometry import ab_mag, mask_flux, njy, noise_of, psf_flux
from skyloom.sky.survey.bands import Band

WAVELENGTH_KEY = "wavelength_nm"
LEAST_OWN = 0.5  # part of a mask below which its fluxes say little of the source
NO_WAVELENGTH_NM = 1.0  # for PSF models that read none


@dataclass(frozen=True)
class PhotometryOptions:
    """How fluxes are measured.

    Attributes
    ----------
    overlap
        ``split`` or ``double``, see :func:`skyloom.sky.source_photometry.mask_flux`.
    psf_size_arcsec
        Side of the picture of a PSF.
    refine
        Whether PSF fluxes are of the place where the PSFs fit best, see
        :func:`skyloom.sky.psf_position.refined_positions`; else of where the detection lies.
    background_arcsec
        Radii of the ring around each detection whose median is taken off its pixels; None takes nothing off.
    psf
        By band ``model`` and its keys (:mod:`skyloom.sky.drawing.psf`), in the place of what the survey's file said.
    """

    overlap: Literal["split", "double"]
    psf_size_arcsec: float
    refine: bool
    background_arcsec: tuple[float, float] | None
    psf: Mapping[str, Mapping[str, Any]] | None


@dataclass(frozen=True)
class Measured:
    """What was measured of n detections.

    Attributes
    ----------
    columns
        By column float64 (n,), NaN where unknown; see ``docs/products/catalog.md``.
    xy_psf_px
        float64 (n, 2): where the PSFs were fitted.
    blank
        bool (n,): the mask has a pixel without data in some band.
    shared
        bool (n,): less than half of the mask has counted in any band.
    """

    columns: dict[str, np.ndarray]
    xy_psf_px: np.ndarray
    blank: np.ndarray
    shared: np.ndarray


def band_labels(bands: Sequence[tuple[str, str]]) -> list[str]:
    """Name of each channel in columns: its band, after its survey where two surveys have a band of one name."""
    names = [band for _, band in bands]
    return [band if names.count(band) == 1 else f"{survey}_{band}" for survey, band in bands]


class Photometer:
    """Measures the detections of images.

    Parameters
    ----------
    source
        The images.
    options
        How.

    Raises
    ------
    ConfigError
        A PSF is of a band that is not there, or cannot be drawn; or the ring of the background cannot be had in pixels.
    """

    def __init__(self, source: Source, options: PhotometryOptions) -> None:
        self.source, self.options = source, options
        self.labels = band_labels(source.bands)
        self.zero_point_mag = source.zero_point_mag
        scale = source.pixel_scale_arcsec
        if options.background_arcsec and not np.isfinite(scale):
            raise ConfigError("photometry.background_arcsec needs the side of a pixel; add mosaic.pixel_scale_arcsec")
        size_px = 2 * round(options.psf_size_arcsec / scale / 2) + 1 if np.isfinite(scale) else 3
        facts = _psf_facts(source, self.labels, options.psf) if np.isfinite(scale) else [None] * len(self.labels)
        self.stamps = [
            None if band is None else PsfStamps(band, pixel_scale_arcsec=scale, size_px=max(size_px, 3))
            for band in facts
        ]

    @property
    def columns(self) -> list[str]:
        """Names of the columns that `measure` gives."""
        none, names = np.empty(0), []
        for label, zero in zip(self.labels, self.zero_point_mag, strict=True):
            names += [*self._columns(label, zero, none, none, none), f"snr_{label}"]
        return names

    def measure(self, row: int, masks: Sequence[PlacedMask], own: np.ndarray, xy_px: np.ndarray) -> Measured:
        """Measure the detections of an image.

        Parameters
        ----------
        row
            Of the image.
        masks
            In the image, of all detections that reach into it, the best first.
        own
            int64 (n,): which of them are asked for; the others only share pixels.
        xy_px
            float64 (n, 2), where those are; the centre of the first pixel is 0.

        Returns
        -------
        Measured
            Fluxes, and what else was found out on the way.
        """
        image = self.source.read(row)
        shape = image.shape[1], image.shape[2]
        free = np.ones(shape, dtype=bool)
        for mask in masks:
            window, part = mask.on(shape)
            free[window] &= ~part
        noise, area, correlated = noise_of(image, free), self.source.area_factor(row), self.source.noise_factor(row)
        level = self._level(image, xy_px, free)
        levels = np.zeros((len(masks), len(image)))
        levels[own] = level
        in_mask = mask_flux(image, masks, overlap=self.options.overlap, pixel_area=area, level=levels)
        xy_psf_px = xy_px
        if self.options.refine:
            xy_psf_px, _ = refined_positions(
                image, xy_px[:, 0], xy_px[:, 1], self.stamps, variance=(noise * correlated) ** 2, level=level
            )
        at = psf_flux(
            image, xy_psf_px[:, 0], xy_psf_px[:, 1], self.stamps, variance=noise**2, pixel_area=area, level=level
        )
        error = at.error * correlated
        pixels = np.array([[masks[place].pixels.sum()] for place in own], dtype=float).reshape(-1, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            of_mask = in_mask.flux[own] / (noise * correlated * area * np.sqrt(pixels))
            snr = np.where(np.isfinite(error), at.flux / error, of_mask)
        columns: dict[str, np.ndarray] = {}
        for place, label in enumerate(self.labels):
            found = in_mask.flux[own, place], at.flux[:, place], error[:, place]
            columns |= self._columns(label, self.zero_point_mag[place], *found)
            columns[f"snr_{label}"] = np.where(np.isfinite(snr[:, place]), snr[:, place], np.nan)
        shared = (pixels[:, 0] > 0) & (in_mask.seen[own].max(axis=1, initial=0.0) < LEAST_OWN)
        return Measured(columns, xy_psf_px, self._blank(image, [masks[place] for place in own]), shared)

    def _level(self, image: np.ndarray, xy_px: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Background at each detection, float64 (n, C), in the unit of the pixels."""
        if self.options.background_arcsec is None:
            return np.zeros((len(xy_px), len(image)))
        inner, outer = (radius / self.source.pixel_scale_arcsec for radius in self.options.background_arcsec)
        return ring_median(image, xy_px[:, 0], xy_px[:, 1], free, inner_px=inner, outer_px=outer)

    def _columns(
        self, label: str, zero_point_mag: float | None, mask: np.ndarray, psf: np.ndarray, error: np.ndarray
    ) -> dict[str, np.ndarray]:
        if zero_point_mag is None:  # nobody knows what a unit is: fluxes stay in it
            return {f"flux_mask_{label}": mask, f"flux_psf_{label}": psf, f"flux_psf_err_{label}": error}
        mask, psf, error = (njy(values, zero_point_mag) for values in (mask, psf, error))
        return {
            f"flux_mask_{label}_njy": mask, f"mag_mask_{label}": ab_mag(mask), f"flux_psf_{label}_njy": psf,
            f"flux_psf_err_{label}_njy": error, f"mag_psf_{label}": ab_mag(psf),
        }  # fmt: skip

    def _blank(self, image: np.ndarray, masks: Sequence[PlacedMask]) -> np.ndarray:
        blank = ~np.isfinite(image).all(axis=0)
        windows = [mask.on((image.shape[1], image.shape[2])) for mask in masks]
        return np.array([bool(blank[window][part].any()) for window, part in windows], dtype=bool)


def _psf_facts(source: Source, labels: Sequence[str], said: Mapping[str, Any] | None) -> list[Band | None]:
    """Band of each channel with the PSF that was said, else that of the survey's file; None where nobody has said."""
    for label in said or {}:
        if label not in labels:
            raise unknown_choice("photometry.psf", label, labels)
    facts: list[Band | None] = []
    for label, known, zero in zip(labels, source.facts, source.zero_point_mag, strict=True):
        psf = dict((said or {}).get(label) or {})
        if not psf:
            facts.append(known)
            continue
        wavelength_nm = psf.pop(WAVELENGTH_KEY, known.wavelength_nm if known else None)
        if wavelength_nm is None and str(psf.get("model")).endswith("airy"):
            raise ConfigError(f"photometry.psf.{label}: model {psf['model']} needs {WAVELENGTH_KEY}; add it")
        facts.append(
            Band.from_mapping(
                f"photometry.psf.{label}",
                {"name": label, "zero_point_mag": zero or 0.0, "wavelength_nm": wavelength_nm or NO_WAVELENGTH_NM,
                 "psf": psf, "extinction": None},
            )
        )  # fmt: skip
    return facts
