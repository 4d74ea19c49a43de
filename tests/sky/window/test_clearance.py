"""Distance to edges and blanked parts."""

import numpy as np

from make.fits import write_fits
from skyloom.sky.files.image import open_image
from skyloom.sky.window.clearance import BLOCK_PX, clearance


def measured(tmp_path, pixels, *positions):
    write_fits(tmp_path / "a.fits", pixels)
    row, col = np.array(positions, dtype=float).T
    return clearance(open_image(tmp_path / "a.fits"), row, col)


def test_without_blanks_the_edges_count(tmp_path):
    margin, blank = measured(
        tmp_path, np.zeros((600, 333)), (0, 0), (300, 100), (599.4, 10), (300, 330), (599.4, 332.4)
    )
    np.testing.assert_allclose(margin, [0.5, 100.5, 0.1, 2.5, 0.1], atol=1e-4)
    assert not blank.any()


def test_blank_parts_count_to_a_block(tmp_path):
    pixels = np.zeros((800, 700))
    pixels[:, :100] = np.nan
    pixels[500, 500] = np.inf
    positions = [(400, 160), (400, 50), (500, 500), (500, 501), (500, 440)]
    margin, blank = measured(tmp_path, pixels, *positions)
    np.testing.assert_array_equal(blank, [False, True, True, False, False])
    np.testing.assert_allclose(margin, [61, 0, 0, 0, 60], atol=BLOCK_PX)


def test_strips_change_nothing(tmp_path, monkeypatch):
    pixels = np.zeros((300, 200))
    rng = np.random.default_rng(0)
    pixels[rng.integers(0, 300, 12), rng.integers(0, 200, 12)] = np.nan
    positions = list(zip(rng.uniform(-0.5, 299.4, 50), rng.uniform(-0.5, 199.4, 50), strict=True))
    whole = measured(tmp_path, pixels, *positions)
    monkeypatch.setattr("skyloom.sky.window.clearance.STRIP_ROWS", BLOCK_PX)
    (tmp_path / "a.fits").unlink()
    for one, other in zip(whole, measured(tmp_path, pixels, *positions), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_position(tmp_path):
    write_fits(tmp_path / "a.fits", np.zeros((30, 30)))
    margin, blank = clearance(open_image(tmp_path / "a.fits"), np.zeros(0), np.zeros(0))
    assert len(margin) == len(blank) == 0
    assert margin.dtype == np.float32
