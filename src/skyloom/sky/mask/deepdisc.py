"""Masks with the choices of the DeepDISC Roman-Rubin pipeline, flaws included, to compare with what it made."""

from collections.abc import Sequence
from typing import Any

import cv2
import galsim
import numpy as np
from numpy.typing import NDArray

from skyloom.sky.drawing.truth_galaxy import Sources
from skyloom.sky.mask import rle
from skyloom.sky.survey.bands import Band

STAMP_PX, NOISE_STAMP_PX, PAD_PX = 128, 64, 4
STAR_FWHM_ARCSEC = 1e-4
SIGMA_OF_FWHM = 0.4247
BRIGHT_MAG, VERY_BRIGHT_MAG = 18.0, 15.0
NOT_DRAWN = (galsim.GalSimError, ValueError, ZeroDivisionError, RuntimeError)


class DeepDiscDrawer:
    """Draws one object and band at a time with GalSim, on a stamp of 128 px.

    Parameters
    ----------
    psfs
        Per band, in arcsec.
    pixel_scale_arcsec
        Side of a pixel.
    bands
        For their zero points.

    Notes
    -----
    As there: the object is convolved with the PSF twice; the sum of squares of the PSF is taken from a picture on
    GalSim's own (Nyquist) pixels; the disk's major half-light axis is taken for its radius and ``(1-q)/(1+q)`` for a
    distortion; the object is drawn in the middle of the stamp, and the middle of the mask's box put on the position
    rounded down; boxes are padded by 4 px and may leave the image; holes are filled.
    """

    def __init__(self, psfs: Sequence[galsim.GSObject], pixel_scale_arcsec: float, bands: Sequence[Band]) -> None:
        self.psfs, self.scale = list(psfs), pixel_scale_arcsec
        self.zero = [band.zero_point_mag for band in bands]
        sums = [np.sum(psf.drawImage(nx=NOISE_STAMP_PX, ny=NOISE_STAMP_PX).array.astype(float) ** 2) for psf in psfs]
        self.power = np.array(sums)
        names = [band.name for band in bands]
        middle = self.psfs[names.index("i") if "i" in names else len(names) // 2]
        width = int(2 * middle.calculateFWHM() * SIGMA_OF_FWHM / pixel_scale_arcsec)
        self.brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(width, 1), max(width, 1)))

    def row(
        self,
        sources: Sources,
        i: int,
        x_px: float,
        y_px: float,
        noise: NDArray[np.float64],
        snr: float,
        shape: tuple[int, int],
        min_area_px: int,
    ) -> dict[str, Any] | tuple[str, str]:
        """Columns of the mask of object ``i`` (`skyloom.step.annotate.columns.MASK_COLUMNS`), or why it has none."""
        drawn = self.stamp(sources, i, noise, snr)
        if drawn is None:
            return "galsim_fail", "no band could be drawn"
        area = int(np.count_nonzero(drawn))
        if area == 0:
            return "empty_mask", "below the threshold in every band"
        if area < min_area_px:
            return f"small_mask_{min_area_px}px", f"{area} px"
        rows, cols = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
        width, height = (int(at[-1] - at[0]) + 2 * PAD_PX for at in (cols, rows))
        filled = _filled(drawn)
        left, top = (int(np.rint(int(v) - (at[0] + at[-1]) / 2)) for v, at in ((x_px, cols), (y_px, rows)))
        whole = np.zeros(shape, bool)
        inside = filled[max(-top, 0) : max(shape[0] - top, 0), max(-left, 0) : max(shape[1] - left, 0)]
        whole[max(top, 0) :, max(left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
        if not whole.any():
            return "invalid_contours", "all of the mask lies outside of the image"
        return {
            "bbox_x_px": int(x_px) - width / 2, "bbox_y_px": int(y_px) - height / 2, "bbox_w_px": width,
            "bbox_h_px": height, "area_px": int(whole.sum()), "rle": rle.encode(whole),
            "clipped": bool(whole.sum() < filled.sum()),
        }  # fmt: skip

    def stamp(self, sources: Sources, i: int, noise: NDArray[np.float64], snr: float) -> NDArray[np.bool_] | None:
        """Union over the bands of the dilated masks, shape (128, 128); None: no band could be drawn."""
        union: NDArray[np.bool_] | None = None
        for c, psf in enumerate(self.psfs):
            if not sources.flux[i, c] > 0 or not np.isfinite(noise[c]):
                continue
            try:
                light = galsim.Convolve(galsim.Convolve(self._object(sources, i, c, float(noise[c])), psf), psf)
                image = light.drawImage(nx=STAMP_PX, ny=STAMP_PX, scale=self.scale, method="no_pixel").array
            except NOT_DRAWN:
                continue
            mask = (image > snr * np.sqrt(noise[c] ** 2 * self.power[c])).astype(np.uint8)
            dilated = cv2.dilate(mask, self.brush).astype(bool)
            union = dilated if union is None else union | dilated
        return union

    def _object(self, sources: Sources, i: int, c: int, noise: float) -> galsim.GSObject:
        flux = float(sources.flux[i, c])
        if sources.is_star[i]:
            params = self._bright(self.zero[c] - 2.5 * np.log10(flux), noise / flux)
            return galsim.Gaussian(fwhm=STAR_FWHM_ARCSEC, flux=flux, gsparams=params)
        major, minor, bulge_major, bulge_minor, angle, shear_1, shear_2 = sources.shape[i]
        share, parts = float(sources.bulge_fraction[i, c]), []
        if share < 1:
            disk = galsim.Exponential(half_light_radius=major, flux=flux * (1 - share))
            parts.append(disk.shear(**_distortion(minor / major, angle)))
        if share > 0:
            bulge = galsim.DeVaucouleurs(half_light_radius=np.sqrt(bulge_major * bulge_minor), flux=flux * share)
            parts.append(bulge.shear(**_distortion(bulge_minor / bulge_major, angle)))
        return galsim.Add(parts).shear(g1=shear_1, g2=shear_2)

    @staticmethod
    def _bright(mag: float, relative_noise: float) -> galsim.GSParams | None:
        if mag >= BRIGHT_MAG:
            return None
        fold = min(float(np.exp(np.floor(np.log(relative_noise)))), 0.005)
        if mag >= VERY_BRIGHT_MAG:
            return galsim.GSParams(maximum_fft_size=16384, folding_threshold=fold)
        return galsim.GSParams(
            maximum_fft_size=16384, folding_threshold=fold, kvalue_accuracy=1e-8, maxk_threshold=1e-5
        )


def _distortion(q: float, position_angle_deg: float) -> dict[str, float]:
    e, angle = (1 - q) / (1 + q), 2 * np.radians(position_angle_deg)
    return {"e1": -e * np.cos(angle), "e2": e * np.sin(angle)}


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), contours, -1, 1, cv2.FILLED).astype(bool)
