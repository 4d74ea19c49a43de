"""step=cutouts strategy=catalog: a window per source, and a reason for each source without one."""

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import skyloom
from make.survey import sky, write_image
from skyloom.errors import InputError


def positions(path, *pixels):
    """RA and Dec of (row, col) of an image."""
    world = WCS(fits.getheader(path)).pixel_to_world([c for _, c in pixels], [r for r, _ in pixels])
    return {"ra": world.ra.deg.tolist(), "dec": world.dec.deg.tolist()}


def catalogue(path, columns):
    pl.DataFrame(columns).write_parquet(path)
    return path


def cut(store, images, catalog, **options):
    given = {"strategy": "catalog", "images": images, "catalog": str(catalog), "window_px": 32, "threads": 1}
    return skyloom.curate("cutouts", **{**given, **options}, store=store)


def test_windows_are_centred_on_the_sources(tmp_path):
    image = write_image(tmp_path / "in" / "a.fits", sky(200, 240))
    columns = positions(image, (100, 120), (20.3, 50.4), (1, 1), (198, 239))
    path = catalogue(tmp_path / "c.parquet", {"name": ["w", "x", "y", "z"], **columns})
    artifact = cut(tmp_path / "store", tmp_path / "in", path)
    table = artifact.table()
    assert table.select("source_id", "row0", "col0").rows() == [
        ("w", 84, 104), ("x", 5, 35), ("y", 0, 0), ("z", 168, 208),
    ]  # fmt: skip
    assert table["nan_frac"].to_list() == [0] * 4
    assert artifact.notes["catalog_columns"] == {"ra": "ra", "dec": "dec", "id": "name", "size": None}
    assert artifact.notes["window_px"] == 32
    assert "margin_px" not in table.columns
    ten = cut(tmp_path / "store", tmp_path / "in", path, window_px=33).table()
    assert ten.select("row0", "col0").row(0) == (84, 104)
    assert ten["ra_deg"][0] == pytest.approx(columns["ra"][0], abs=1e-9)


def test_statistics_equal_those_of_a_sliding_window(tmp_path):
    image = write_image(tmp_path / "in" / "a.fits", sky(200, 240))
    path = catalogue(tmp_path / "c.parquet", positions(image, (79.5, 95.5)))
    table = cut(tmp_path / "store", tmp_path / "in", path).table()
    sliding = skyloom.curate(
        "cutouts", images=tmp_path / "in", window_px=32, threads=1, store=tmp_path / "store"
    ).table()
    same = sliding.filter(pl.col("cutout_id") == table["cutout_id"][0])
    for column in ("row0", "col0", "rms", "peak", "peak_snr", "ra_deg", "healpix"):
        assert table[column][0] == same[column][0]


def test_every_source_without_a_window_is_listed(tmp_path):
    pixels = sky(200, 240)
    pixels[:, :60] = np.nan
    image = write_image(tmp_path / "in" / "a.fits", pixels)
    columns = positions(image, (100, 120), (100, 30), (100, 70), (400, 100), (100, 120))
    columns = {key: [*values, None] for key, values in columns.items()}
    path = catalogue(tmp_path / "c.parquet", {"id": list("abcdef"), **columns})
    artifact = cut(tmp_path / "store", tmp_path / "in", path)
    assert artifact.table()["source_id"].to_list() == ["a"]
    dropped = artifact.table("dropped.parquet")
    assert dict(dropped.select("source_id", "reason").rows()) == {
        "b": "blanked", "c": "blank", "d": "outside", "e": "repeated", "f": "no position",
    }  # fmt: skip
    lost = dropped.filter(pl.col("reason") == "outside")
    assert lost["image"].to_list() == [None]
    assert lost["ra_deg"][0] == pytest.approx(columns["ra"][3])
    assert artifact.counts["sources"] == 6
    assert artifact.counts["read"] == 6
    assert {key: entry["number"] for key, entry in artifact.counts["dropped"].items()} == {
        "blanked": 1, "blank window": 1, "outside": 1, "repeated window": 1, "no position": 1,
    }  # fmt: skip
    filled = cut(tmp_path / "store", tmp_path / "in", path, nan_policy="fill")
    assert filled.table()["source_id"].to_list() == ["a", "c"]


def overlapping(tmp_path):
    """Two images of the same sky; the second shows it 40 px further right and is blank in its upper half."""
    pixels = sky(200, 200)
    first = write_image(tmp_path / "in" / "a.fits", pixels)
    pixels = sky(200, 200, seed=1)
    pixels[120:] = np.nan
    second = write_image(tmp_path / "in" / "b.fits", pixels)
    with fits.open(second, mode="update") as hdus:
        hdus[0].header["CRPIX1"] += 40
    return catalogue(tmp_path / "c.parquet", {"id": ["left", "up", "right"],
                                              **positions(first, (60, 25), (150, 100), (60, 170))})  # fmt: skip


