"""Brings a real ground-based image and a real space-based one onto one grid, as datamodule=roman_lsst does.

    python examples/combine_real.py FOLDER [PICTURE]

FOLDER holds Cut_HSC.fits (Subaru HSC, five bands at 0.168") and Cut_HST.fits (HST F814W, 0.03") of the same sky, from
the data of scarlet (github.com/pmelchior/scarlet). They are the nearest real stand-in for Rubin and Roman.
"""

import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from astropy.io import fits
from astropy.visualization import AsinhStretch, ManualInterval
from astropy.wcs import WCS, FITSFixedWarning

from skyloom.sky.geometry.pixel_map import PixelMap
from skyloom.sky.geometry.resample import coverage, resample

BAND = 2  # HSC i, the nearest to F814W


def read(path: Path) -> tuple[np.ndarray, WCS]:
    """Pixels (C, H, W) and WCS of a file."""
    with fits.open(path) as hdus, warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # wcslib brings cards into today's form and says so
        pixels = np.atleast_3d(np.asarray(hdus[0].data, np.float32).T).T
        return pixels, WCS(hdus[0].header).celestial


def shown(image: np.ndarray) -> np.ndarray:
    """Stretch to 0-1 from 2 sigma below the sky to the brightest pixel."""
    sky = np.nanmedian(image)
    sigma = 1.4826 * np.nanmedian(np.abs(image - sky))
    stretch = AsinhStretch(0.02) + ManualInterval(float(sky - 2 * sigma), float(np.nanmax(image)))
    return np.asarray(stretch(np.nan_to_num(image, nan=sky), clip=True))


def main(folder: Path, picture: Path) -> None:
    """Draw HSC as it is, HSC on the grid of HST, HST, and both in colour."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    (ground, ground_wcs), (space, space_wcs) = read(folder / "Cut_HSC.fits"), read(folder / "Cut_HST.fits")
    to_ground = PixelMap.between(space_wcs, ground_wcs, (space.shape[1], space.shape[2]))
    both = np.concatenate([resample(ground, to_ground), space])
    share = coverage(to_ground, (ground.shape[1], ground.shape[2]))
    print(f"{both.shape[0]} channels of {both.shape[1]}x{both.shape[2]} px; HSC covers {share:.1%} of the grid of HST")
    wide, sharp = shown(both[BAND]), shown(both[-1])
    panels = [
        ('HSC i, 0.168" per px, as it is', shown(ground[BAND])),
        ("HSC i on the grid of HST", wide),
        ('HST F814W, 0.03" per px', sharp),
        ("red: HSC i, green and blue: HST", np.stack([wide, sharp, sharp], axis=-1)),
    ]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.imshow(image, origin="lower", cmap="gray", interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
    figure.savefig(picture, dpi=66)
    print(f"wrote {picture}, {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "combine_real.png"))
