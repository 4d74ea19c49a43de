"""Maps of positions on the sky: a tangential map of a region, or the whole sky when the positions spread wide."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skyloom.report.figures import ALL

REGION_DEG = 40.0  # beyond this radius a tangential map distorts areas more than twofold


def sky_axes(figure: Figure, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[Axes, dict[str, Any]]:
    """Axes that hold all positions, RA increasing to the left.

    Parameters
    ----------
    figure
        Empty figure.
    ra_deg, dec_deg
        ICRS positions in degrees, shape (N,), at least one.

    Returns
    -------
    axes, keywords
        Axes and the keywords of ``axes.scatter(ra_deg, dec_deg, **keywords)`` that make it take degrees.
    """
    from astropy.visualization.wcsaxes import WCSAxes
    from astropy.wcs import WCS

    centre_ra, centre_dec, radius = cap(ra_deg, dec_deg)
    wcs = WCS(naxis=2)
    wide = radius > REGION_DEG
    projection = "MOL" if wide else "TAN"
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    wcs.wcs.crval = [180.0, 0.0] if wide else [centre_ra, centre_dec]
    wcs.wcs.cdelt = [-1.0, 1.0]
    wcs.wcs.crpix = [1.0, 1.0]
    axes = WCSAxes(figure, 111, wcs=wcs)
    figure.add_axes(axes)
    if wide:
        edge = 180 * 2 * np.sqrt(2) / np.pi
        axes.set(xlim=(-1.12 * edge, 1.02 * edge), ylim=(-0.52 * edge, 0.52 * edge), aspect="equal")
        _ellipse_frame(axes, edge)
    else:
        x, y = wcs.all_world2pix(ra_deg, dec_deg, 0)
        margin = max(0.05 * np.ptp(x), 0.05 * np.ptp(y), 0.05)
        axes.set(xlim=(x.min() - margin, x.max() + margin), ylim=(y.min() - margin, y.max() + margin), aspect="equal")
        axes.coords.grid(color=ALL, alpha=0.35, linewidth=0.5)
        _label(axes)
    return axes, {"transform": axes.get_transform("icrs")}


def cap(ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[float, float, float]:
    """Mean direction of positions and the largest distance from it, in degrees: RA, Dec, radius."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    unit = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    mean = unit.mean(axis=1)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:  # spread evenly over the sky: there is no middle
        return 180.0, 0.0, 180.0
    mean /= length
    radius = float(np.degrees(np.arccos(np.clip(mean @ unit, -1, 1).min())))
    return float(np.degrees(np.arctan2(mean[1], mean[0])) % 360), float(np.degrees(np.arcsin(mean[2]))), radius


def _label(axes: Any) -> None:
    ra, dec = axes.coords
    for coordinate, name in ((ra, "RA (ICRS)"), (dec, "Dec (ICRS)")):
        coordinate.set_axislabel(name)
        coordinate.set_format_unit("deg")
        coordinate.set_ticks(number=6)
        coordinate.set_ticklabel(exclude_overlapping=True)


def _ellipse_frame(axes: Any, edge: float) -> None:
    """Draw outline and graticule of a whole-sky map; the axes' own ticks do not follow an ellipse."""
    axes.coords[0].set_ticks_visible(False)
    axes.coords[1].set_ticks_visible(False)
    axes.coords[0].set_ticklabel_visible(False)
    axes.coords[1].set_ticklabel_visible(False)
    axes.coords[0].set_axislabel("")
    axes.coords[1].set_axislabel("")
    axes.coords.frame.set_linewidth(0)
    angle = np.linspace(0, 2 * np.pi, 361)
    axes.plot(edge * np.cos(angle), edge / 2 * np.sin(angle), color=ALL, linewidth=0.8)
    sky = axes.get_transform("icrs")
    line = {"color": ALL, "alpha": 0.35, "linewidth": 0.5, "transform": sky}
    for dec in (-60, -30, 0, 30, 60):
        axes.plot(np.linspace(0.001, 359.999, 181), np.full(181, float(dec)), **line)
        axes.text(359.9, dec, f"{dec:+d}° ", transform=sky, ha="right", va="center", fontsize=7)
    for ra in range(30, 360, 30):
        axes.plot(np.full(91, float(ra)), np.linspace(-90, 90, 91), **line)
        if ra % 60 == 0:
            axes.text(ra, 0, f"{ra}°", transform=sky, ha="center", va="bottom", fontsize=7)
