"""Masks of true objects: the pixels where an object, alone and without noise, is above a threshold in some band."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import galsim
import numpy as np
from numpy.typing import NDArray

from skyloom.sky.drawing.kspace import KSpace
from skyloom.sky.drawing.profile_forms import Profiles, axes
from skyloom.sky.drawing.truth_galaxy import Sources

SIZES_PX = (24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048, 3072, 4096)
REACH, MARGIN_PX = 4, 8  # a stamp has REACH times the reach of its mask plus the margin: its copies' light stays away
EXACT_FROM = 1e4  # float64 for sources whose flux is this many thresholds; the noise of float32 transforms is 1e-7
FWHM_OF_SIGMA = 2.3548200450309493
PEAK_MARGIN = 1.01  # between the peak of a band's PSF as it is drawn and the one that rules out bands


@dataclass(frozen=True)
class Mask:
    """Mask of one object, not yet cut at the edge of the image.

    Attributes
    ----------
    pixels
        Shape (h, w), without empty rows or columns at its edges.
    row0, col0
        Pixel of the image under its first pixel; may lie outside.
    """

    pixels: NDArray[np.bool_]
    row0: int
    col0: int


class MaskDrawer:
    """Draws masks with the PSFs of a survey's bands.

    Parameters
    ----------
    psfs
        Per band, in arcsec.
    pixel_scale_arcsec
        Side of a pixel.
    matched
        Measure as a matched filter does: the image convolved once more with the PSF, against the noise that is left
        then, ``noise * sqrt(sum(P²))`` (Bosch et al. 2018, PASJ 70, S5, section 4.7). Otherwise: each pixel for itself.
    dilate_px
        Width of the ellipse by which masks are dilated; 0 and 1 do nothing. None: two sigma of the middle band's PSF,
        rounded down.
    """

    def __init__(
        self, psfs: Sequence[galsim.GSObject], pixel_scale_arcsec: float, *, matched: bool, dilate_px: int | None
    ) -> None:
        self.drawer = KSpace(psfs, pixel_scale_arcsec, matched=matched)
        self.power, self.peak, self.wing = np.empty(len(psfs)), np.empty(len(psfs)), []
        for c, psf in enumerate(psfs):
            stamp = _picture(psf, pixel_scale_arcsec)
            self.power[c] = np.sum(stamp**2)
            seen = _picture(galsim.AutoCorrelate(psf), pixel_scale_arcsec) if matched else stamp
            self.peak[c] = PEAK_MARGIN * seen.max()
            self.wing.append(np.maximum.accumulate(seen[len(seen) // 2, len(seen) // 2 :][::-1])[::-1])
        sigma_px = float(np.median([p.calculateFWHM() for p in psfs])) / FWHM_OF_SIGMA / pixel_scale_arcsec
        width = int(2 * sigma_px) if dilate_px is None else dilate_px
        self.brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)) if width > 1 else None

    def thresholds(self, noise: NDArray[np.float64], snr: float) -> NDArray[np.float64]:
        """Level per band above which a pixel of the drawn object belongs to its mask, (C,) of noise (C,)."""
        return snr * noise * (np.sqrt(self.power) if self.drawer.matched else 1.0)

    def masks(
        self,
        sources: Sources,
        x_px: NDArray[np.float64],
        y_px: NDArray[np.float64],
        jacobian: NDArray[np.float64],
        threshold: NDArray[np.float64],
        shape: tuple[int, int],
    ) -> list[Mask | None]:
        """Masks of sources of one image, each as if it were alone.

        Parameters
        ----------
        sources
            n sources without a problem.
        x_px, y_px
            Where they are, the centre of the first pixel is 0, shape (n,).
        jacobian
            Arcsec per pixel, shape (n, 2, 2).
        threshold
            Per band, in units of the image, shape (C,); bands where it is NaN or not above 0 are left out.
        shape
            (H, W) of the image: stamps never grow beyond twice its longer side, which its pixels cannot tell.

        Returns
        -------
        list of Mask or None
            Per source; None: above the threshold nowhere.
        """
        usable = np.isfinite(threshold) & (threshold > 0)
        level = np.where(usable, sources.flux / np.where(usable, threshold, 1.0), 0.0)
        level[level * self.peak <= 1] = 0.0  # cannot reach the threshold, even if all its light were in one point
        profiles = sources.on_pixels(jacobian)
        col, row = np.floor(x_px + 0.5).astype(int), np.floor(y_px + 0.5).astype(int)
        offset = np.column_stack([x_px - col, y_px - row])
        found: list[Mask | None] = [None] * len(x_px)
        largest = _size(np.array([2 * max(shape)]))[0]
        size = np.minimum(_size(REACH * self._reach_px(level, sources, profiles) + MARGIN_PX), largest)
        waiting = np.flatnonzero(level.any(axis=1))
        for side in SIZES_PX:
            own = waiting[size[waiting] == side]
            for exact in (False, True):
                rows = own[(level[own].max(axis=1, initial=0.0) >= EXACT_FROM) == exact]
                for i, mask in self._stamps(profiles, offset, level, sources.bulge_fraction, rows, side, exact):
                    reach = _reach(mask)
                    if REACH * reach + MARGIN_PX > side and side < largest:
                        size[i] = min(_size(np.array([max(REACH * reach + MARGIN_PX, side + 1)]))[0], largest)
                    else:
                        found[i] = self._finished(mask, row[i], col[i])
        return found

    def _stamps(
        self,
        profiles: Profiles,
        offset: NDArray[np.float64],
        level: NDArray[np.float64],
        bulge_fraction: NDArray[np.float64],
        rows: NDArray[np.intp],
        side: int,
        exact: bool,
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Union over the bands of one stamp per row."""
        if not len(rows):
            return
        step = max(1, (64 << 20) // side**2)
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            union = np.zeros((len(part), side, side), bool)
            drawn = self.drawer.images(
                profiles[part], offset[part], level[part], bulge_fraction[part], side, exact=exact
            )
            for places, _, images in drawn:
                union[places] |= images > 1
            yield from zip(part.tolist(), union, strict=True)

    def _finished(self, mask: NDArray[np.bool_], row: int, col: int) -> Mask | None:
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        middle = len(mask) // 2
        row0, col0 = int(row + rows[0] - middle), int(col + cols[0] - middle)
        cut = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
        if self.brush is None:
            return Mask(cut, row0, col0)
        room = len(self.brush) // 2
        wide = np.pad(cut.view(np.uint8), room)
        return Mask(cv2.dilate(wide, self.brush).astype(bool), row0 - room, col0 - room)

    def _reach_px(self, level: NDArray[np.float64], sources: Sources, profiles: Profiles) -> NDArray[np.float64]:
        """Guess of the largest distance of a mask's pixels from its centre, shape (n,); the drawing corrects it."""
        point = np.zeros(len(level))
        for c, wing in enumerate(self.wing):
            with np.errstate(divide="ignore"):
                radius = np.searchsorted(-wing, -1 / level[:, c])  # wing falls, so its negative rises
            point = np.maximum(point, np.where(level[:, c] > 0, radius, 0))
        brightest = level.max(axis=1, initial=0.0)
        share = sources.bulge_fraction.max(axis=1, initial=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            major, area = axes(profiles.disk)
            disk = major / 1.68 * np.log(brightest * 2.8 / (2 * np.pi * area))
            major, area = axes(profiles.bulge)
            bulge = major * np.maximum(1 + np.log(brightest * share / (7.215 * np.pi * area)) / 7.669, 0) ** 4
        return np.hypot(point, np.fmax(np.fmax(disk, np.where(share > 0, bulge, 0)), 0) / 2)


def _size(wanted_px: NDArray[np.floating]) -> NDArray[np.intp]:
    """Smallest side that is large enough, or the largest there is."""
    place = np.searchsorted(SIZES_PX, wanted_px)
    return np.array(SIZES_PX)[np.minimum(place, len(SIZES_PX) - 1)]


def _reach(mask: NDArray[np.bool_]) -> int:
    """Largest distance along an axis of a mask's pixels from the stamp's centre."""
    middle = len(mask) // 2
    places = [np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1)]
    return max((int(np.abs(p[[0, -1]] - middle).max()) for p in places if len(p)), default=0)


def _picture(profile: galsim.GSObject, scale: float) -> NDArray[np.float64]:
    """Profile of flux 1 on pixels, its centre in the middle of one: 257 px."""
    image = galsim.Image(257, 257, scale=scale, dtype=float)
    return np.asarray(profile.drawImage(image, method="no_pixel").array, np.float64)
