"""One detection per object at the seams of tiles, and the same catalogue from tiles as from one large image."""

import numpy as np
import polars as pl
import pytest

from make import mosaics
from skyloom.product.mosaic_files import open_mosaics
from skyloom.product.mosaic_source import MosaicSource
from skyloom.product.seams import one_per_object, overlapping, reaching_in
from skyloom.sky.mask.rle import area, encode
from skyloom.store import Store

SEAM = {"seam_px": 4.0, "same_iou": 0.5}


def source_of(pixels, tmp_path, tile_px, overlap_px):
    path = tmp_path / "mosaic.fits"
    if not path.exists():
        mosaics.write(path, pixels)
    return MosaicSource(open_mosaics(str(path), {}, Store(tmp_path / "s")), tile_px=tile_px, overlap_px=overlap_px)


def catalogue(source, found):
    """Positions, areas and boxes in the mosaic, sorted by position."""
    tiles = source.images[found["image_row"].to_list()]
    boxes = found.select("x0_px", "y0_px", "x1_px", "y1_px").to_numpy() + np.tile(tiles.select("col0", "row0"), 2)
    shapes = tiles.select("height_px", "width_px").rows()
    areas = [area(counts, shape) for counts, shape in zip(found["rle"], shapes, strict=True)]
    table = np.column_stack([boxes, areas])
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize(("tile", "overlap"), [(64, 24), (90, 30), (64, 40), (150, 24)])
def test_the_catalogue_of_tiles_is_that_of_one_large_image(tile, overlap, tmp_path):
    pixels = mosaics.sky(200, 260)
    source = source_of(pixels, tmp_path, tile, overlap)
    whole = source_of(pixels, tmp_path, 512, 64)
    assert len(whole.images) == 1
    assert len(source.images) > 1
    found = mosaics.detections(source)
    seams = one_per_object(found, source.images, **SEAM)
    expected = catalogue(whole, mosaics.detections(whole))
    assert len(found) > 1.2 * len(expected), "objects are found in several tiles"
    assert len(expected) > 200
    assert np.array_equal(catalogue(source, found.filter(seams.kept)), expected)
    assert (seams.kept ^ (seams.away | seams.twice)).all(), "each detection is kept, or it is said why not"
    assert not (seams.kept & seams.cut).any()


def test_with_noise_the_catalogues_agree_but_at_the_threshold(tmp_path):
    rng = np.random.default_rng(3)
    pixels = mosaics.sky(200, 260) + rng.normal(0, 1.5, (200, 260)).astype("f4")
    source, whole = source_of(pixels, tmp_path, 64, 24), source_of(pixels, tmp_path, 512, 64)
    found = mosaics.detections(source)
    kept = catalogue(source, found.filter(one_per_object(found, source.images, **SEAM).kept))
    assert np.array_equal(kept, catalogue(whole, mosaics.detections(whole)))


def by_hand(*rows):
    """Rows of (tile, x0, y0, x1, y1, score), each with its box as the mask, in tiles of 40 px."""
    made = []
    for tile, x0, y0, x1, y1, score in rows:
        mask = np.zeros((40, 40), bool)
        mask[y0:y1, x0:x1] = True
        made.append((tile, x0, y0, x1, y1, score, 0, encode(mask)))
    return pl.DataFrame(made, schema=mosaics.SCHEMA, orient="row")


@pytest.fixture
def pair(tmp_path):
    """Two tiles of 40 px, from column 0 and 24, that share 16; the first one's own part ends at column 32."""
    source = source_of(mosaics.sky(40, 64), tmp_path, 40, 16)
    assert source.images["col0"].to_list() == [0, 24]
    assert source.images["core_col1"].to_list() == [32, 40]
    return source.images


def test_tiles_that_put_an_object_on_either_side_of_the_border_keep_one(pair):
    swapped = by_hand((0, 29, 10, 36, 16, 0.9), (1, 4, 10, 11, 16, 0.8))  # each one's centre is in the other's part
    assert one_per_object(swapped, pair, **SEAM).kept.tolist() == [True, False]
    both = by_hand((0, 28, 10, 35, 16, 0.7), (1, 5, 10, 12, 16, 0.8))  # each in its own
    assert one_per_object(both, pair, **SEAM).kept.tolist() == [False, True]
    assert one_per_object(both, pair, **SEAM).twice.tolist() == [True, False]


def test_a_detection_of_one_tile_only_is_kept_near_the_border_and_not_beyond(pair):
    seams = one_per_object(by_hand((0, 32, 10, 36, 14, 0.9), (0, 36, 20, 40, 24, 0.9)), pair, **SEAM)
    assert seams.kept.tolist() == [True, False]
    assert seams.away.tolist() == [False, True]


def test_a_small_object_on_a_large_one_stays(pair):
    found = by_hand((0, 16, 8, 32, 24, 0.9), (1, 9, 14, 12, 17, 0.95))  # in the mosaic columns 33 to 36: beside it
    assert one_per_object(found, pair, **SEAM).kept.all()
    found = by_hand((0, 20, 8, 38, 26, 0.9), (1, 8, 14, 12, 18, 0.95))  # columns 32 to 36: on it
    assert one_per_object(found, pair, **SEAM).kept.all()


def test_an_object_larger_than_the_overlap_is_kept_once_and_marked(pair):
    seams = one_per_object(by_hand((0, 12, 10, 40, 20, 0.9), (1, 0, 10, 28, 20, 0.8)), pair, **SEAM)
    assert seams.kept.sum() == 1
    assert seams.cut.all()


def test_a_whole_object_is_kept_before_one_that_the_border_cuts(pair):
    seams = one_per_object(by_hand((0, 23, 10, 40, 20, 0.99), (1, 2, 10, 19, 20, 0.5)), pair, seam_px=8, same_iou=0.5)
    assert seams.kept.tolist() == [False, True]


def test_four_tiles_at_a_corner_give_one(tmp_path):
    source = source_of(mosaics.sky(64, 64), tmp_path, 40, 16)
    found = by_hand((0, 30, 30, 35, 35, 0.9), (1, 6, 30, 11, 35, 0.8), (2, 30, 6, 35, 11, 0.7), (3, 6, 6, 11, 11, 0.95))
    assert len(list(overlapping(source.images))) == 6
    assert one_per_object(found, source.images, **SEAM).kept.sum() == 1


def test_objects_that_reach_into_a_tile_are_told(pair):
    found = by_hand((0, 2, 2, 6, 6, 0.9), (0, 20, 10, 30, 16, 0.9), (1, 20, 10, 30, 16, 0.9), (1, 12, 2, 18, 6, 0.9))
    reached = reaching_in(found, pair)
    assert {row: rows.tolist() for row, rows in reached.items()} == {0: [3], 1: [1]}


def test_images_that_are_no_tiles_keep_everything(tmp_path):
    for number in range(2):
        mosaics.write(tmp_path / "f" / f"{number}.fits", mosaics.sky(40, 40))
    source = MosaicSource(open_mosaics(str(tmp_path / "f"), {}, Store(tmp_path)), tile_px=64, overlap_px=8)
    found = by_hand((0, 0, 0, 8, 8, 0.9), (1, 0, 0, 8, 8, 0.9), (1, 36, 36, 40, 40, 0.4))
    seams = one_per_object(found, source.images, **SEAM)
    assert seams.kept.all()
    assert not seams.cut.any()
    assert reaching_in(found, source.images) == {}
    nothing = one_per_object(found[:0], source.images, **SEAM)
    assert len(nothing.kept) == 0
