import base64
import json
import math
import re
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

import skyloom
from make.curated import fake_model, write_selection
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.report import curated
from skyloom.report.selection.numbers import sky_coverage
from skyloom.report.selection.report import selection
from skyloom.report.selection.sections import training_section
from skyloom.store import Artifact

METRICS = "epoch,step,train/loss,train/collapse_std\n0,0,4.0,0.01\n0,1,,0.1\n1,2,1.5,\n"


def report(made: Artifact, root: Path, **options) -> Artifact:
    given = {"model": None, "thumbnails": 4, "dpi": 50, "seed": 0, "image_roots": None, **options}
    return selection(selection=made, store=root, **given)


def numbers_of(artifact: Artifact) -> dict:
    return json.loads(artifact.file("numbers.json").read_text())


def page_of(artifact: Artifact) -> str:
    return artifact.file("report.html").read_text()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def made(root) -> Artifact:
    return write_selection(root)


@pytest.fixture(scope="module")
def plain(made, root) -> Artifact:
    return report(made, root)


def entropy(*counts: int) -> float:
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c)


def test_numbers_are_those_computed_by_hand(plain):
    numbers = numbers_of(plain)
    fine, coarse = numbers["levels"]
    assert (numbers["cutouts"], numbers["selected"], numbers["duplicates"]) == (20, 6, 0)
    assert numbers["selected_fraction"] == 0.3
    # Clusters of 14, 3, 3 and 0 images, of which 2, 2, 2 and 0 are taken.
    assert fine["clusters"] == 4
    assert fine["all"]["coverage"] == fine["selection"]["coverage"] == 0.75
    assert fine["all"]["normalised_entropy"] == pytest.approx(entropy(14, 3, 3) / math.log(4), abs=1e-6)
    assert fine["selection"]["normalised_entropy"] == pytest.approx(math.log(3) / math.log(4), abs=1e-6)
    assert fine["all"]["gini"] == pytest.approx((3 * 14 + 3 - 3) / 20 / 4, abs=1e-6)
    assert fine["selection"]["gini"] == pytest.approx(0.25, abs=1e-6)
    # Above them 17 and 3 images, of which 4 and 2 are taken.
    assert coarse["clusters"] == 2
    assert coarse["all"]["normalised_entropy"] == pytest.approx(entropy(17, 3) / math.log(2), abs=1e-6)
    assert coarse["selection"]["normalised_entropy"] == pytest.approx(entropy(4, 2) / math.log(2), abs=1e-6)
    assert coarse["selection"]["gini"] == pytest.approx((4 - 2) / 6 / 2, abs=1e-6)
    # Peak S/N of cutout i is i + 1.
    assert numbers["peak_snr"]["all"]["median"] == 10.5
    assert numbers["peak_snr"]["selection"]["median"] == 15.5


def test_the_baseline_alone_depends_on_the_seed(made, root, plain):
    levels = [numbers_of(plain)["levels"][0], numbers_of(report(made, root, seed=3, thumbnails=0))["levels"][0]]
    assert levels[0]["random"] != levels[1]["random"]
    assert levels[0]["selection"] == levels[1]["selection"]


def test_a_selection_of_everything_covers_everything_and_equals_the_baseline(root):
    everything = write_selection(
        root, assignments=[[0] * 14 + [1] * 3 + [2] * 3, [0, 0, 1]], clusters=[3, 2], rows=list(range(20))
    )
    numbers = numbers_of(report(everything, root))
    for level in numbers["levels"]:
        assert level["selection"]["coverage"] == 1
        assert level["selection"] == level["all"] == level["random"]
    assert numbers["selected_fraction"] == 1


def test_repeats_are_counted(root):
    numbers = numbers_of(report(write_selection(root, rows=[0, 0, 0, 14]), root, thumbnails=0))
    assert (numbers["selected"], numbers["duplicates"], numbers["selected_fraction"]) == (4, 2, 0.1)


