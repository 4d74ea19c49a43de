"""Draws simulated sources into one band of an image: light profiles through the PSF, and noise to a given depth."""

import json
from functools import lru_cache

import galsim
import numpy as np
import polars as pl
from numpy.typing import NDArray

from skyloom.sky.drawing.light_profile import galaxy
from skyloom.sky.drawing.psf import psf_model
from skyloom.sky.geometry.local_frame import sky_jacobian
from skyloom.sky.simulated.joint_layout import Field
from skyloom.sky.simulated.joint_sources import GALAXY
from skyloom.sky.survey.bands import Band

DEPTH_SNR = 5.0  # a point source of the depth's magnitude has this signal-to-noise ratio in the best filter
LEFT_OUT = (0.05, 0.02, 0.005)  # parts of the flux that may lie outside a stamp: the first at which that is at most
LEFT_OUT_NOISE = 3.0  # this many times the noise of one pixel, else the last
BORDER_NOISE = 0.05  # the stamp of a bright source grows until its border is below this part of the noise
BRIGHT = 1e4  # flux over noise of a source whose halo may reach into an image that its core is far from
MARGIN_ARCSEC = 12.0  # sources this far beside an image may still shine into it
FILTER_ARCSEC = 3.0  # half a side of the picture of the PSF
BLOCK_PX = 256  # noise is drawn in blocks of this side


def band_scene(band: Band, pixel_scale_arcsec: float, depth_mag: float) -> "BandScene":
    """The scene of a band; those of the last bands are kept, as their PSFs take long to make."""
    return _band_scene(json.dumps(band.parameter()), pixel_scale_arcsec, depth_mag)


@lru_cache(maxsize=16)
def _band_scene(facts: str, pixel_scale_arcsec: float, depth_mag: float) -> "BandScene":
    return BandScene(Band(**json.loads(facts)), pixel_scale_arcsec, depth_mag)


def near(sky: pl.DataFrame, field: Field) -> pl.DataFrame:
    """Sources that may shine into an image, with their pixels ``x_px`` and ``y_px``."""
    x, y = field.positions(sky["ra_deg"].to_numpy(), sky["dec_deg"].to_numpy())
    return sky.with_columns(x_px=pl.Series(x), y_px=pl.Series(y)).filter(
        pl.Series(field.holds(x, y, margin_px=MARGIN_ARCSEC / field.scale_arcsec))
    )


