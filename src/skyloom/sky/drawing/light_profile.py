"""Light profiles of galaxies and stars before any point-spread function, as GalSim objects in the sky's frame."""

import galsim


def galaxy(
    *,
    disk_hlr_arcsec: float,
    disk_q: float,
    bulge_hlr_arcsec: float,
    bulge_q: float,
    position_angle_deg: float,
    bulge_fraction: float,
    flux: float,
    shear_1: float = 0.0,
    shear_2: float = 0.0,
) -> galsim.GSObject:
    """Bulge and disk with one position angle, then lensed.

    Parameters
    ----------
    disk_hlr_arcsec, bulge_hlr_arcsec
        Half-light radii of the exponential disk and the de Vaucouleurs bulge: the geometric mean of the half-light
        ellipse's semi-axes, so the area within does not depend on the axis ratio. Not read for a part without flux.
    disk_q, bulge_q
        Ratio of the minor to the major axis, in (0, 1].
    position_angle_deg
        Of the major axis, from north (+y) towards west (+x in an image with east to the left): the sense in which
        ``position_angle_true_dc2`` of the DC2 truth tables is drawn there.
    bulge_fraction
        Part of the flux in the bulge, in [0, 1].
    flux
        Flux of both together in the unit of the image.
    shear_1, shear_2
        Reduced gravitational shear (g1, g2), same frame.

    Returns
    -------
    galsim.GSObject
        Sizes in arcsec; x to the west, y to the north (GalSim's sky frame).

    Notes
    -----
    ``q`` is the axis ratio itself: it enters as the reduced shear ``(1 - q) / (1 + q)``, not as the distortion
    ``(1 - q²) / (1 + q²)`` (Bernstein & Jarvis 2002, AJ 123, 583, tell them apart).
    """
    beta = (90.0 - position_angle_deg) * galsim.degrees
    parts = []
    if bulge_fraction < 1:
        disk = galsim.Exponential(half_light_radius=disk_hlr_arcsec, flux=(1 - bulge_fraction) * flux)
        parts.append(disk.shear(q=disk_q, beta=beta))
    if bulge_fraction > 0:
        bulge = galsim.DeVaucouleurs(half_light_radius=bulge_hlr_arcsec, flux=bulge_fraction * flux)
        parts.append(bulge.shear(q=bulge_q, beta=beta))
    both = parts[0] if len(parts) == 1 else galsim.Add(parts)
    return both.shear(g1=shear_1, g2=shear_2) if shear_1 or shear_2 else both


def star(flux: float) -> galsim.GSObject:
    """A point of light: what the PSF makes a star."""
    return galsim.DeltaFunction(flux=flux)