def test_one_cluster_and_one_image_are_enough(root):
    made = write_selection(root, assignments=[[0] * 20], clusters=[1], rows=[3], dimensions=1)
    assert numbers_of(report(made, root))["levels"][0]["selection"]["coverage"] == 1


def test_the_page_embeds_the_pictures_that_lie_beside_it(plain):
    page = page_of(plain)
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" data-file="([^"]+)"', page)
    assert {name for _, name in pictures} == {
        "occupancy.png", "thumbnails.png", "features.png", "sky.png", "peak_snr.png",
    }  # fmt: skip
    for text, name in pictures:
        assert base64.b64decode(text) == plain.file(name).read_bytes()
    assert page.count("<img") == len(pictures)


def test_the_page_tells_ids_meanings_and_command_and_nothing_of_this_machine(plain, made, root):
    page = page_of(plain)
    lineage = [plain, made]
    while lineage[-1].inputs:
        lineage.extend(lineage[-1].inputs.values())
    assert {artifact.kind for artifact in lineage} >= {"clusters", "features", "cutouts", "images"}
    assert all(artifact.id in page for artifact in lineage)
    for word in ("Coverage", "Evenness", "Gini", "Duplicates", "Random"):
        assert f"<b>{word}.</b>" in page
    assert f"python analyze.py report=selection selection={made.id} thumbnails=4 dpi=50 seed=0" in page
    assert "dropped 3 (blank window)" in page
    assert str(root) not in page
    assert not re.findall(r'(?:src|href)="(?!data:)|url\(|@import|https?://', page)


def test_the_same_request_gives_the_same_bytes_in_another_store(tmp_path, plain):
    other = report(write_selection(tmp_path), tmp_path)
    assert other.id == plain.id
    assert other.manifest["files"] == plain.manifest["files"]


def test_without_sky_positions_the_page_says_so(root):
    flat = report(write_selection(root, sky=False), root, thumbnails=0)
    assert "None of the cutouts has a sky position" in page_of(flat)
    assert "sky.png" not in flat.manifest["files"]
    assert numbers_of(flat)["with_sky_position"] == 0


def test_positions_all_over_the_sky_are_drawn(root):
    wide = report(write_selection(root, spread_deg=300.0, cutouts=10, assignments=[[0] * 10], clusters=[1], rows=[1]),
                  root, thumbnails=0)  # fmt: skip
    assert wide.file("sky.png").stat().st_size > 1000


def test_without_thumbnails_no_image_is_read_and_with_them_a_lost_image_is_named(tmp_path):
    made = write_selection(tmp_path)
    (mosaic,) = tmp_path.glob("images/*/mosaic.npy")
    mosaic.rename(tmp_path / "elsewhere.npy")
    assert "thumbnails.png" not in report(made, tmp_path, thumbnails=0).manifest["files"]
    with pytest.raises(InputError, match=r"image mosaic .* is no longer at"):
        report(made, tmp_path)


def test_a_model_shows_its_training_curve(made, root):
    cutouts = made.inputs["clusters"].inputs["features"].inputs["cutouts"]
    model = fake_model(
        data={"cutouts": cutouts, "selection": made}, metrics=METRICS, task={"projection_dim": 64}, store=root
    )
    page = page_of(report(made, root, model=model, thumbnails=0))
    assert 'data-file="training.png"' in page
    assert f"The model {model.id} was trained on this selection." in page
    assert f"model={model.id}" in page


@pytest.mark.parametrize(("metrics", "words"), [(None, "has no metrics.csv"), ("epoch,step\n0,1\n", "holds no loss")])
def test_a_model_without_a_curve_or_of_other_data_is_said_to_be_so(made, root, metrics, words):
    cutouts = made.inputs["clusters"].inputs["features"].inputs["cutouts"]
    model = fake_model(data={"cutouts": cutouts, "selection": None}, metrics=metrics, task={}, store=root)
    section = training_section(model, made, dpi=50)
    assert "was not trained on this selection" in section.text[0]
    assert words in section.text[1]
    assert not section.plots


def test_wrong_inputs_are_refused_in_one_line(made, root):
    with pytest.raises(StoreError, match="is of kind clusters; expected selection"):
        report(made.inputs["clusters"], root)
    with pytest.raises(ConfigError, match="dpi"):
        report(made, root, dpi=10)


def test_parts_that_do_not_fit_together_are_refused(tmp_path):
    made = write_selection(tmp_path)
    ids = made.inputs["clusters"].file("cutout_id.npy")
    ids.chmod(0o644)
    np.save(ids, np.load(ids)[::-1])
    with pytest.raises(InputError, match=r"features.h5 has 20 rows, not the 20 of clusters"):
        report(made, tmp_path)


def test_a_selection_with_foreign_ids_is_refused(tmp_path):
    made = write_selection(tmp_path)
    path = made.file("selection.parquet")
    path.chmod(0o644)
    pl.read_parquet(path).with_columns(pl.col("cutout_id") + 1).write_parquet(path)
    with pytest.raises(InputError, match="other cutout ids than clusters"):
        report(made, tmp_path)


def test_features_are_read_in_blocks_in_the_order_asked_for(made, monkeypatch):
    data = curated.open_curated(made)
    whole = data.read_features(np.arange(20))
    monkeypatch.setattr(curated, "BLOCK_ROWS", 3)
    asked = np.array([19, 0, 7, 7, 2])
    np.testing.assert_array_equal(data.read_features(asked), whole[asked])


def test_image_folders_do_not_change_the_id(made, root, plain):
    assert report(made, root, image_roots=str(root)).id == plain.id


def test_the_verb_finds_it_with_the_defaults_of_its_file(made, root):
    planned = skyloom.analyze("selection", selection=made, dry_run=True, **{"paths.store": str(root)})
    assert planned.request.kind == "report"
    assert planned.request.parameters == {"thumbnails": 48, "dpi": 120, "seed": 0}


def test_sky_coverage_counts_cells_that_hold_cutouts(plain):
    ra, dec = np.array([10.0, 10.0, 50.0, 120.0, np.nan]), np.array([0.0, 0.0, 20.0, -40.0, 3.0])
    sets = {"all": np.arange(5), "selection": np.array([0, 1, 4]), "none": np.array([4])}
    found = sky_coverage(ra, dec, sets)
    assert found["cells"] == 3
    assert found["coverage"] == {"all": 1.0, "selection": round(1 / 3, 6), "none": 0.0}
    assert sky_coverage(ra * np.nan, dec, sets)["coverage"]["all"] is None
    numbers = numbers_of(plain)
    assert numbers["sky"]["coverage"]["all"] == 1
    assert numbers["levels"][0]["selection"]["entropy"] == pytest.approx(math.log(3), abs=1e-6)
    assert "sky cells (HEALPix order 6)" in page_of(plain)


def test_a_selection_of_a_part_of_the_features_is_reported(root):
    made = write_selection(root, cutouts=23, assignments=[[0] * 12 + [1] * 11], clusters=[2], rows=[1, 5, 20])
    features = made.inputs["clusters"].inputs["features"]
    levels = [{"clusters": 2, "sample_size": 1, "resamples": 0}]
    part = skyloom.curate("cluster", features=features, selection=made, levels=levels, store=root)
    again = skyloom.curate("subsample", clusters=part, target_size=2, store=root)
    data = curated.open_curated(again)
    rows = again.table()["row"].to_numpy()
    with h5py.File(features.file("features.h5")) as file:
        np.testing.assert_array_equal(data.read_features(data.selected), file["features"][:][rows])
    assert numbers_of(report(again, root, thumbnails=0))["cutouts"] == 3
