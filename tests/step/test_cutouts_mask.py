"""step=cutouts strategy=mask: a window per source and size, named after its island."""

import numpy as np
import polars as pl
import pytest

import skyloom
from make.fits import write_fits
from make.survey import sky, write_image
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import InputError

MASK = "mosaic.pybdsmmask.fits"
SMALL = [
    {"up_to_px": 11, "windows": ["1.5x", 16, 32]},
    {"up_to_px": 24, "windows": ["1.5x", 32]},
    {"up_to_px": None, "windows": [32]},
]


def mosaic(root, name, *boxes, pixels=None, seed=0):
    """Write a mosaic in the layout of LoTSS with boxes (top, bottom, left, right) as islands."""
    pixels = sky(200, 200, seed=seed) if pixels is None else pixels
    folder = root / "mosaics" / name
    write_image(folder / "mosaic-blanked.fits", pixels)
    mask = np.zeros(pixels.shape)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 1
    write_fits(folder / MASK, mask, dtype=">f4", axes=4)
    return folder


def cut(store, images, **options):
    given = {"survey": "lotss", "strategy": "mask", "images": images, "threads": 1, "mask.sizes": SMALL, **options}
    return skyloom.curate("cutouts", **given, store=store)


def test_each_source_has_its_windows(tmp_path):
    mosaic(tmp_path, "P2", (50, 60, 70, 75), (100, 120, 100, 112), (150, 190, 20, 40))
    mosaic(tmp_path, "P1", (30, 31, 30, 31), seed=1)
    artifact = cut(tmp_path / "store", tmp_path)
    table = artifact.table()
    assert table.select("image", "island", "extent_px", "size_rule", "size_px").rows() == [
        ("P1", 1, 1, "1.5x", 1), ("P1", 1, 1, "16", 16), ("P1", 1, 1, "32", 32),
        ("P2", 1, 10, "1.5x", 15), ("P2", 1, 10, "16", 16), ("P2", 1, 10, "32", 32),
        ("P2", 2, 20, "1.5x", 30), ("P2", 2, 20, "32", 32),
        ("P2", 3, 40, "32", 32),
    ]  # fmt: skip
    assert table.schema["island"] == pl.Int64
    assert artifact.counts["sources"] == 4
    larger = artifact.notes["larger_than_window"]
    assert (larger["number"], larger["names"]) == (1, ["P2: island 3, 40 px"])
    assert artifact.notes["window_px"] is None
    assert artifact.notes["sizes_px"]["32"] == 4
    second = table.filter(pl.col("island") == 2)
    assert second["row0"].to_list() == [95, 94]  # rows 100 to 119: the middle is 109.5
    assert second["col0"].to_list() == [91, 90]
    images = artifact.table("images.parquet")
    assert images["mask_fingerprint"].null_count() == 0


def test_statistics_are_those_of_the_window(tmp_path):
    folder = mosaic(tmp_path, "P1", (50, 60, 70, 75), (198, 200, 199, 200))
    artifact = cut(tmp_path / "store", tmp_path)
    from skyloom.sky.files.image import open_image

    image = open_image(folder / "mosaic-blanked.fits")
    for row in artifact.table().iter_rows(named=True):
        window = image.read(row["row0"], row["col0"], row["size_px"], row["size_px"])
        assert row["peak"] == window.max()
    corner = artifact.table().filter((pl.col("island") == 2) & (pl.col("size_px") == 32))
    assert corner.select("row0", "col0").rows() == [(168, 168)]  # shifted, not cut


def test_rows_of_one_size_are_read_together_and_mixed_ones_are_refused(tmp_path):
    mosaic(tmp_path, "P1", (50, 60, 70, 75), (100, 120, 100, 112))
    index = CutoutIndex(cut(tmp_path / "store", tmp_path))
    assert sorted(set(index.sizes.tolist())) == [15, 16, 30, 32]
    for size in np.unique(index.sizes):
        rows = np.flatnonzero(index.sizes == size)
        assert index.read(rows).shape == (len(rows), size, size)
    with pytest.raises(InputError, match="sizes 15 and 16 px in one batch"):
        index.read(np.arange(len(index)))


def test_islands_within_join_px_are_one_source(tmp_path):
    mosaic(tmp_path, "P1", (50, 55, 50, 55), (50, 55, 59, 64), (150, 155, 50, 55))
    apart, joined = (cut(tmp_path / "store", tmp_path, **{"mask.join_px": join}) for join in (3, 4))
    assert apart.counts["sources"] == 3
    assert joined.counts["sources"] == 2
    assert joined.table().filter(pl.col("island") == 1)["extent_px"].unique().to_list() == [14]


