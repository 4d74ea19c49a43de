import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from skyloom.report.figures import draw, ranked, stretch
from skyloom.report.sky_map import cap, sky_axes


def picture() -> bytes:
    return draw(lambda figure: figure.subplots().plot([1, 2], [3, 4], label="a"), width_in=2, height_in=2, dpi=50)


def test_the_bytes_do_not_depend_on_the_machines_settings():
    plain = picture()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert picture() == plain
    assert b"Software" not in plain
    assert b"matplotlib" not in plain


def test_drawing_leaves_the_settings_alone():
    before = dict(matplotlib.rcParams)
    picture()
    assert dict(matplotlib.rcParams) == before


def test_the_stretch_shows_equal_signal_to_noise_alike_in_any_unit():
    image = np.random.default_rng(0).normal(0, 1, (1, 9, 9)).astype(np.float32)
    image[0, 4, 4] = 50
    np.testing.assert_allclose(stretch(image, np.ones(1)), stretch(image * 1e-5, np.full(1, 1e-5)), rtol=1e-4)


def test_the_stretch_keeps_order_range_and_blank_pixels():
    image = np.array([[[-500.0, 0.0, 1.0], [30.0, 500.0, np.nan], [0.0, 0.0, 0.0]]], dtype=np.float32)
    shown = stretch(image, np.ones(1))[0]
    assert shown[0, 0] == 0 < shown[0, 1] < shown[0, 2] < shown[1, 0] < shown[1, 1] == 1
    assert np.isnan(shown[1, 2])


@pytest.mark.parametrize("rms", [0.0, np.nan])
def test_the_stretch_copes_with_images_without_noise(rms):
    images = np.stack([np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(3)]).astype(np.float32)
    shown = stretch(images, np.full(3, rms))
    assert np.isfinite(shown[[0, 2]]).all()
    assert np.isnan(shown[1]).all()


def test_ranked_counts_fall_and_leave_out_empty_clusters():
    axes = Figure().subplots()
    ranked(axes, np.array([3, 0, 7, 0, 5]), color="k", label="x")
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [1, 2, 3]
    assert line.get_ydata().tolist() == [7, 5, 3]


def test_ranked_draws_a_million_clusters_with_few_points():
    axes = Figure().subplots()
    counts = np.arange(1_000_000) + 1
    ranked(axes, counts, color="k", label="x")
    (line,) = axes.lines
    assert len(line.get_xdata()) <= 2000
    assert line.get_xdata()[[0, -1]].tolist() == [1, 1_000_000]


def test_the_middle_of_positions_around_ra_0_lies_at_ra_0():
    ra, dec, radius = cap(np.array([359.0, 1.0]), np.array([10.0, 10.0]))
    assert min(ra, 360 - ra) < 1e-9
    assert dec == pytest.approx(10, abs=0.01)
    assert radius == pytest.approx(np.cos(np.radians(10)), rel=1e-3)


def test_positions_spread_evenly_over_the_sky_have_no_middle():
    assert cap(np.array([0.0, 180.0]), np.array([0.0, 0.0]))[2] == 180


@pytest.mark.parametrize("ra", [[359.0, 1.0, 0.0], [10.0, 200.0, 300.0]])  # a region, and the whole sky
def test_ra_increases_to_the_left_and_all_positions_are_on_the_map(ra):
    figure = Figure()
    ra, dec = np.array(ra), np.array([-1.0, 1.0, 0.5])
    axes, keywords = sky_axes(figure, ra, dec)
    figure.canvas.draw()
    east, west = keywords["transform"].transform([[20.0, 0.0], [19.0, 0.0]])
    assert east[0] < west[0]
    inside = axes.get_window_extent()
    for x, y in keywords["transform"].transform(np.stack([ra, dec], axis=1)):
        assert inside.contains(x, y)
