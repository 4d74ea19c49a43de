"""Pictures keep their mean when they shrink, and lie on the map where their points do."""

import numpy as np

from skyloom.report.tiles import grid_cells, mosaic, resize


def test_shrinking_averages_and_growing_repeats():
    picture = np.arange(16.0).reshape(1, 4, 4)
    np.testing.assert_array_equal(resize(picture, 2)[0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(resize(picture[:, :2, :2], 4)[0, 0], [0, 0, 1, 1])
    picture[0, 0, :2] = np.nan
    assert resize(picture, 2)[0, 0, 0] == 4.5


def test_each_cell_shows_the_point_nearest_to_its_centre_at_its_place():
    xy = np.array([[0.0, 0], [0.24, 0.26], [1, 1], [0.76, 0.74]])
    point, row, column = grid_cells(xy, 2)
    assert (point.tolist(), row.tolist(), column.tolist()) == ([1, 3], [0, 1], [0, 1])
    picture = mosaic(np.stack([np.full((3, 3), 0.25), np.full((3, 3), 0.75)]), row, column, 2)
    assert (picture[3:, :3] == 0.25).all()  # the lowest row is at the bottom
    assert (picture[:3, 3:] == 0.75).all()
    assert np.isnan(picture[:3, :3]).all()


def test_tiles_are_drawn_upright():
    tile = np.array([[0.0, 0.0], [1.0, 1.0]])  # FITS: row 0 is the lowest
    picture = mosaic(tile[None], np.array([0]), np.array([0]), 1)
    np.testing.assert_array_equal(picture, tile[::-1])
