"""Window statistics of the single pass equal those of every window cut out on its own."""

import os
from pathlib import Path

import numpy as np
import pytest

from make.fits import radio_pixels, write_compressed, write_fits, write_zarr
from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.noise import robust_rms
from skyloom.sky.window import scan as window_scan
from skyloom.sky.window.sliding import WindowStats, measure_windows, stride_px, window_starts

FIELDS = ("row0", "col0", "nan_frac", "rms", "peak", "peak_snr")


def by_brute_force(pixels: np.ndarray, window_px: int, overlap: float, rms_samples: int = 1024) -> dict[str, list]:
    out: dict[str, list] = {name: [] for name in FIELDS}
    with np.errstate(over="ignore"):
        pixels = pixels.astype(np.float32)
    stride = max(1, round(window_px * (1 - overlap)))
    step = int(np.ceil(window_px / round(np.sqrt(rms_samples))))
    for row0 in range(0, pixels.shape[0] - window_px + 1, stride):
        for col0 in range(0, pixels.shape[1] - window_px + 1, stride):
            window = pixels[row0 : row0 + window_px, col0 : col0 + window_px]
            finite = window[np.isfinite(window)]
            sample = window[::step, ::step].astype(np.float64)
            sample = sample[np.isfinite(sample)]
            rms = 1.4826 * np.median(np.abs(sample - np.median(sample))) if sample.size else np.nan
            peak = finite.max() if finite.size else np.nan
            row = (row0, col0, 1 - finite.size / window.size, rms, peak, peak / rms if rms > 0 else np.nan)
            for name, value in zip(FIELDS, row, strict=True):
                out[name].append(value)
    return out


def assert_equal_to_brute_force(stats: WindowStats, expected: dict[str, list]) -> None:
    for name in ("row0", "col0", "peak"):
        np.testing.assert_array_equal(getattr(stats, name), np.asarray(expected[name]))
    np.testing.assert_array_equal(stats.nan_frac == 0, np.asarray(expected["nan_frac"]) == 0)
    for name in ("nan_frac", "rms", "peak_snr"):
        np.testing.assert_allclose(getattr(stats, name), expected[name], rtol=2e-6)
    assert [getattr(stats, name).dtype for name in FIELDS] == [np.int32] * 2 + [np.float32] * 4


def messy_pixels() -> np.ndarray:
    pixels = radio_pixels((150, 131), seed=3, blank_edge=7)
    pixels[20:70, 30:90] = np.nan  # whole windows are blank
    pixels[100, 40], pixels[101, 41], pixels[90:95, 90] = np.inf, -np.inf, np.inf
    pixels[120:, 100:] = -1.0  # constant and below zero
    pixels[77, 5] = 1e300  # infinite once it is float32
    return pixels


@pytest.fixture
def messy(tmp_path: Path) -> Image:
    write_fits(tmp_path / "a.fits", messy_pixels())
    return open_image(tmp_path / "a.fits")


GEOMETRIES = [(33, 0.3), (33, 0.9), (32, 0.5), (40, 0.0), (41, 0.37), (131, 0.5)]


@pytest.mark.parametrize(
    ("window_px", "overlap", "strip_rows"),
    [(*geometry, rows) for geometry in GEOMETRIES for rows in (1, 7, 64, 1000)] + [(1, 0.0, 7), (3, 0.9, 7)],
)
def test_equal_to_windows_cut_one_by_one(
    messy: Image, window_px: int, overlap: float, strip_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_scan, "STRIP_BYTES", strip_rows * 4 * messy.shape[1])
    monkeypatch.setattr(window_scan, "BATCH_BYTES", 50_000)
    stats = measure_windows(messy, window_px, overlap)
    assert_equal_to_brute_force(stats, by_brute_force(messy_pixels(), window_px, overlap))


@pytest.mark.parametrize("rms_samples", [1, 2, 50, 100_000])
def test_number_of_noise_samples(messy: Image, rms_samples: int) -> None:
    stats = measure_windows(messy, 37, 0.4, rms_samples=rms_samples)
    assert_equal_to_brute_force(stats, by_brute_force(messy_pixels(), 37, 0.4, rms_samples))


def test_window_as_large_as_the_image(tmp_path: Path) -> None:
    pixels = write_fits(tmp_path / "a.fits", radio_pixels((300, 300)))
    stats = measure_windows(open_image(tmp_path / "a.fits"), 300, 0.5)
    assert len(stats) == 1
    assert_equal_to_brute_force(stats, by_brute_force(pixels, 300, 0.5))


