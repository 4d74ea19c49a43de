"""step=cutouts: the right windows, all of them, and a reason for each that is left out."""

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

import skyloom
from make.survey import sky, write_image
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.step.cutouts.table import cutout_ids
from skyloom.store import Store


def cut(store, images, **options):
    return skyloom.curate(
        "cutouts", **{"images": images, "window_px": 32, "overlap": 0.5, "threads": 1, **options}, store=store
    )


@pytest.mark.parametrize(("window", "overlap", "stride"), [(32, 0.5, 16), (32, 0.0, 32), (30, 0.3, 21), (20, 0.9, 2)])
def test_windows_are_counted_as_the_arithmetic_says(tmp_path, window, overlap, stride):
    write_image(tmp_path / "in" / "a.fits", sky(150, 201))
    artifact = cut(tmp_path / "store", tmp_path / "in", window_px=window, overlap=overlap)
    expected = ((150 - window) // stride + 1) * ((201 - window) // stride + 1)
    assert artifact.counts["kept"] == artifact.counts["read"] == expected
    table = artifact.table()
    assert table["row0"].unique().sort().to_list() == list(range(0, 150 - window + 1, stride))
    assert table["cutout_id"].n_unique() == expected


def test_blank_windows_are_dropped_and_listed(tmp_path):
    pixels = sky(128, 128)
    pixels[:20, :] = np.nan
    pixels[60, 60] = np.inf
    write_image(tmp_path / "in" / "a.fits", pixels)
    artifact = cut(tmp_path / "store", tmp_path / "in")
    rows = [(r, c) for r in range(0, 97, 16) for c in range(0, 97, 16)]
    good = [(r, c) for r, c in rows if np.isfinite(pixels[r : r + 32, c : c + 32]).all()]
    assert artifact.table().select("row0", "col0").rows() == good
    dropped = artifact.table("dropped.parquet")
    assert set(dropped["reason"]) == {"blank"}
    assert sorted(dropped.select("row0", "col0").rows() + good) == rows
    entry = artifact.counts["dropped"]["blank window"]
    assert entry["number"] == len(rows) - len(good)
    assert "max_nan_frac" in entry["why"]
    lenient = cut(tmp_path / "store", tmp_path / "in", nan_policy="max_fraction", max_nan_frac=0.7)
    assert lenient.counts["kept"] == len(rows)
    assert lenient.table()["nan_frac"].max() == pytest.approx(20 / 32)


def test_faint_windows_are_dropped_when_asked(tmp_path):
    pixels = np.random.default_rng(0).normal(0, 1e-4, (96, 96))
    pixels[16, 16] = 1.0
    write_image(tmp_path / "in" / "a.fits", pixels)
    artifact = cut(tmp_path / "store", tmp_path / "in", min_peak_snr=50.0)
    assert artifact.table().select("row0", "col0").rows() == [(0, 0), (0, 16), (16, 0), (16, 16)]
    assert artifact.counts["dropped"]["faint window"]["number"] == 21


def test_positions_are_those_of_the_window_centres(tmp_path):
    path = write_image(tmp_path / "in" / "a.fits", sky(100, 140))
    table = cut(tmp_path / "store", tmp_path / "in", window_px=33).table()
    wcs = WCS(fits.getheader(path))
    centre = wcs.pixel_to_world(table["col0"].to_numpy() + 16.0, table["row0"].to_numpy() + 16.0)
    found = SkyCoord(table["ra_deg"].to_numpy() * u.deg, table["dec_deg"].to_numpy() * u.deg)
    assert centre.separation(found).max() < 1e-6 * u.arcsec
    assert table["healpix"].null_count() == 0


def test_an_image_without_wcs_is_accepted_and_said(tmp_path):
    write_image(tmp_path / "in" / "a.fits", sky(64, 64), wcs=False)
    write_image(tmp_path / "in" / "b.fits", sky(64, 64))
    artifact = cut(tmp_path / "store", tmp_path / "in")
    table = artifact.table()
    assert table.filter(pl.col("image") == "a")["ra_deg"].null_count() == 9
    assert table.filter(pl.col("image") == "a")["healpix"].null_count() == 9
    assert table.filter(pl.col("image") == "b")["ra_deg"].null_count() == 0
    assert artifact.notes["images_without_wcs"]["names"] == ["a"]
    assert artifact.astropy()["ra_deg"].mask.sum() == 9


def test_ids_do_not_depend_on_the_folder_and_differ_between_windows(tmp_path):
    for folder in ("one", "two/deep"):
        write_image(tmp_path / folder / "a.fits", sky(64, 80))
    one, two = (cut(tmp_path / "store", tmp_path / folder) for folder in ("one", "two/deep"))
    assert one.id == two.id
    row, col = np.divmod(np.arange(250_000), 500)
    ids = np.concatenate([cutout_ids("lotss", name, row, col, 256) for name in ("P1", "P2")])
    assert len(np.unique(ids)) == 500_000
    assert ids.min() >= 0
    assert not set(cutout_ids("lotss", "P1", row[:9], col[:9], 128)) & set(ids)


def test_the_order_is_by_image_and_position_whatever_the_file_system_says(tmp_path):
    for name in ("b", "a", "c"):
        write_image(tmp_path / "in" / f"{name}.fits", sky(64, 64, seed=ord(name)))
    table = cut(tmp_path / "store", tmp_path / "in").table()
    assert table.select("image", "row0", "col0").rows() == sorted(table.select("image", "row0", "col0").rows())


def test_a_survey_artifact_is_an_input_with_lineage(tmp_path):
    survey = skyloom.curate("simulate", survey="lotss", mosaics=1, size_px=300, store=tmp_path)
    artifact = skyloom.curate("cutouts", survey="lotss", images=survey.id, window_px=64, store=tmp_path)
    assert artifact.inputs["images"].id == survey.id
    assert artifact.notes["unit"] == "Jy/beam"
    assert artifact.table("images.parquet")["path"].to_list()[0].startswith("mosaics/")


BAD = {
    "missing": ("nothing/x.fits", "no such file"),
    "truncated": ("t.fits", "t.fits.*(truncated|shorter|incomplete|bytes)"),
    "text": ("text.fits", r"text\.fits"),
    "small": ("small.fits", r"small\.fits.*window"),
    "blank": ("blank.fits", r"blank\.fits has only blank"),
    "cube": ("cube.fits", r"cube\.fits"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_named_and_leave_nothing(tmp_path, case):
    folder = tmp_path / "in"
    whole = write_image(folder / "whole.fits", sky(64, 64))
    (folder / "t.fits").write_bytes(whole.read_bytes()[:9000])
    (folder / "text.fits").write_text("not a fits file\n" * 400)
    write_image(folder / "small.fits", sky(20, 90))
    write_image(folder / "blank.fits", np.full((64, 64), np.nan))
    write_image(folder / "cube.fits", np.zeros((3, 64, 64)))
    name, message = BAD[case]
    with pytest.raises(InputError, match=message) as error:
        cut(tmp_path / "store", folder / name)
    assert "\n" not in str(error.value)
    assert not list(Store(tmp_path / "store"))
    partial = tmp_path / "store" / ".partial"
    assert not partial.exists() or not [p for p in partial.iterdir() if p.is_dir()]


def test_bad_images_can_be_skipped_by_name(tmp_path):
    write_image(tmp_path / "in" / "good.fits", sky(64, 64))
    (tmp_path / "in" / "text.fits").write_text("not a fits file\n" * 400)
    artifact = cut(tmp_path / "store", tmp_path / "in", on_bad_image="skip")
    assert artifact.counts["kept"] == 9
    entry = artifact.counts["dropped"]["bad image"]
    assert entry["number"] == 1
    assert entry["examples"][0].startswith("text: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, r"overlap=1.0: input should be less than 1"),
        ({"overlap": -0.1}, r"overlap=-0.1: input should be greater than or equal to 0"),
        ({"window_px": 0}, "window_px=0: input should be greater than 0"),
        ({"strategy": "slide"}, "strategy=slide is not known; choose one of: catalog, mask, sliding"),
    ],
)
def test_bad_options(tmp_path, options, message):
    write_image(tmp_path / "in" / "a.fits", sky(64, 64))
    with pytest.raises(ConfigError, match=message):
        cut(tmp_path / "store", tmp_path / "in", **options)


def test_an_unknown_id_and_an_empty_folder(tmp_path):
    with pytest.raises(StoreError, match="no images with the id, prefix or name 'abcdef'"):
        cut(tmp_path / "store", "abcdef")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        cut(tmp_path / "store", tmp_path / "empty")


def test_nothing_left_says_why(tmp_path):
    pixels = sky(64, 64)
    pixels[::16, ::16] = np.nan
    write_image(tmp_path / "in" / "a.fits", pixels)
    with pytest.raises(InputError, match=r"none of 9 windows is left .9 blank.; raise max_nan_frac"):
        cut(tmp_path / "store", tmp_path / "in")


def test_different_units_are_not_mixed(tmp_path):
    write_image(tmp_path / "in" / "a.fits", sky(64, 64))
    write_image(tmp_path / "in" / "b.fits", sky(64, 64), unit="K")
    with pytest.raises(InputError, match="different units"):
        cut(tmp_path / "store", tmp_path / "in")


def test_a_killed_run_goes_on_after_its_finished_images(tmp_path, monkeypatch):
    import skyloom.step.cutouts.pieces as module

    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.fits", sky(64, 64, seed=ord(name)))
    whole = cut(tmp_path / "whole", tmp_path / "in")
    opened = []
    real = module.open_image

    def stop_at_c(path):
        opened.append(path.stem)
        if path.stem == "c" and opened.count("c") == 1:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(module, "open_image", stop_at_c)
    with pytest.raises(KeyboardInterrupt):
        cut(tmp_path / "killed", tmp_path / "in")
    again = cut(tmp_path / "killed", tmp_path / "in")
    assert opened == ["a", "b", "c", "c"]
    for name in again.manifest["files"]:
        assert again.file(name).read_bytes() == whole.file(name).read_bytes()
    assert (again.path / "manifest.json").read_bytes() == (whole.path / "manifest.json").read_bytes()


@pytest.mark.parametrize(("height", "width"), [(150, 201), (160, 160), (32, 33)])
def test_cover_edge_adds_the_last_row_and_column(tmp_path, height, width):
    write_image(tmp_path / "in" / "a.fits", sky(height, width))
    plain = cut(tmp_path / "store", tmp_path / "in").table()
    table = cut(tmp_path / "store", tmp_path / "in", cover_edge=True).table()
    assert (table["row0"].max() + 32, table["col0"].max() + 32) == (height, width)
    assert set(plain["cutout_id"]) <= set(table["cutout_id"])
    places = table.select("row0", "col0").rows()
    assert places == sorted(set(places))
    extra_rows, extra_cols = (height - 32) % 16 != 0, (width - 32) % 16 != 0
    assert len(table) == ((height - 32) // 16 + 1 + extra_rows) * ((width - 32) // 16 + 1 + extra_cols)


def blanked_sky():
    pixels = sky(96, 96)
    pixels[:40, :40] = np.nan
    pixels[80, 80] = np.inf
    return pixels


def test_nan_policies_keep_what_they_say(tmp_path):
    pixels = blanked_sky()
    write_image(tmp_path / "in" / "a.fits", pixels)
    fractions = {
        (r, c): 1 - np.isfinite(pixels[r : r + 32, c : c + 32]).mean()
        for r in range(0, 65, 16)
        for c in range(0, 65, 16)
    }

    def kept(**options):
        return set(cut(tmp_path / "store", tmp_path / "in", **options).table().select("row0", "col0").rows())

    complete = {place for place, fraction in fractions.items() if fraction == 0}
    assert kept() == kept(nan_policy="reject") == complete
    assert kept(nan_policy="max_fraction", max_nan_frac=0.3) == {p for p, f in fractions.items() if f <= 0.3}
    assert kept(nan_policy="fill") == {p for p, f in fractions.items() if f < 1}
    assert kept(nan_policy="fill", max_nan_frac=0.3) == {p for p, f in fractions.items() if f <= 0.3}
    assert kept(nan_policy="max_fraction", max_nan_frac=1.0) == set(fractions)


@pytest.mark.parametrize("value", [0.0, -1.5, "median"])
def test_readers_fill_blanks_as_the_index_says(tmp_path, value):
    pixels = blanked_sky()
    write_image(tmp_path / "in" / "a.fits", pixels)
    artifact = cut(tmp_path / "store", tmp_path / "in", nan_policy="fill", fill_value=value)
    assert artifact.notes["nan_policy"] == "fill"
    assert artifact.notes["fill_value"] == value
    read = CutoutIndex(artifact).read(np.arange(len(artifact.table())))
    for (row, col), window in zip(artifact.table().select("row0", "col0").iter_rows(), read, strict=True):
        raw = pixels[row : row + 32, col : col + 32].astype(np.float32)
        good = np.isfinite(raw)
        np.testing.assert_array_equal(window[good], raw[good])
        np.testing.assert_array_equal(window[~good], np.float32(np.median(raw[good]) if value == "median" else value))


def test_blanks_are_left_alone_without_fill(tmp_path):
    write_image(tmp_path / "in" / "a.fits", blanked_sky())
    artifact = cut(tmp_path / "store", tmp_path / "in", nan_policy="max_fraction", max_nan_frac=0.9)
    assert artifact.notes["fill_value"] is None
    assert np.isnan(CutoutIndex(artifact).read(np.arange(len(artifact.table())))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nan_policy": "reject", "max_nan_frac": 0.2}, "max_nan_frac=0.2 contradicts nan_policy=reject"),
        ({"fill_value": "mean"}, "fill_value"),
        ({"workers": 0}, "workers=0"),
        ({"catalog": "a.csv"}, "catalog=a.csv is not read with strategy=sliding; add strategy=catalog"),
        ({"strategy": "catalog"}, "strategy=catalog needs catalog=FILE"),
        ({"strategy": "mask"}, r"survey 'generic' says of none; give survey.mask_name=FILE"),
        ({"mask.sizes": [{"up_to_px": 9, "windows": [64]}]}, "mask: .*up_to_px must ascend and end with null"),
        ({"mask.sizes": [{"up_to_px": None, "windows": ["x"]}]}, "mask: .*neither a number of pixels .* nor a factor"),
        ({"mask.join_px": -1}, "join_px=-1"),
        ({"sources.size_factor": 0}, "size_factor=0"),
    ],
)
def test_options_that_contradict(tmp_path, options, message):
    write_image(tmp_path / "in" / "a.fits", sky(64, 64))
    with pytest.raises(ConfigError, match=message) as error:
        cut(tmp_path / "store", tmp_path / "in", **options)
    assert "\n" not in str(error.value)


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    for name in "abc":
        write_image(tmp_path / "in" / f"{name}.fits", sky(96, 80, seed=ord(name)))
    (tmp_path / "in" / "text.fits").write_text("not a fits file\n" * 400)
    one = cut(tmp_path / "one", tmp_path / "in", on_bad_image="skip")
    two = cut(tmp_path / "two", tmp_path / "in", on_bad_image="skip", workers=2)
    assert one.id == two.id
    assert one.manifest == two.manifest


@pytest.mark.parametrize(
    ("strategy", "unread", "read"),
    [
        ({"strategy": "sliding"}, {"sources.size_factor": 9.0, "mask.join_px": 3}, {"overlap": 0.25}),
        ({"strategy": "mask", "survey": "lotss"}, {"overlap": 0.25, "window_px": 20}, {"mask.join_px": 3}),
        ({"strategy": "catalog", "catalog": "CSV"}, {"overlap": 0.25, "cover_edge": True}, {"window_px": 20}),
        ({"strategy": "catalog", "catalog": "CSV", "sources.size": "size"}, {"window_px": 20},
         {"sources.size_unit": "px"}),
        ({"strategy": "sliding"}, {"fill_value": 3.0}, {"window_px": 20}),
        ({"strategy": "sliding", "nan_policy": "fill"}, {"workers": 4}, {"fill_value": 3.0}),
    ],
)  # fmt: skip
def test_only_options_that_are_read_enter_the_id(tmp_path, strategy, unread, read):
    write_image(tmp_path / "in" / "mosaics" / "P1" / "mosaic-blanked.fits", sky(64, 64))
    (tmp_path / "positions.csv").write_text("ra,dec,size\n123.0,45.0,9\n")
    given = {key: str(tmp_path / "positions.csv") if value == "CSV" else value for key, value in strategy.items()}

    def id_with(**options):
        return cut(tmp_path / "store", tmp_path / "in", **given, **options, dry_run=True).id

    assert id_with(**unread) == id_with()
    assert id_with(**read) != id_with()


def test_equal_options_on_other_images_never_share_an_artifact(tmp_path):
    for folder, seed in (("one", 1), ("two", 2)):
        write_image(tmp_path / folder / "a.fits", sky(64, 64, seed=seed))
    first, second = (cut(tmp_path / "store", tmp_path / folder) for folder in ("one", "two"))
    assert first.id != second.id
    assert first.table()["rms"].to_list() != second.table()["rms"].to_list()
