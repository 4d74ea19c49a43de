"""report=detections: known catalogues give known numbers, and bad input one line that says what to do."""

import json
import re

import numpy as np
import polars as pl
import pytest

import skyloom
from make.band_cutouts import band_cutouts
from make.catalogs import ISOLATED, PAIRS, threshold_sweep, write_catalogs
from skyloom.errors import ConfigError, InputError

POOR = {"class": "kind", "classes": {"galaxy": [0], "star": [1]}}
QUICK = {"dpi": 50, "bootstrap": 40, "linking": [0.5], "examples": 2}


def report(known, store, **options):
    catalogs = {"good": known.good, "poor": known.poor}
    given = {"truth": known.truth, "catalogs": catalogs, "columns": {"poor": POOR}, **QUICK, **options}
    return skyloom.analyze("detections", store=store, **given)


def numbers_of(made):
    return json.loads(made.file("numbers.json").read_text())


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return write_catalogs(tmp_path_factory.mktemp("catalogs"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def done(known, store, tmp_path_factory):
    sweep = threshold_sweep(tmp_path_factory.mktemp("sweep") / "sweep.parquet")
    return report(known, store, limits=["gold", 24], sweep=sweep, constraints={"purity": 0.75})


@pytest.mark.parametrize("name", ["good", "poor"])
def test_scores_and_flags_are_those_put_in(known, done, name):
    entry, own = numbers_of(done)["catalogs"][name], known.numbers[name]
    scores, rates = entry["scores"]["all"], entry["blends"]["all"]
    found = known.truths - own["missed"] - own["unrecognised"]
    assert (scores["truths"], scores["found"]) == (ISOLATED + 2 * PAIRS, found)
    assert scores["false"] == own["shreds"] + own["spurious"]
    assert scores["completeness"] == pytest.approx(found / known.truths)
    assert scores["purity"] == pytest.approx(found / scores["detections"])
    parts = {key: rates[key]["part"] for key in rates if "part" in rates[key]}
    assert parts["missed_frac"] == own["missed"]
    assert parts["blend_loss_frac"] == own["unrecognised"]
    assert parts["unrec_blend_frac_total"] == 2 * own["unrecognised"]
    assert rates["unrec_blend_frac_blended"]["value"] == pytest.approx(own["unrecognised"] / PAIRS)
    assert parts["unrec_blend_frac_matched"] == own["unrecognised"]
    assert parts["resolved_frac"] == 2 * (PAIRS - own["unrecognised"])
    assert parts["shred_frac"] == parts["shred_det_frac"] == own["shreds"]
    assert parts["spurious_frac"] == own["spurious"]
    assert rates["f1"]["bootstrap_low"] < rates["f1"]["value"] < rates["f1"]["bootstrap_high"]
    labels = entry["labels"]["0.5"]
    assert labels["unrec_blend"] == own["unrecognised"]
    assert labels["candidate_res_blend"] == PAIRS - own["unrecognised"]
    assert labels["shredded"] == own["shreds"]
    assert entry["unrecognised"]["groups 0.5"]["part"] == own["unrecognised"]
    assert entry["unrecognised"]["graph"]["part"] == 2 * own["unrecognised"]


def test_both_sides_are_cut_at_each_limit(done):
    numbers = numbers_of(done)
    assert numbers["limits_mag"] == {"all": None, "gold": 25.3, "24": 24.0}
    scores = numbers["catalogs"]["good"]["scores"]
    assert scores["24"]["truths"] < scores["gold"]["truths"] < scores["all"]["truths"]
    assert scores["all"]["not_judged"] == 0
    assert scores["24"]["not_judged"] > scores["gold"]["not_judged"] > 0
    assert scores["24"]["purity"] > 0.9


def test_classes_and_residuals_know_both_encodings(done):
    for name in ("good", "poor"):
        entry = numbers_of(done)["catalogs"][name]
        assert entry["classes"]["all"]["accuracy"] == 1
        assert entry["classes"]["all"]["pairs"] == entry["matches"]
        assert entry["residuals"]["east_arcsec"]["median"] == pytest.approx(0.05, abs=1e-6)
        assert entry["residuals"]["north_arcsec"]["median"] == pytest.approx(0, abs=1e-6)
        assert entry["residuals"]["mag"]["median"] == pytest.approx(0.1)


def test_tables_lie_beside_the_page(done, known):
    matches = done.table("matches_good.parquet")
    own = known.numbers["good"]
    assert len(matches) == known.truths - own["missed"] - own["unrecognised"]
    assert matches["truth_id"].is_unique().all()
    flags = done.table("flags_truth_good.parquet")
    assert flags["is_missed"].sum() == own["missed"]
    joined = flags.filter("is_matched").join(matches, left_on="id", right_on="truth_id")
    assert (joined["matched_id"] == joined["detected_id"]).all()
    assert done.table("flags_detected_poor.parquet")["is_spurious"].sum() == known.numbers["poor"]["spurious"]
    assert set(done.table("scores.parquet")["limit"]) == {"all", "gold", "24"}
    bins = done.table("bins.parquet").filter(catalog="good", limit="all", quantity="mag")
    assert bins["truths"].sum() == known.truths
    assert set(done.table("bins.parquet")["quantity"]) == {"mag", "snr", "class", "separation"}


def test_the_page_holds_the_pictures_and_a_command_that_composes(done):
    page = done.file("report.html").read_text()
    pictures = {name for name in done.manifest["files"] if name.endswith(".png")}
    assert pictures >= {"scores_mag.png", "groups.png", "unrecognised.png", "residuals.png", "classes.png", "sweep.png"}
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "/tmp" not in page
    import html
    import shlex

    line = html.unescape(re.search(r"python analyze\.py report=detections [^<]*", page).group())
    config = skyloom.run.notebook.compose("analyze", shlex.split(line)[2:])
    assert dict(config.catalogs) == {"good": "good.parquet", "poor": "poor.csv"}
    assert config.columns.poor["class"] == "kind"


def test_the_sweep_is_ranked_under_its_constraint(done):
    sweep = numbers_of(done)["sweep"]
    assert (sweep["points"], sweep["allowed"]) == (9, 6)
    assert sweep["purity"] >= 0.75
    assert sweep["nms"] == 0.5


def test_nearest_counts_a_truth_once_and_has_no_flags(known, store):
    made = report(known, store, method="nearest", catalogs={"good": known.good}, columns=None)
    entry = numbers_of(made)["catalogs"]["good"]
    own = known.numbers["good"]
    assert entry["blends"] == {}
    assert entry["scores"]["all"]["false"] == own["spurious"]  # a shred goes to its truth, too
    assert "is_missed" not in made.table("flags_truth_good.parquet").columns
    assert "not one-to-one" in made.file("report.html").read_text()


def test_a_mixed_cost_needs_magnitudes(known, store):
    one = {"catalogs": {"good": known.good}, "columns": None}
    assert numbers_of(report(known, store, cost="mixed", **one))["catalogs"]["good"]["matches"] > 0
    with pytest.raises(ConfigError, match=r"cost=mixed needs magnitudes, and poor has none"):
        report(known, store, cost="mixed", columns={"poor": {**POOR, "mag": False}})


def test_images_show_blends_and_cutouts_give_tables(store):
    cutouts = band_cutouts(store, n=3, bands=3, size=40, objects=12)
    made = skyloom.analyze(
        "detections", truth=cutouts, catalogs={"same": cutouts}, images=cutouts, store=store, **QUICK,
        radius_arcsec=0.3, example_size_arcsec=1.0, columns={"same": {"class": "extendedness"}},
    )  # fmt: skip
    scores = numbers_of(made)["catalogs"]["same"]["scores"]["all"]
    assert scores["completeness"] == scores["purity"] == 1
    assert "blends_same.png" in made.manifest["files"]
    assert made.manifest["inputs"]["truth"] == {"kind": "cutouts", "id": cutouts.id}


def test_empty_sides_are_reported(known, store, tmp_path):
    empty = tmp_path / "empty.parquet"
    pl.read_parquet(known.truth).clear().write_parquet(empty)
    csv = tmp_path / "empty.csv"
    csv.write_text("ra,dec,mag\n")
    scores = numbers_of(report(known, store, catalogs={"none": csv}, columns=None))["catalogs"]["none"]["scores"]["all"]
    assert (scores["completeness"], scores["purity"]) == (0, None)
    entry = numbers_of(report(known, store, truth=empty))["catalogs"]["good"]
    assert entry["scores"]["all"]["completeness"] is None
    assert entry["scores"]["all"]["purity"] == 0
    assert entry["labels"]["0.5"] == {"spurious_false_pos": entry["scores"]["all"]["detections"] - 18}
    both = numbers_of(report(known, store, truth=empty, catalogs={"none": csv}, columns=None))["catalogs"]["none"]
    assert both["scores"]["all"]["f1"] is None


def test_radius_0_matches_coincident_positions_only(known, store):
    own = numbers_of(report(known, store, catalogs={"self": known.truth}, columns=None, radius_arcsec=0))
    assert own["catalogs"]["self"]["scores"]["all"]["purity"] == 1
    assert own["catalogs"]["self"]["blends"]["all"]["resolved_frac"]["whole"] == 0


def test_bad_positions_are_refused_or_counted(known, store, tmp_path):
    table = pl.read_parquet(known.good)
    bad = table.with_columns(coord_ra=pl.when(pl.col("objectId") < 2).then(np.nan).otherwise("coord_ra"))
    bad.write_parquet(tmp_path / "bad.parquet")
    given = {"catalogs": {"bad": tmp_path / "bad.parquet"}, "columns": None}
    with pytest.raises(InputError, match=r"bad .*2 of \d+ rows have no valid position, the first is row 0.*=skip"):
        report(known, store, **given)
    made = report(known, store, on_bad_position="skip", **given)
    assert made.counts["dropped"]["bad: no_position"]["number"] == 2
    assert numbers_of(made)["catalogs"]["bad"]["counts"]["kept"] == len(table) - 2


def test_bad_tables_are_named(known, store, tmp_path):
    table = pl.read_parquet(known.good)
    twice = tmp_path / "twice.parquet"
    table.with_columns(objectId=pl.col("objectId").clip(3)).write_parquet(twice)
    with pytest.raises(InputError, match=r"twice .*: the id 3 stands 4 times"):
        report(known, store, catalogs={"twice": twice}, columns=None)
    bare = tmp_path / "bare.parquet"
    table.drop("mag_i").write_parquet(bare)
    with pytest.raises(InputError, match=r"bare .* has no magnitude column of a usual name .*mag: false"):
        report(known, store, catalogs={"bare": bare}, columns=None)
    with pytest.raises(InputError, match=r"columns\.bare\.mag=mag_r is not a column"):
        report(known, store, catalogs={"bare": bare}, columns={"bare": {"mag": "mag_r"}})
    with pytest.raises(ConfigError, match="limits cut both sides by magnitude, and bare has none"):
        report(known, store, catalogs={"bare": bare}, columns={"bare": {"mag": False}}, limits=[24])
    assert report(known, store, catalogs={"bare": bare}, columns={"bare": {"mag": False}})
    with pytest.raises(InputError, match="the numbers of column 'kind' may mean anything"):
        report(known, store, columns={"poor": {"class": "kind"}})
    with pytest.raises(ConfigError, match="columns: other is neither truth nor one of good, poor"):
        report(known, store, columns={"other": {}})
    with pytest.raises(ConfigError, match="the name 'truth' cannot be used"):
        report(known, store, catalogs={"truth": known.good})
    with pytest.raises(InputError, match="no such file"):
        report(known, store, catalogs={"gone": tmp_path / "gone.csv"})
