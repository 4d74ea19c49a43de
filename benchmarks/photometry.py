"""Positions and PSF fluxes of a catalogue of simulated images against the truth, for isolated stars and galaxies.

    python benchmarks/photometry.py --store demo/store --truth IMAGES CATALOG [CATALOG ...]

IMAGES is the id of step=simulate, CATALOG that of a catalogue of its cutouts. Give one catalogue with
photometry.refine=true and one with false. A source is isolated if all others within 2 arcsec have less than a hundredth
of its light in i. Detections that touch the edge of their cutout are left out.
"""

import argparse

import numpy as np
import polars as pl
from scipy.spatial import cKDTree

import skyloom
from skyloom.sky.geometry.sphere import unit_vectors

NEAR_ARCSEC, MATCH_ARCSEC, LEAST_LIGHT = 2.0, 0.3, 0.01
FAINT, BRIGHT = (3.0, 100.0), (100.0, np.inf)  # ranges of the signal to noise
RAD_ARCSEC = 206264.806


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogs", nargs="+", metavar="CATALOG")
    parser.add_argument("--truth", required=True, metavar="IMAGES")
    parser.add_argument("--store", default=None)
    words = parser.parse_args()
    store = skyloom.Store(words.store)
    truth = store.open(words.truth).table("sources.parquet")
    place = unit_vectors(truth["ra_deg"].to_numpy(), truth["dec_deg"].to_numpy())
    light = 10 ** (-0.4 * truth["mag_i"].to_numpy())
    near = cKDTree(place).query_ball_point(place, NEAR_ARCSEC / RAD_ARCSEC)
    alone = np.array([light[others].sum() < (1 + LEAST_LIGHT) * light[n] for n, others in enumerate(near)])
    star = truth["kind"].to_numpy() != 0
    for ref in words.catalogs:
        table = store.open(ref).table().filter(pl.col("flags") & 1 == 0)
        found, fitted = (
            unit_vectors(table[f"ra{infix}_deg"].to_numpy(), table[f"dec{infix}_deg"].to_numpy())
            for infix in ("", "_psf")
        )
        apart, row = cKDTree(found).query(place, distance_upper_bound=MATCH_ARCSEC / RAD_ARCSEC)
        for name, chosen in (("stars", alone & star), ("galaxies", alone & ~star)):
            which = np.flatnonzero(chosen & np.isfinite(apart))
            off = np.linalg.norm(fitted[row[which]] - place[which], axis=1) * RAD_ARCSEC * 1e3
            was = apart[which] * RAD_ARCSEC * 1e3
            print(f"{ref}: {len(which)} isolated {name}, median error of the position as found "
                  f"{np.median(was):.1f} mas, of the fit {np.median(off):.1f} mas")  # fmt: skip
            if name == "stars":
                _fluxes(table[row[which]], truth[which])


def _fluxes(found: pl.DataFrame, truth: pl.DataFrame) -> None:
    """Print flux over true flux and scatter in units of the error, band by band."""
    for band in [name.removeprefix("mag_psf_") for name in found.columns if name.startswith("mag_psf_")]:
        flux, error = (found[f"flux_psf{infix}_{band}_njy"].to_numpy() for infix in ("", "_err"))
        true = 10 ** (0.4 * (31.4 - truth[f"mag_{band}"].to_numpy()))
        for name, (low, high) in (("faint", FAINT), ("bright", BRIGHT)):
            used = np.isfinite(flux) & (true / error > low) & (true / error <= high)
            if used.sum() > 3:
                low_pull, high_pull = np.percentile((flux - true)[used] / error[used], [16, 84])
                print(f"  {band:5} {name:6} {used.sum():4}: flux / truth {np.median((flux / true)[used]):.4f}, "
                      f"scatter of (flux - truth) / error {(high_pull - low_pull) / 2:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
