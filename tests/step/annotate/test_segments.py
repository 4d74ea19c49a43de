"""step=annotate source=segmentation: the survey's own map becomes masks of the matched detections, holes included."""

import numpy as np
import polars as pl
import pytest

import skyloom
from make.joint_files import joint_store, write_joint
from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.image import open_image
from skyloom.sky.mask import rle

SIDE = 64


@pytest.fixture
def roman(tmp_path):
    store, cutouts, _ = joint_store(tmp_path, match=False)
    return tmp_path / "survey" / "roman", store, cutouts


def test_masks_are_those_of_the_map(roman):
    folder, store, cutouts = roman
    found = skyloom.curate(
        "annotate", cutouts=cutouts, survey="roman", source="segmentation", min_area_px=1, store=store
    )
    tile = cutouts.table()["tile"][0]
    table, lost = found.table(f"annotations/{tile}.parquet"), found.table(f"rejected/{tile}.parquet")
    matches, detections = (cutouts.table(f"{name}/{tile}.parquet") for name in ("matches", "detections"))
    assert len(table) + len(lost) == len(detections) == found.counts["read"]
    assert len(table) >= 15
    assert (lost["reason"] == "unmatched").sum() == len(detections) - len(matches)
    with open_image(next(folder.rglob("dc2_seg_*.fits.gz"))) as map_file:
        numbers = map_file.read(0, 0, *map_file.shape).astype(int)
    corner = {row["cutout_id"]: (row["row0"], row["col0"]) for row in cutouts.table().iter_rows(named=True)}
    truth = cutouts.table(f"truth/{tile}.parquet")
    kept = table.join(truth, on=["cutout_id", "object_id"], suffix="_t")
    assert kept["keypoint_x_px"].equals(kept["x_px"])
    clipped = 0
    for row in table.iter_rows(named=True):
        row0, col0 = corner[row["cutout_id"]]
        own = numbers == row["detection_id"]
        inside = own[row0 : row0 + SIDE, col0 : col0 + SIDE]
        np.testing.assert_array_equal(rle.decode(row["rle"], (SIDE, SIDE)), inside)
        assert row["area_px"] == inside.sum()
        assert row["clipped"] == (own.sum() > inside.sum())
        clipped += row["clipped"]
        pair = matches.filter(
            (pl.col("cutout_id") == row["cutout_id"]) & (pl.col("detection_id") == row["detection_id"])
        )
        assert pair["object_id"].to_list() == [row["object_id"]]
    assert 0 < clipped < len(table)
    assert {"sep_arcsec", "match_quality", "n_competing", "mag_H158", "flux_H158_njy"} <= set(table.columns)


def test_the_options_of_drawing_do_not_enter_the_id(roman):
    _, store, cutouts = roman
    options = {"cutouts": cutouts, "survey": "roman", "source": "segmentation", "store": store}
    first = skyloom.curate("annotate", **options)
    assert skyloom.curate("annotate", **options, snr=3, dilate_px=5).id == first.id
    assert skyloom.curate("annotate", **options, min_area_px=30).id != first.id


def test_a_survey_without_shapes_says_so_and_a_lost_map_is_named(roman):
    folder, store, cutouts = roman
    with pytest.raises(ConfigError, match="does not say which column holds 'size_disk_arcsec'"):
        skyloom.curate("annotate", cutouts=cutouts, survey="roman", store=store)
    next(folder.rglob("dc2_seg_*.fits.gz")).unlink()
    with pytest.raises(InputError, match=r"\(segmentation\) of cutouts"):
        skyloom.curate("annotate", cutouts=cutouts, survey="roman", source="segmentation", store=store)


def test_holes_stay_holes(tmp_path):
    from astropy.io import fits

    joint = write_joint(tmp_path / "survey")
    path = next(joint.roman.rglob("dc2_seg_*.fits.gz"))
    with fits.open(path) as file:
        numbers, header = file[0].data.copy(), file[0].header
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    rows, cols = np.nonzero(numbers == largest)
    hole = int(np.median(rows)), int(np.median(cols))
    numbers[hole] = 0
    fits.PrimaryHDU(numbers, header).writeto(path, overwrite=True)
    store = tmp_path / "store"
    cutouts = skyloom.curate("cutouts", survey="roman", images=joint.roman, window_px=64, border_px=4, store=store)
    found = skyloom.curate("annotate", cutouts=cutouts, survey="roman", source="segmentation", store=store)
    table = found.table(f"annotations/{joint.tiles[0]}.parquet").filter(pl.col("detection_id") == largest)
    row = table.row(0, named=True)
    place = cutouts.table().filter(pl.col("cutout_id") == row["cutout_id"]).row(0, named=True)
    mask = rle.decode(row["rle"], (SIDE, SIDE))
    y, x = hole[0] - place["row0"], hole[1] - place["col0"]
    assert not mask[y, x]
    assert mask[y - 1 : y + 2, x - 1 : x + 2].sum() == 8