def test_windows_with_blanks_follow_the_policy(tmp_path):
    pixels = sky(200, 200)
    pixels[:, :60] = np.nan
    mosaic(tmp_path, "P1", (50, 60, 63, 73), (100, 110, 150, 160), pixels=pixels)
    strict = cut(tmp_path / "store", tmp_path)
    assert strict.table()["island"].value_counts().sort("island").rows() == [(1, 2), (2, 3)]
    dropped = strict.table("dropped.parquet")
    assert dropped.select("island", "size_rule", "reason").rows() == [(1, "32", "blank")]
    assert len(cut(tmp_path / "store", tmp_path, nan_policy="fill").table()) == 6


def test_windows_that_fit_nowhere_or_repeat_are_listed(tmp_path):
    sizes = [{"up_to_px": None, "windows": ["1.5x", 15, 300]}]
    mosaic(tmp_path, "P1", (50, 60, 70, 80))
    artifact = cut(tmp_path / "store", tmp_path, **{"mask.sizes": sizes})
    assert artifact.table().select("size_rule", "size_px").rows() == [("15", 15)]
    dropped = artifact.table("dropped.parquet")
    assert dropped.select("island", "size_rule", "size_px", "reason").rows() == [
        (1, "1.5x", 15, "repeated"), (1, "300", 300, "large"),
    ]  # fmt: skip
    assert artifact.counts["dropped"]["large window"]["number"] == 1
    assert artifact.counts["read"] == 3


def test_the_masks_are_part_of_the_request(tmp_path):
    folder = mosaic(tmp_path, "P1", (50, 60, 70, 75))
    grid = {"strategy": "sliding", "window_px": 64}
    first, sliding = cut(tmp_path / "store", tmp_path), cut(tmp_path / "store", tmp_path, **grid)
    (folder / MASK).unlink()
    mask = np.zeros((200, 200))
    mask[5:9, 5:9] = 1
    write_fits(folder / MASK, mask, dtype=">f4", axes=4)
    assert cut(tmp_path / "store", tmp_path).id != first.id
    assert cut(tmp_path / "store", tmp_path, **grid).id == sliding.id


def test_masks_among_the_images_are_no_images(tmp_path):
    pixels = sky(100, 100)
    write_image(tmp_path / "in" / "a.fits", pixels)
    mask = np.zeros((100, 100))
    mask[40:50, 40:50] = 1
    write_fits(tmp_path / "in" / "mask.fits", mask)
    options = {"survey": "generic", "survey.mask_name": "mask.fits"}
    artifact = cut(tmp_path / "store", tmp_path / "in", **options)
    assert artifact.table("images.parquet")["image"].to_list() == ["a"]


@pytest.mark.parametrize("case", ["missing", "shape", "text"])
def test_a_bad_mask_is_named_or_skipped(tmp_path, case):
    mosaic(tmp_path, "P1", (50, 60, 70, 75))
    folder = mosaic(tmp_path, "P2", (50, 60, 70, 75), seed=1)
    (folder / MASK).unlink()
    if case == "shape":
        write_fits(folder / MASK, np.zeros((200, 199)), axes=4)
    elif case == "text":
        (folder / MASK).write_text("no mask\n" * 900)
    with pytest.raises(InputError, match=r"P2/mosaic\.pybdsmmask\.fits: ") as error:
        cut(tmp_path / "store", tmp_path)
    assert "\n" not in str(error.value)
    artifact = cut(tmp_path / "store", tmp_path, on_bad_image="skip")
    assert artifact.table()["image"].unique().to_list() == ["P1"]
    assert artifact.counts["dropped"]["bad image"]["examples"][0].startswith("P2: ")


def test_masks_without_a_source(tmp_path):
    mosaic(tmp_path, "P1")
    with pytest.raises(InputError, match=r"the masks hold no source"):
        cut(tmp_path / "store", tmp_path)
    mosaic(tmp_path, "P2", (50, 60, 70, 75))
    assert cut(tmp_path / "store", tmp_path).counts["sources"] == 1


def test_a_simulated_survey(tmp_path):
    survey = skyloom.curate("simulate", survey="lotss", mosaics=2, size_px=300, store=tmp_path)
    artifact = cut(tmp_path, survey.id)
    assert artifact.counts["sources"] > 10
    assert artifact.table()["cutout_id"].n_unique() == len(artifact.table())
    assert artifact.counts["read"] == len(artifact.table()) + len(artifact.table("dropped.parquet"))
