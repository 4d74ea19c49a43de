"""Stars of the simulated survey lie on each other when Rubin's pixels are brought onto Roman's grid by both WCS."""

import numpy as np
import pytest

import skyloom
from make.simulated import FEW, joint_facts, simulated
from skyloom.datamodule.band_index import BandIndex, truth_of
from skyloom.sky.centroid import lone
from skyloom.sky.geometry.pixel_map import PixelMap
from skyloom.sky.geometry.resample import resample

APART_PX = 45  # 2.6": beyond the wings of Rubin's PSF
DEEP = 31.0  # mag; noise is not what this is about


def centre(image, x, y, sigma_px):
    """Centre of light with a Gaussian weight that follows it (Bertin & Arnouts 1996, windowed positions)."""
    reach = int(3 * sigma_px)
    rows, cols = np.mgrid[round(y) - reach : round(y) + reach + 1, round(x) - reach : round(x) + reach + 1]
    if rows.min() < 0 or cols.min() < 0 or rows.max() >= image.shape[0] or cols.max() >= image.shape[1]:
        return None
    light = image[rows, cols].astype(np.float64)
    for _ in range(40):
        weight = light * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * sigma_px**2))
        x, y = x + 2 * (weight * (cols - x)).sum() / weight.sum(), y + 2 * (weight * (rows - y)).sum() / weight.sum()
    return np.array([x, y])


@pytest.fixture(scope="module")
def cutouts(tmp_path_factory):
    store = tmp_path_factory.mktemp("stars")
    facts = joint_facts(FEW)
    depth = dict.fromkeys(("Y106", "J129", "H158", *"ugrizy"), DEEP)
    images = simulated(
        store, survey=facts, tile_px=660, patch_px=110, overlap_px=8, crowding=0.3, stars_per_arcmin2=150.0, seed=3,
        faintest_mag=24.0, depth_mag=depth, blemishes=False, supernovae=0,
    )  # fmt: skip
    common = {"images": images, "store": store}
    bands = {f"survey.{name}.bands": facts[name]["bands"] for name in ("roman", "lsst")}
    roman = skyloom.curate("cutouts", survey="roman", window_px=210, border_px=10,
                           **{"survey.bands": bands["survey.roman.bands"]}, **common)  # fmt: skip
    lsst = skyloom.curate(
        "cutouts", survey="lsst", match=roman, **{"survey.bands": bands["survey.lsst.bands"]}, **common
    )
    return BandIndex(roman), BandIndex(lsst)


def test_stars_agree_to_a_fifth_of_a_roman_pixel(cutouts):
    roman, lsst = cutouts
    offsets = []
    for row, cutout_id in enumerate(roman.cutout_id):
        other = int(lsst.rows_of(np.array([cutout_id]))[0])
        shape = roman.shape(row)
        to_lsst = PixelMap.between(roman.wcs(row), lsst.wcs(other), shape)
        seen = roman.read(row, ["H158"])[0]
        brought = np.nan_to_num(resample(lsst.read(other, ["i"]), to_lsst)[0])
        truth = truth_of(roman.artifact, roman.table["tile"][row]).filter(cutout_id=int(cutout_id))
        x, y, mag = (truth[name].to_numpy() for name in ("x_px", "y_px", "mag_H158"))
        stars = lone(x, y, mag, apart_px=APART_PX, fainter_mag=6.0) & (truth["category_id"].to_numpy() == 1)
        for one_x, one_y in zip(x[stars], y[stars], strict=True):
            places = centre(seen, one_x, one_y, 3.0), centre(brought, one_x, one_y, 6.0)
            if all(place is not None for place in places):
                offsets.append(np.hypot(*(places[0] - places[1])))
    print(f"{len(offsets)} lone stars: median {np.median(offsets):.3f}, largest {max(offsets):.3f} Roman px apart")
    assert len(offsets) >= 5
    assert max(offsets) < 0.2
