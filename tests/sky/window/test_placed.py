"""Windows anywhere: placed to half a pixel, shifted at borders, and measured exactly as sliding ones are."""

import numpy as np
import pytest

from make.fits import radio_pixels, write_compressed, write_fits
from skyloom.sky.files.image import open_image
from skyloom.sky.window import placed as placed_windows
from skyloom.sky.window.placed import centred_start, measure_windows_at
from skyloom.sky.window.sliding import measure_windows, window_starts

FIELDS = ("row0", "col0", "nan_frac", "rms", "peak", "peak_snr", "size_px")


def messy_pixels():
    pixels = radio_pixels((150, 131), seed=3, blank_edge=7)
    pixels[20:70, 30:90] = np.nan
    pixels[100, 40], pixels[101, 41], pixels[90:95, 90] = np.inf, -np.inf, np.inf
    pixels[120:, 100:] = -1.0
    return pixels


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz"])
@pytest.mark.parametrize(("window_px", "overlap", "ahead"), [(33, 0.3, 256), (32, 0.5, 1), (41, 0.9, 20), (131, 0, 0)])
def test_the_same_bits_as_sliding_windows(tmp_path, name, window_px, overlap, ahead, monkeypatch):
    monkeypatch.setattr(placed_windows, "AHEAD_ROWS", ahead)
    if name == "a.fits":
        write_fits(tmp_path / name, messy_pixels())
    else:
        write_compressed(tmp_path / name, messy_pixels().astype(np.float32), tile=(16, 30))
    image = open_image(tmp_path / name)
    sliding = measure_windows(image, window_px, overlap, cover_edge=True)
    shuffled = np.random.default_rng(0).permutation(len(sliding))
    placed = measure_windows_at(
        image, sliding.row0[shuffled], sliding.col0[shuffled], sliding.size_px[shuffled], rms_samples=1024
    )
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(placed, field), getattr(sliding, field)[shuffled], err_msg=field)
        assert getattr(placed, field).dtype == getattr(sliding, field).dtype


def test_mixed_sizes_each_as_alone(tmp_path):
    pixels = write_fits(tmp_path / "a.fits", messy_pixels())
    rng = np.random.default_rng(1)
    size = rng.integers(1, 131, 60)
    row0, col0 = (rng.integers(0, length - size + 1) for length in pixels.shape)
    image = open_image(tmp_path / "a.fits")
    stats = measure_windows_at(image, row0, col0, size)
    for i in range(60):
        window = pixels[row0[i] : row0[i] + size[i], col0[i] : col0[i] + size[i]]
        finite = window[np.isfinite(window)]
        assert stats.nan_frac[i] == np.float32(1 - finite.size / window.size)
        if finite.size:
            assert stats.peak[i] == np.float32(finite.max())
        else:
            assert np.isnan(stats.peak[i])


def test_rows_far_apart_are_not_all_held(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((3000, 40), np.float32))
    held = []
    real = placed_windows._Rows.get

    def get(self, row0, height):
        out = real(self, row0, height)
        held.append(len(self._rows))
        return out

    monkeypatch.setattr(placed_windows._Rows, "get", get)
    rows = np.array([0, 10, 500, 2960, 40, 2000])
    measure_windows_at(open_image(tmp_path / "a.npy"), rows, rows * 0, np.full(6, 40))
    assert max(held) <= 2 * 40 + placed_windows.AHEAD_ROWS


def test_no_window_at_all(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 40)))
    none = np.zeros(0, np.int64)
    assert len(measure_windows_at(open_image(tmp_path / "a.npy"), none, none, none)) == 0


@pytest.mark.parametrize(
    ("centre", "size", "expected"),
    [
        (50.0, 11, 45),
        (50.0, 10, 45),
        (50.0 + 1e-9, 10, 45),
        (50.1, 10, 46),
        (49.5, 10, 45),
        (2.0, 11, 0),
        (99.0, 11, 89),
        (3, 100, 0),
    ],
)
def test_windows_are_centred_and_shifted_at_the_ends(centre, size, expected):
    assert centred_start(np.array([centre]), size, 100)[0] == expected


@pytest.mark.parametrize("length", range(32, 70))
def test_cover_edge_reaches_every_pixel(length):
    starts = window_starts(length, 32, 16, cover_edge=True)
    assert starts[-1] + 32 == length
    assert (np.diff(starts) <= 16).all()
    assert (np.diff(starts) > 0).all()
    plain = window_starts(length, 32, 16)
    np.testing.assert_array_equal(starts[: len(plain)], plain)
    assert len(window_starts(31, 32, 16, cover_edge=True)) == 0