@pytest.mark.parametrize("name", ["a.fits.fz", "a.zarr", "f4.fits"])
def test_other_formats(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = messy_pixels()[:, :100]
    pixels[77, 5] = 0.0
    pixels = pixels.astype(np.float32)
    if name == "a.fits.fz":
        write_compressed(tmp_path / name, pixels, tile=(16, 30))
    elif name == "a.zarr":
        write_zarr(tmp_path / name, pixels, chunks=(20, 30))
    else:
        write_fits(tmp_path / name, pixels, dtype=">f4", axes=4)
    monkeypatch.setattr(window_scan, "STRIP_BYTES", 1)
    assert_equal_to_brute_force(measure_windows(open_image(tmp_path / name), 33, 0.3), by_brute_force(pixels, 33, 0.3))


def test_strips_taller_than_a_byte_can_count(tmp_path: Path) -> None:
    pixels = write_fits(tmp_path / "a.fits", radio_pixels((700, 64), blank_edge=1))
    pixels[:, :40] = np.nan
    np.save(tmp_path / "b.npy", pixels[:600].repeat(12, axis=1))
    stats = measure_windows(open_image(tmp_path / "b.npy"), 600, 0.0)
    np.testing.assert_allclose(stats.nan_frac, np.isnan(np.load(tmp_path / "b.npy")[:, :600]).mean(), rtol=1e-6)


def test_same_bits_for_any_number_of_threads(messy: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_scan, "STRIP_BYTES", 11 * 4 * messy.shape[1])
    results = [measure_windows(messy, 33, 0.7, threads=threads) for threads in (1, 2, 5)]
    for name in FIELDS:
        assert len({getattr(result, name).tobytes() for result in results}) == 1, name


def test_blank_and_constant_windows(tmp_path: Path) -> None:
    pixels = np.full((10, 40), np.nan)
    pixels[:, 10:20] = 2.0
    pixels[:, 20:30] = 0.0
    pixels[5, 25] = 7.0  # a source on a noiseless sky
    pixels[::2, 30:] = np.inf
    pixels[1::2, 30:] = 1.0
    np.save(tmp_path / "a.npy", pixels)
    stats = measure_windows(open_image(tmp_path / "a.npy"), 10, 0.0)
    np.testing.assert_array_equal(stats.nan_frac, np.float32([1, 0, 0, 0.5]))
    np.testing.assert_array_equal(stats.peak, [np.nan, 2, 7, 1])
    np.testing.assert_array_equal(stats.rms, [np.nan, 0, 0, 0])
    assert np.isnan(stats.peak_snr).all()


def test_rms_recovers_the_noise_under_a_bright_source(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(5.0, 2.0, (256, 256))
    pixels[100:130, 100:130] += 1000.0
    np.save(tmp_path / "a.npy", pixels)
    stats = measure_windows(open_image(tmp_path / "a.npy"), 256, 0.5)
    assert stats.rms[0] == pytest.approx(2.0, rel=0.1)
    assert stats.peak_snr[0] > 400


@pytest.mark.parametrize("size", [1, 2, 3, 4, 101, 102])
def test_robust_rms_is_the_median_absolute_deviation(size: int) -> None:
    samples = np.random.default_rng(size).normal(size=(50, size)).astype(np.float32)
    samples[::3] = np.round(samples[::3])  # ties
    expected = 1.4826 * np.median(np.abs(samples - np.median(samples, axis=1, keepdims=True)), axis=1)
    np.testing.assert_allclose(robust_rms(samples), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("window_px", "overlap", "expected"), [(256, 0.5, 128), (128, 0.0, 128), (33, 0.3, 23), (10, 0.99, 1), (1, 0.0, 1)]
)
def test_stride(window_px: int, overlap: float, expected: int) -> None:
    assert stride_px(window_px, overlap) == expected


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5, float("nan")])
def test_overlap_outside_its_range_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match="overlap="):
        stride_px(256, overlap)


def test_window_starts_leave_the_remainder_uncovered() -> None:
    np.testing.assert_array_equal(window_starts(100, 30, 20), [0, 20, 40, 60])
    assert len(window_starts(9264, 256, 128)) == 71  # the number known for LoTSS P124+62
    assert len(window_starts(29, 30, 20)) == 0


@pytest.mark.parametrize("options", [{"threads": 0}, {"rms_samples": 0}])
def test_options_outside_their_range_are_refused(messy: Image, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1 of each"):
        measure_windows(messy, 32, 0.5, **options)


def test_image_smaller_than_a_window_is_refused(messy: Image) -> None:
    with pytest.raises(InputError, match=r"a\.fits: .*132 x 132 px.*found 150 x 131 px; choose window_px <= 131"):
        measure_windows(messy, 132, 0.5)


def test_a_read_error_in_a_thread_reaches_the_caller(messy: Image) -> None:
    messy.close()
    with pytest.raises(InputError, match="was closed"):
        measure_windows(messy, 32, 0.5)


@pytest.mark.parametrize(
    ("name", "window_px", "windows"), [("first_fields_7x7", 128, 961), ("aegean_1904-66_sin", 33, 100)]
)
def test_real_images(name: str, window_px: int, windows: int) -> None:
    if "SKYLOOM_REAL_DATA" not in os.environ:
        pytest.skip("SKYLOOM_REAL_DATA is not set")
    image = open_image(Path(os.environ["SKYLOOM_REAL_DATA"]) / "radio" / f"{name}.fits")
    stats = measure_windows(image, window_px, 0.5)
    assert len(stats) == windows
    assert_equal_to_brute_force(stats, by_brute_force(image.strip(0, image.shape[0]), window_px, 0.5))