def test_a_source_on_several_images(tmp_path):
    path = overlapping(tmp_path)
    every = cut(tmp_path / "store", tmp_path / "in", path, **{"sources.images_per_source": "all"})
    assert every.table().select("image", "source_id").rows() == [
        ("a", "left"),
        ("a", "up"),
        ("a", "right"),
        ("b", "left"),
    ]
    best = cut(tmp_path / "store", tmp_path / "in", path)
    # 'left' is 25 px from the edge of a, and 60 px from that of b; 'up' is blank in b; 'right' is outside b
    assert best.table().select("image", "source_id").rows() == [("a", "up"), ("a", "right"), ("b", "left")]
    dropped = best.table("dropped.parquet").select("image", "source_id", "reason").rows()
    assert ("a", "left", "elsewhere") in dropped
    assert ("b", "up", "blanked") in dropped
    assert "outside" not in {reason for *_, reason in dropped}


def test_sizes_from_a_column(tmp_path):
    image = write_image(tmp_path / "in" / "a.fits", sky(200, 240))
    columns = positions(image, *[(100, 120)] * 5)
    path = catalogue(tmp_path / "c.parquet", {**columns, "maj": [15.0, 60.0, 600.0, None, 61.0]})
    options = {"sources.size": "maj", "sources.size_unit": "arcsec", "sources.size_factor": 2.0}
    artifact = cut(tmp_path / "store", tmp_path / "in", path, **options)
    assert artifact.table().select("source_id", "size_px").rows() == [("0", 32), ("1", 80), ("4", 82)]
    dropped = artifact.table("dropped.parquet").select("source_id", "size_px", "reason").rows()
    assert dropped == [("2", 800, "large"), ("3", None, "unsized")]
    in_px = cut(tmp_path / "store", tmp_path / "in", path, **{**options, "sources.size_unit": "px"})
    assert in_px.table()["size_px"].to_list() == [32, 120, 122]


def test_the_catalogue_is_part_of_the_request(tmp_path):
    image = write_image(tmp_path / "in" / "a.fits", sky(200, 240))
    one = cut(tmp_path / "store", tmp_path / "in", catalogue(tmp_path / "c.parquet", positions(image, (100, 120))))
    (tmp_path / "other").mkdir()
    moved = catalogue(tmp_path / "other" / "d.parquet", positions(image, (100, 120)))
    assert cut(tmp_path / "store", tmp_path / "in", moved).id == one.id
    changed = catalogue(tmp_path / "c.parquet", positions(image, (100, 121)))
    assert cut(tmp_path / "store", tmp_path / "in", changed).id != one.id


def test_catalogues_that_do_not_fit(tmp_path):
    image = write_image(tmp_path / "in" / "a.fits", sky(100, 100))
    with pytest.raises(InputError, match=r"none of 1 windows is left .1 outside.; check that images and catalogue"):
        cut(tmp_path / "store", tmp_path / "in", catalogue(tmp_path / "c.parquet", {"ra": [3.0], "dec": [3.0]}))
    with pytest.raises(InputError, match=r"no\.csv"):
        cut(tmp_path / "store", tmp_path / "in", tmp_path / "no.csv")
    write_image(tmp_path / "in" / "b.fits", sky(100, 100, seed=1), wcs=False)
    path = catalogue(tmp_path / "c.parquet", positions(image, (50, 50)))
    with pytest.raises(InputError, match=r"b\.fits: the image has no celestial WCS"):
        cut(tmp_path / "store", tmp_path / "in", path)
    assert cut(tmp_path / "store", tmp_path / "in", path, on_bad_image="skip").counts["kept"] == 1


def test_a_simulated_survey_finds_its_sources_with_any_workers(tmp_path):
    survey = skyloom.curate("simulate", survey="lotss", mosaics=2, size_px=300, store=tmp_path / "one")
    options = {"survey": "lotss", "min_peak_snr": 5.0}
    one = cut(tmp_path / "one", survey.id, survey.path / "sources.parquet", **options)
    skyloom.curate("simulate", survey="lotss", mosaics=2, size_px=300, store=tmp_path / "two")
    two = cut(tmp_path / "two", survey.id, survey.path / "sources.parquet", workers=2, **options)
    assert one.manifest == two.manifest
    assert one.table()["source_id"].n_unique() == len(one.table())
    assert one.counts["read"] == len(one.table()) + len(one.table("dropped.parquet"))
