"""Sources of an island mask: connected as they should be, with windows of the right sizes around their middles."""

import numpy as np
import pytest

from make.fits import write_fits
from skyloom.errors import InputError
from skyloom.sky.window.mask import SizeRule, find_sources, read_mask, window_side, windows_around

RULES = [SizeRule(95, ("1.5x", 128, 256)), SizeRule(192, ("1.5x", 256)), SizeRule(None, (256,))]


def blank(*boxes, shape=(400, 500)):
    mask = np.zeros(shape, bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def found(boxes):
    return sorted(
        zip(boxes.top.tolist(), boxes.bottom.tolist(), boxes.left.tolist(), boxes.right.tolist(), strict=True)
    )


def test_corners_connect_and_islands_count_from_one():
    mask = blank((10, 20, 10, 20), (20, 30, 20, 25), (50, 51, 400, 440))
    boxes = find_sources(mask)
    assert found(boxes) == [(10, 30, 10, 25), (50, 51, 400, 440)]
    assert boxes.island.tolist() == [1, 2]
    assert boxes.extent_px.tolist() == [20, 40]


@pytest.mark.parametrize("join_px", [0, 1, 2, 3, 6, 7])
@pytest.mark.parametrize("gap", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("way", ["row", "column", "corner"])
def test_islands_are_joined_up_to_the_gap_and_not_beyond(join_px, gap, way):
    first, second = (10, 20, 10, 20), (10, 20, 20 + gap, 40)
    if way == "column":
        second = (20 + gap, 40, 10, 20)
    elif way == "corner":
        second = (20 + gap, 40, 20 + gap, 40)
    boxes = find_sources(blank(first, second, shape=(60, 60)), join_px=join_px)
    if gap <= join_px:
        assert found(boxes) == [(10, max(20, second[1]), 10, max(20, second[3]))]  # the box of the mask's own pixels
    else:
        assert found(boxes) == sorted([first, second])


def test_joining_at_the_border_and_in_chains():
    mask = blank((0, 1, 0, 1), (0, 1, 4, 5), (0, 1, 8, 9), (59, 60, 59, 60), shape=(60, 60))
    assert found(find_sources(mask, join_px=3)) == [(0, 1, 0, 9), (59, 60, 59, 60)]


def test_an_empty_mask_has_no_source():
    boxes = find_sources(blank())
    assert len(boxes) == 0
    assert len(windows_around(boxes, RULES, (400, 500)).island) == 0


@pytest.mark.parametrize(
    ("extent", "expected"),
    [
        (1, {"1.5x": 1, "128": 128, "256": 256}),
        (40, {"1.5x": 60, "128": 128, "256": 256}),
        (95, {"1.5x": 142, "128": 128, "256": 256}),
        (96, {"1.5x": 144, "256": 256}),
        (192, {"1.5x": 288, "256": 256}),
        (193, {"256": 256}),
        (300, {"256": 256}),
    ],
)
def test_sizes_follow_the_extent(extent, expected):
    boxes = find_sources(blank((50, 50 + extent, 70, 71)))
    windows = windows_around(boxes, RULES, (400, 500))
    assert dict(zip(windows.size_rule.tolist(), windows.size_px.tolist(), strict=True)) == expected
    assert set(windows.extent_px.tolist()) == {extent}
    assert windows.fits.all()
    assert not windows.repeated.any()


def test_windows_are_centred_and_shifted_never_cut():
    mask = blank((100, 111, 200, 231), (2, 5, 490, 500))
    windows = windows_around(find_sources(mask), [SizeRule(None, (51, 128))], mask.shape)
    assert windows.island.tolist() == [1, 1, 2, 2]
    by_place = set(zip(windows.row0.tolist(), windows.col0.tolist(), windows.size_px.tolist(), strict=True))
    assert by_place == {(80, 190, 51), (41, 151, 128), (0, 449, 51), (0, 372, 128)}


def test_a_window_larger_than_the_image_is_said_not_to_fit():
    windows = windows_around(find_sources(blank((10, 15, 10, 15), shape=(100, 300))), RULES, (100, 300))
    assert dict(zip(windows.size_rule.tolist(), windows.fits.tolist(), strict=True)) == {
        "1.5x": True, "128": False, "256": False,
    }  # fmt: skip


def test_equal_windows_are_told_apart_once_and_the_fixed_size_stands():
    boxes = find_sources(blank((20, 191, 20, 191), (300, 310, 300, 310)))  # int(1.5 * 171) = 256
    windows = windows_around(boxes, RULES, (400, 500))
    labels = windows.size_rule[windows.island == 1].tolist()
    assert labels == ["1.5x", "256"]
    assert windows.repeated[windows.island == 1].tolist() == [True, False]
    assert not windows.repeated[windows.island == 2].any()


def test_a_ring_and_its_core_share_a_window_that_belongs_to_the_ring():
    mask = blank((100, 141, 100, 141))
    mask[110:131, 110:131] = False
    mask[118:123, 118:123] = True
    windows = windows_around(find_sources(mask), [SizeRule(None, (64,))], mask.shape)
    assert windows.extent_px.tolist() == [41, 5]
    assert windows.repeated.tolist() == [False, True]


@pytest.mark.parametrize(("size", "extent", "side"), [("1.5x", 3, 4), ("1.15x", 100, 115), ("0.1x", 3, 1), (64, 3, 64)])
def test_window_side(size, extent, side):
    assert window_side(size, extent) == side


@pytest.mark.parametrize(("dtype", "axes"), [(">f4", 4), (">f8", 2), (">i2", 3), ("u1", 2)])
def test_masks_are_read_whatever_their_layout(tmp_path, dtype, axes):
    mask = blank((10, 20, 30, 44), shape=(300, 80))
    write_fits(tmp_path / "m.fits", mask.astype(float), dtype=dtype, axes=axes)
    read = read_mask(tmp_path / "m.fits", (300, 80))
    assert read.dtype == bool
    np.testing.assert_array_equal(read, mask)


def test_blank_mask_pixels_are_no_source(tmp_path):
    values = np.full((20, 20), np.nan)
    values[3, 4] = 1
    write_fits(tmp_path / "m.fits", values)
    assert read_mask(tmp_path / "m.fits", (20, 20)).sum() == 1


def test_a_mask_of_another_shape_is_refused(tmp_path):
    write_fits(tmp_path / "m.fits", np.zeros((20, 30)))
    with pytest.raises(InputError, match=r"m\.fits: expected a mask of 20 x 31 px as its image, found 20 x 30 px"):
        read_mask(tmp_path / "m.fits", (20, 31))
    with pytest.raises(InputError, match=r"no\.fits: no such mask"):
        read_mask(tmp_path / "no.fits", (20, 31))
