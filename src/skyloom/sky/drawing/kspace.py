"""Draws many small sources at once: their profiles times the PSF in Fourier space, many stamps per transform."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import galsim
import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2

from skyloom.sky.drawing.profile_forms import Profiles

ALIASED = 5e-3  # largest amplitude of a PSF at the pixels' Nyquist frequency that is drawn without finer pixels
HLR_OF_EXPONENTIAL = 1.6783469900166605  # half-light radius over scale length
STEPS_PER_OCTAVE, OCTAVES = 64, (-24, 30)  # table of the de Vaucouleurs profile, over (k * half-light radius)**2
CHUNK_BYTES = 1 << 20  # of one complex plane per source: stays in the cache of a core


class KSpace:
    """Draws sources with the PSFs of a survey's bands.

    Parameters
    ----------
    psfs
        Per band, in arcsec.
    pixel_scale_arcsec
        Side of a pixel.
    matched
        Convolve with the mirrored PSF once more, as the filter does that finds point sources best.
    """

    def __init__(self, psfs: Sequence[galsim.GSObject], pixel_scale_arcsec: float, *, matched: bool) -> None:
        self.psfs = [psf.withFlux(1.0) for psf in psfs]
        self.scale = pixel_scale_arcsec
        self.matched = matched
        edge = np.pi / pixel_scale_arcsec
        fine = 1
        while any(abs(p.kValue(x * fine, y * fine)) > ALIASED for p in self.psfs for x, y in ((edge, 0), (0, edge))):
            fine += 1
        self.fine = fine
        self._kernels: dict[tuple[int, int, str], NDArray[Any]] = {}

    def images(
        self,
        profiles: Profiles,
        offset: NDArray[np.float64],
        flux: NDArray[np.float64],
        bulge_fraction: NDArray[np.float64],
        size_px: int,
        *,
        exact: bool = False,
    ) -> Iterator[tuple[NDArray[np.intp], int, NDArray[np.floating]]]:
        """Draw sources on square stamps that repeat without end in both directions.

        Parameters
        ----------
        profiles
            Of n sources.
        offset
            x and y of each source from the centre of pixel ``size_px // 2``, in pixels, shape (n, 2).
        flux, bulge_fraction
            Shape (n, C); a band with flux 0 is not drawn.
        size_px
            Side of the stamps, even.
        exact
            float64 in place of float32.

        Yields
        ------
        rows : (m,)
            Which sources, in pieces that fit the cache.
        channel : int
            Which band.
        images : (m, size_px, size_px)
            Flux per pixel.
        """
        real, side = (np.float64 if exact else np.float32), size_px * self.fine
        ky: NDArray[Any] = (2 * np.pi * np.fft.fftfreq(side, 1 / self.fine)).astype(real)
        kx: NDArray[Any] = np.abs(2 * np.pi * np.fft.rfftfreq(side, 1 / self.fine)).astype(real)
        step = max(1, CHUNK_BYTES // (side * len(kx) * 2 * np.dtype(real).itemsize))
        for start in range(0, len(flux), step):
            rows = np.arange(start, min(start + step, len(flux)))
            disk = _exponential(_form(profiles.disk[rows].astype(real), kx, ky))
            has_bulge = bool(bulge_fraction[rows].any())
            bulge = _de_vaucouleurs(_form(profiles.bulge[rows].astype(real), kx, ky)) if has_bulge else None
            x, y = (size_px // 2 + offset[rows].T).astype(real)
            phase = np.exp(-1j * y[:, None] * ky)[:, :, None] * np.exp(-1j * x[:, None] * kx)[:, None, :]
            for channel in range(flux.shape[1]):
                own = np.flatnonzero(flux[rows, channel])
                if not len(own):
                    continue
                whole = len(own) == len(rows)
                of = flux[rows[own], channel, None, None] * self.fine**2
                share = bulge_fraction[rows[own], channel, None, None]
                light: NDArray[Any] = (of * (1 - share)).astype(real) * (disk if whole else disk[own])
                if bulge is not None:
                    light += (of * share).astype(real) * (bulge if whole else bulge[own])
                light = light * self._kernel(channel, size_px, real) * (phase if whole else phase[own])
                drawn = irfft2(light, s=(side, side), overwrite_x=True)
                yield rows[own], channel, drawn[:, :: self.fine, :: self.fine]

    def _kernel(self, channel: int, size_px: int, real: type) -> NDArray[Any]:
        """PSF of a band in Fourier space, shape (side, side // 2 + 1), as ``rfft2`` orders it."""
        key = channel, size_px, np.dtype(real).char
        if key not in self._kernels:
            half = size_px * self.fine // 2
            bounds = galsim.BoundsI(-half, half, -half, half)
            image = galsim.ImageCD(bounds, scale=2 * np.pi / (size_px * self.scale))
            plane = self.psfs[channel].drawKImage(image=image).array
            order = np.concatenate([np.arange(half, 2 * half), np.arange(half)])
            plane = plane[order][:, half:]
            plane = np.abs(plane) ** 2 + 0j if self.matched else plane
            symmetric = np.abs(plane.imag).max() < 1e-9
            kind = real if symmetric else np.result_type(real, np.complex64)
            self._kernels[key] = np.ascontiguousarray(plane.real if symmetric else plane).astype(kind)
        return self._kernels[key]


def _form(form: NDArray[Any], kx: NDArray[Any], ky: NDArray[Any]) -> NDArray[Any]:
    a, b, c = (form[:, i, None, None] for i in range(3))
    x, y = kx[None, None, :], ky[None, :, None]
    return np.maximum(a * x * x + (2 * b * x) * y + c * y * y, 0)  # rounding may leave less than 0


def _exponential(q: NDArray[Any]) -> NDArray[Any]:
    """Fourier transform of an exponential disk of flux 1: ``(1 + (k r)²)^(-3/2)``, r its scale length."""
    base = 1 + q / q.dtype.type(HLR_OF_EXPONENTIAL**2)
    return 1 / (base * np.sqrt(base))


def _de_vaucouleurs(q: NDArray[Any]) -> NDArray[Any]:
    """Fourier transform of a de Vaucouleurs profile of flux 1, from a table of GalSim's."""
    values, slopes = (table.astype(q.dtype) for table in _table())
    low, high = OCTAVES
    with np.errstate(divide="ignore"):
        place = (np.log2(q) - low) * STEPS_PER_OCTAVE
    place = np.clip(place, 0, (high - low) * STEPS_PER_OCTAVE - 1)
    cell = place.astype(np.int32)
    return values[cell] + (place - cell) * slopes[cell]


@lru_cache(maxsize=1)
def _table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = OCTAVES
    profile = galsim.DeVaucouleurs(half_light_radius=1.0)
    squares = 2.0 ** np.linspace(low, high, (high - low) * STEPS_PER_OCTAVE + 1)
    values = np.array([profile.kValue(k, 0).real for k in np.sqrt(squares)])
    return values[:-1], np.diff(values)