class BandScene:
    """Draws sources as one band of a survey shows them.

    Parameters
    ----------
    band
        The band; magnitudes are those seen through dust.
    pixel_scale_arcsec
        Side of a pixel.
    depth_mag
        A point source of this magnitude has a signal-to-noise ratio of 5 in the best filter, which is the PSF itself:
        ``flux * sqrt(sum(P**2)) / sigma``.

    Attributes
    ----------
    band : Band
        The band.
    psf : galsim.GSObject
        What a star of flux 1 looks like.
    sigma : float
        Noise per pixel in units of the band's zero point.
    filter : (m, m) array
        The PSF on pixels, centred on the middle one.
    """

    def __init__(self, band: Band, pixel_scale_arcsec: float, depth_mag: float) -> None:
        self.band = band
        self.psf = psf_model(band)
        self._cut = {left: self.psf.withGSParams(galsim.GSParams(folding_threshold=left)) for left in LEFT_OUT}
        side = 1 + 2 * round(FILTER_ARCSEC / pixel_scale_arcsec)
        stamp = galsim.ImageD(side, side, scale=pixel_scale_arcsec)
        self.filter: NDArray[np.float64] = np.array(self.psf.drawImage(stamp, method="no_pixel").array)
        self.sigma = float(
            10 ** (0.4 * (band.zero_point_mag - depth_mag)) * np.sqrt((self.filter**2).sum()) / DEPTH_SNR
        )

    def draw(self, sources: pl.DataFrame, field: Field) -> NDArray[np.float32]:
        """Draw sources without noise.

        Parameters
        ----------
        sources
            As from `near`.
        field
            The image.

        Returns
        -------
        array of float32, shape of the field
            Flux per pixel in units of the band's zero point.

        Notes
        -----
        Each source is drawn by GalSim (Rowe et al. 2015, Astronomy and Computing 10, 121) at its place between the
        pixels, as the sky lies on them there. The PSF is that of the image's pixels, which are not convolved again.
        What the stamp of a source leaves out is far below the noise, or below half a percent of its flux.
        """
        height, width = field.shape
        image = galsim.ImageF(width, height, xmin=0, ymin=0, scale=field.scale_arcsec)
        image.setZero()
        flux = 10 ** (0.4 * (self.band.zero_point_mag - sources[f"mag_{self.band.name}"].to_numpy()))
        x, y = (sources[name].to_numpy() for name in ("x_px", "y_px"))
        if len(sources):
            turn = np.linalg.inv(sky_jacobian(field.wcs(), x, y)) * field.scale_arcsec
        for i, row in enumerate(sources.iter_rows(named=True)):
            left = next((left for left in LEFT_OUT if left * flux[i] <= LEFT_OUT_NOISE * self.sigma), LEFT_OUT[-1])
            if row["kind"] == GALAXY:
                own = _galaxy(row, self.band.name).transform(*turn[i].ravel()).withFlux(float(flux[i]))
                profile = galsim.Convolve(own.withGSParams(folding_threshold=left), self._cut[left])
            else:  # not withFlux, which would make Roman's PSF anew
                profile = galsim.Transform(self._cut[left], flux_ratio=float(flux[i]))
            self._add(image, profile, galsim.PositionD(x[i], y[i]))
        return np.asarray(image.array)

    def _add(self, image: galsim.ImageF, profile: galsim.GSObject, centre: galsim.PositionD) -> None:
        """Draw a source on a stamp of its own and add it; the stamp of a bright one grows until its border is dark."""
        half = int(profile.getGoodImageSize(image.scale)) // 2 + 1
        x, y = round(centre.x), round(centre.y)
        largest = max(image.array.shape)
        while True:
            box = galsim.BoundsI(x - half, x + half, y - half, y + half)
            shared = box & image.bounds
            bright = profile.flux > BRIGHT * self.sigma
            if not shared.isDefined() and (not bright or half > largest):
                return
            stamp = galsim.ImageF(box, scale=image.scale)
            profile.drawImage(stamp, method="no_pixel", center=centre)
            rim = max(np.abs(edge).max() for edge in (stamp.array[0], stamp.array[-1], *stamp.array.T[[0, -1]]))
            if rim <= BORDER_NOISE * self.sigma or half > largest:
                break
            half *= 2
        if shared.isDefined():
            image[shared] += stamp[shared]


def noise(seed: int, field: Field, band: str, sigma: float) -> NDArray[np.float32]:
    """White noise that images of one tract have in common where they overlap.

    Parameters
    ----------
    seed
        Start of the stream.
    field
        The image. Each block of pixels of its tract has a stream of its own.
    band
        Name of the band.
    sigma
        Standard deviation.

    Returns
    -------
    array of float32, shape of the field
        The noise.
    """
    row0, col0 = field.origin_px
    height, width = field.shape
    whose = list((f"tract{field.tract}" if field.tract else field.name).encode())
    out = np.empty(field.shape, np.float32)
    for i in range(row0 // BLOCK_PX, (row0 + height - 1) // BLOCK_PX + 1):
        for j in range(col0 // BLOCK_PX, (col0 + width - 1) // BLOCK_PX + 1):
            key = np.random.SeedSequence(seed, spawn_key=(*whose, *band.encode(), i & 0xFFFF, j & 0xFFFF))
            block = np.random.default_rng(key).standard_normal((BLOCK_PX, BLOCK_PX), np.float32)
            top, left = i * BLOCK_PX - row0, j * BLOCK_PX - col0
            rows, cols = (slice(max(at, 0), max(at, 0) + BLOCK_PX) for at in (top, left))
            rows = slice(max(top, 0), min(top + BLOCK_PX, height))
            cols = slice(max(left, 0), min(left + BLOCK_PX, width))
            out[rows, cols] = block[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
    return out * np.float32(sigma)


def _galaxy(row: dict[str, float], band: str) -> galsim.GSObject:
    """Profile of flux 1; radii are the geometric mean of the semi-axes."""
    return galaxy(
        disk_hlr_arcsec=float(np.sqrt(row["disk_arcsec"] * row["disk_minor_arcsec"])),
        disk_q=row["disk_minor_arcsec"] / row["disk_arcsec"],
        bulge_hlr_arcsec=float(np.sqrt(row["bulge_arcsec"] * row["bulge_minor_arcsec"])),
        bulge_q=row["bulge_minor_arcsec"] / row["bulge_arcsec"],
        position_angle_deg=row["angle_deg"],
        bulge_fraction=row[f"bulge_{band}"],
        flux=1.0,
        shear_1=row["shear_1"],
        shear_2=row["shear_2"],
    )
