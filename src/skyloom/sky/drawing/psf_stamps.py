"""Pictures of a PSF at places between pixels, for the photometry of point sources."""

from functools import cached_property

import galsim
import numpy as np
from numpy.typing import NDArray

from skyloom.errors import ConfigError
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.survey.bands import Band

STEPS_PER_PX = 16  # places per pixel and axis at which a PSF is drawn; a source is at most 1/32 px from one of them
Floats = NDArray[np.float64]


class PsfStamps:
    """Pictures of one band's PSF at places between pixels, drawn by GalSim when first needed.

    Parameters
    ----------
    band
        Says the PSF, see :func:`skyloom.sky.drawing.psf.psf_model`.
    pixel_scale_arcsec
        Side of a pixel of the image.
    size_px
        Side of a stamp, odd.

    Raises
    ------
    ConfigError
        The size is even, or the PSF cannot be drawn.
    """

    def __init__(self, band: Band, *, pixel_scale_arcsec: float, size_px: int) -> None:
        if size_px < 3 or size_px % 2 == 0:
            raise ConfigError(f"psf_px={size_px}: expected an odd number of at least 3, so that a stamp has a middle")
        self.band, self.pixel_scale_arcsec, self.size_px = band, pixel_scale_arcsec, size_px
        self._drawn: dict[tuple[int, int], Floats] = {}

    @cached_property
    def _model(self) -> galsim.GSObject:
        return psf_model(self.band)

    def at(self, x_px: float, y_px: float) -> tuple[Floats, int, int]:
        """Fraction of the flux per pixel, (size, size), of a source at a place; row and column of its first pixel."""
        steps = round(x_px * STEPS_PER_PX), round(y_px * STEPS_PER_PX)
        col, row = (int(np.floor(step / STEPS_PER_PX + 0.5)) for step in steps)
        offset = steps[0] - col * STEPS_PER_PX, steps[1] - row * STEPS_PER_PX
        if offset not in self._drawn:
            image = galsim.Image(self.size_px, self.size_px, scale=self.pixel_scale_arcsec, dtype=float)
            shift = galsim.PositionD(offset[0] / STEPS_PER_PX, offset[1] / STEPS_PER_PX)
            self._drawn[offset] = np.asarray(self._model.drawImage(image, method="no_pixel", offset=shift).array)
        half = self.size_px // 2
        return self._drawn[offset], row - half, col - half
