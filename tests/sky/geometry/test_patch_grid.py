"""Patches of a tract: which are of one grid, and rectangles filled by whole pixels without gap or overlap."""

import numpy as np
import pytest
from astropy.wcs import WCS

from skyloom.sky.geometry.patch_grid import PatchGrid, fill, patch_grids
from skyloom.sky.geometry.wcs_cards import cards_of


def tract(ra_deg, row0, col0, scale_arcsec=0.2):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [ra_deg, -40.0], [100.0 - col0, 100.0 - row0]
    wcs.wcs.cdelt = [-scale_arcsec / 3600, scale_arcsec / 3600]
    return cards_of(wcs)


def grid(*rectangles):
    names = tuple(f"p{i}" for i in range(len(rectangles)))
    return PatchGrid(WCS(naxis=2), names, np.array(rectangles, np.int64))


def painted(found, shape):
    """How often each pixel of the box is filled."""
    counts = np.zeros(shape, int)
    for _, _, _, height, width, to_row, to_col in found.pieces:
        counts[to_row : to_row + height, to_col : to_col + width] += 1
    return counts


def test_patches_of_a_tract_share_a_grid_and_others_do_not():
    cards = [tract(50, 0, 0), tract(51, 0, 0), tract(50, 80, -20), tract(50, 0.5, 0), tract(50, 0, 0, 0.201)]
    grids = patch_grids(list("abcde"), cards, [(100, 120)] * 5)
    assert [g.names for g in grids] == [("a", "c"), ("b",), ("d",), ("e",)]
    assert grids[0].rectangles.tolist() == [[0, 0, 100, 120], [80, -20, 100, 120]]
    x, y = grids[0].wcs.world_to_pixel_values(50.001, -40.001)
    other = WCS(naxis=2)
    other.wcs.ctype, other.wcs.crval = ["RA---TAN", "DEC--TAN"], [50, -40.0]
    other.wcs.crpix, other.wcs.cdelt = [120, 20], [-0.2 / 3600, 0.2 / 3600]
    assert np.allclose(other.world_to_pixel_values(50.001, -40.001), [x + 20, y - 80])


def test_of_patches_that_hold_a_box_the_one_is_taken_in_which_it_lies_deepest():
    found = fill(grid([0, 0, 100, 100], [0, 40, 100, 100], [10, 30, 100, 100]), np.array([40, 60, 20, 20]))
    assert found.pieces.tolist() == [[2, 30, 30, 20, 20, 0, 0]]
    assert (found.covered, found.margin_px) == (1.0, 30.0)
    assert fill(grid([0, 0, 20, 20]), np.array([0, 0, 20, 20])).margin_px == 0.0


def test_a_box_that_no_patch_holds_is_joined_from_several():
    found = fill(grid([0, 0, 50, 50], [0, 45, 50, 50], [45, 0, 50, 50], [45, 45, 50, 50]), np.array([35, 35, 25, 25]))
    assert found.covered == 1.0
    assert found.margin_px < 0
    assert (painted(found, (25, 25)) == 1).all()
    assert set(found.pieces[:, 0]) == {0, 1, 2, 3}


def test_what_no_patch_fills_is_left_and_told():
    found = fill(grid([0, 0, 50, 50]), np.array([40, -10, 20, 20]))
    assert found.covered == pytest.approx(0.25)
    assert found.pieces.tolist() == [[0, 40, 0, 10, 10, 0, 10]]
    nothing = fill(grid([0, 0, 50, 50]), np.array([50, 0, 20, 20]))  # touches only
    assert (nothing.pieces.shape, nothing.covered) == ((0, 7), 0.0)


def test_whole_before_joined_before_partly():
    four = grid([0, 0, 50, 50], [0, 45, 50, 50])
    whole, joined, partly = (fill(four, np.array(box)) for box in ([0, 0, 9, 9], [5, 42, 9, 9], [45, 10, 9, 9]))
    assert whole.rank > joined.rank > partly.rank


@pytest.mark.parametrize("seed", range(5))
def test_any_pieces_fill_what_patches_hold_exactly_once(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        rectangles = np.column_stack([rng.integers(-30, 30, (4, 2)), rng.integers(1, 40, (4, 2))])
        box = np.array([*rng.integers(-20, 20, 2), *rng.integers(1, 40, 2)])
        found = fill(grid(*rectangles), box)
        rows, cols = np.mgrid[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        held = np.zeros(rows.shape, bool)
        for row0, col0, height, width in rectangles:
            held |= (rows >= row0) & (rows < row0 + height) & (cols >= col0) & (cols < col0 + width)
        assert np.array_equal(painted(found, rows.shape), held.astype(int))
        assert found.covered == pytest.approx(held.mean())
        for patch, row0, col0, height, width, to_row, to_col in found.pieces:
            assert row0 >= 0
            assert col0 >= 0
            assert row0 + height <= rectangles[patch, 2]
            assert col0 + width <= rectangles[patch, 3]
            # the same pixel of the grid on both sides
            assert row0 + rectangles[patch, 0] == to_row + box[0]
            assert col0 + rectangles[patch, 1] == to_col + box[1]
