"""What several catalogues are judged on: the sky that all of them looked at, and each of its objects once."""

import json

import numpy as np
import polars as pl
import pytest

import skyloom
from make.found_catalogs import found_catalog, found_images, true_rows
from make.joint_data import joint_data
from skyloom.errors import InputError
from skyloom.store import Store, builds

QUICK = {"dpi": 50, "bootstrap": 0, "linking": [0.5], "examples": 0}
COLUMNS = {"truth": {"mag": "mag_i"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return joint_data(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def cutouts(data):
    return data.dataset.table("images.parquet")["cutout_id"].to_list()


def perfect(data, cutouts):
    """A catalogue that finds everything in some of the images, at its true place."""
    annotations = data.dataset.table("annotations.parquet")
    rows = true_rows(data.dataset).with_columns(annotations.select("ra_deg", "dec_deg").get_columns())
    rows = rows.drop("class").filter(pl.col("cutout_id").is_in(cutouts))
    rows = rows.unique(["ra_deg", "dec_deg"], maintain_order=True)
    return found_catalog(data.store, rows.with_row_index("id"), found_images(data.dataset, cutouts))


def report(data, catalogs, **options):
    given = {"truth": data.dataset, "catalogs": catalogs, **QUICK, **options}
    made = skyloom.analyze("detections", columns=COLUMNS, store=data.store.root, **given)
    return made, json.loads(made.file("numbers.json").read_text())


def test_a_catalogue_of_one_part_is_not_asked_for_the_rest(data, cutouts):
    made, numbers = report(data, {"ours": perfect(data, cutouts[:2])})
    scores = numbers["catalogs"]["ours"]["scores"]["all"]
    assert scores["completeness"] == scores["purity"] == 1
    assert 0 < scores["truths"] < numbers["truth"]["read"]
    lost = numbers["truth"]["outside_images"]
    assert lost == numbers["truth"]["read"] - numbers["truth"].get("repeated", 0) - scores["truths"] > 0
    assert made.counts["dropped"]["truth: outside_images"]["number"] == lost
    every, whole = report(data, {"ours": perfect(data, cutouts[:2])}, common_area=False)
    assert whole["catalogs"]["ours"]["scores"]["all"]["completeness"] < 1
    assert every.id != made.id


def test_two_catalogues_are_judged_where_both_looked(data, cutouts):
    _, numbers = report(data, {"a": perfect(data, cutouts[:3]), "b": perfect(data, cutouts[1:])})
    one, other = (numbers["catalogs"][name]["scores"]["all"] for name in "ab")
    assert one == other
    assert one["completeness"] == one["purity"] == 1
    assert numbers["catalogs"]["a"]["counts"]["outside_images"] > 0


def test_a_truth_of_another_sky_is_named(data, cutouts, tmp_path):
    away = pl.DataFrame({"ra": [10.0], "dec": [10.0], "mag_i": [20.0]})
    away.write_parquet(tmp_path / "away.parquet")
    with pytest.raises(InputError, match=r"none of 1 true objects lies in the images .*common_area=false"):
        report(data, {"ours": perfect(data, cutouts)}, truth=tmp_path / "away.parquet")


def test_without_searched_images_the_option_is_no_part_of_the_id(tmp_path):
    table = pl.DataFrame({"ra": [10.0], "dec": [10.0], "mag_i": [20.0]})
    table.write_parquet(tmp_path / "a.parquet")
    ids = {
        skyloom.analyze(
            "detections", truth=tmp_path / "a.parquet", catalogs={"same": tmp_path / "a.parquet"}, common_area=area,
            store=tmp_path, **QUICK,
        ).id
        for area in (True, False)
    }  # fmt: skip
    assert len(ids) == 1


def test_an_object_in_two_images_of_a_data_set_is_one_truth(data, cutouts):
    """Constant shapes of neighbouring cutouts overlap; an object there is annotated in both."""

    @builds("dataset", version=1)
    def dataset(build, *, digest: str):
        annotations = data.dataset.table("annotations.parquet")
        twice = pl.concat([annotations, annotations.head(3).with_columns(cutout_id=pl.lit(cutouts[-1]))])
        for name, table in (("annotations", twice), ("images", data.dataset.table("images.parquet"))):
            with build.write(f"{name}.parquet") as path:
                table.write_parquet(path)
        build.table = "images.parquet"

    doubled = dataset(digest="a", store=Store(data.store.root))
    _, numbers = report(data, {"ours": perfect(data, cutouts)}, truth=doubled)
    assert numbers["truth"]["repeated"] == 3
    assert numbers["catalogs"]["ours"]["scores"]["all"]["completeness"] == 1
    assert np.isclose(numbers["catalogs"]["ours"]["masks"]["all"]["median"], 1)
