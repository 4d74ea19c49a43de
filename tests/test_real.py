"""The chain's first links on real images: SKYLOOM_REAL_DATA names their folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import skyloom

REAL = os.environ.get("SKYLOOM_REAL_DATA")
pytestmark = [
    pytest.mark.skipif(not REAL, reason="SKYLOOM_REAL_DATA is not set; it names the folder of real images"),
    # One real file has such a card; this is astropy reading it in the tests, skyloom keeps quiet about it.
    pytest.mark.filterwarnings("ignore:Invalid 'BLANK' keyword"),
]


def count_by_hand(path: Path, window: int, stride: int) -> tuple[int, int]:
    """All windows and those without a blank pixel, by the plainest loop there is."""
    with fits.open(path, memmap=False) as hdus:
        data = np.squeeze(hdus[0].data)
    whole = clean = 0
    for row in range(0, data.shape[0] - window + 1, stride):
        for col in range(0, data.shape[1] - window + 1, stride):
            whole += 1
            clean += bool(np.isfinite(data[row : row + window, col : col + window]).all())
    return whole, clean


@pytest.mark.parametrize(("window", "overlap", "stride"), [(128, 0.5, 64), (64, 0.25, 48)])
def test_every_image_gives_the_windows_that_the_arithmetic_says(tmp_path, window, overlap, stride):
    folder = Path(REAL) / "radio"
    expected = {path.stem: count_by_hand(path, window, stride) for path in sorted(folder.glob("*.fits"))}
    assert len(expected) == 6
    artifact = skyloom.curate("cutouts", images=folder, window_px=window, overlap=overlap, store=tmp_path)
    found = dict(artifact.table()["image"].value_counts().iter_rows())
    assert {name: found.get(name, 0) for name in expected} == {name: clean for name, (_, clean) in expected.items()}
    assert artifact.counts["read"] == sum(whole for whole, _ in expected.values())
    if window == 128:
        assert found["first_fields_7x7"] == 31 * 31
        assert found["sdc1_560mhz_1000h_crop"] == 13 * 15, "the 4-D image"
        assert expected["aegean_1904-66_sin"] == (4, 0), "the NaN-edged image"
    else:
        assert 0 < found["aegean_1904-66_sin"] < expected["aegean_1904-66_sin"][0]
    everything = skyloom.curate(
        "cutouts", images=folder, window_px=window, overlap=overlap, max_nan_frac=1.0, store=tmp_path
    )
    assert everything.counts["kept"] == everything.counts["read"] == artifact.counts["read"]
    assert artifact.notes["images_without_wcs"]["names"] == ["no_wcs_galaxy0002"]


def test_pixels_of_a_cutout_are_those_of_the_file(tmp_path):
    from skyloom.datamodule.cutout_index import CutoutIndex

    folder = Path(REAL) / "radio"
    artifact = skyloom.curate("cutouts", images=folder, window_px=128, store=tmp_path)
    index = CutoutIndex(artifact)
    rng = np.random.default_rng(0)
    for row in rng.choice(len(index), 20, replace=False):
        entry = index.table.row(int(row), named=True)
        data = np.squeeze(fits.getdata(folder / f"{entry['image']}.fits", memmap=False))
        window = data[entry["row0"] : entry["row0"] + 128, entry["col0"] : entry["col0"] + 128]
        assert np.array_equal(index.read([row])[0], window.astype("f4"))
        assert entry["peak"] == pytest.approx(float(window.max()))
