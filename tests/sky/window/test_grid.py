"""The grid of windows on a tile: as the predecessor placed them, inside the border, without overlap."""

from pathlib import Path

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.sky.window.grid import grid_starts, tile_windows, window_of


def test_the_grid_of_a_real_tile_is_the_documented_one():
    starts = grid_starts(8825, 512, 500)
    assert len(starts) == 15
    assert starts.tolist() == [500 + 522 * k for k in range(15)]  # centres 500 + 256 + 522 k


@pytest.mark.parametrize(
    ("length", "window", "border"), [(200, 64, 4), (100, 30, 0), (77, 9, 3), (64, 64, 0), (150, 64, 4)]
)
def test_windows_keep_out_of_the_border_and_of_each_other(length, window, border):
    starts = grid_starts(length, window, border)
    assert len(starts) == (length - 2 * border) // window
    assert starts[0] == border
    assert starts[-1] + window <= length - border
    assert np.all(np.diff(starts) >= window)


def test_every_pixel_belongs_to_the_window_that_covers_it():
    starts = grid_starts(100, 30, 2)
    covered = np.full(100, -1)
    for number, start in enumerate(starts):
        covered[start : start + 30] = number
    pixels = np.arange(100.0)
    assert np.array_equal(window_of(starts, 30, pixels), covered)
    assert np.array_equal(window_of(starts, 30, pixels - 0.5), covered)  # the left edge of a pixel belongs to it
    assert np.array_equal(window_of(starts, 30, pixels + 0.499), covered)


def test_a_tile_too_small_for_one_window_is_refused_with_the_size_it_needs():
    with pytest.raises(InputError, match=r"a\.fits: expected a tile of at least 72 x 72 px .* found 70 x 200 px"):
        tile_windows(Path("a.fits"), (70, 200), 64, 4)
