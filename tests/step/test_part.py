"""step=part: exactly the cutouts of one part, as a selection that other steps take."""

import numpy as np
import pytest

import skyloom
from make.artifacts import features_artifact
from make.probes import make_labelled
from make.windows import grid, index
from skyloom.datamodule.cutouts import CutoutsDataModule
from skyloom.errors import ConfigError, InputError, StoreError


@pytest.fixture
def split(tmp_path):
    cutouts = index(tmp_path, grid(1000, 100, 50, scale_arcsec=6.0), scale_arcsec=6.0)
    fractions = {"train": 0.5, "val": 0.3, "test": 0.2}
    return skyloom.curate("split", cutouts=cutouts.id, level=7, fractions=fractions, seed=4, store=tmp_path)


def take(split, part, **options):
    return skyloom.curate("part", split=split.id, part=part, **options, store=split.path.parents[1])


def test_parts_are_disjoint_and_together_the_split(split):
    rows = split.table("split.parquet")
    found = []
    for name in ("train", "val", "test"):
        part = take(split, name)
        assert part.kind == "selection"
        table = part.table()
        assert set(table["cutout_id"]) == set(rows.filter(rows["split"] == name)["cutout_id"])
        assert table["row"].is_sorted()
        index_ids = split.inputs["cutouts"].table()["cutout_id"].to_numpy()
        assert index_ids[table["row"].to_numpy()].tolist() == table["cutout_id"].to_list()
        assert part.counts["kept"] == split.notes["parts"][name]
        found += table["cutout_id"].to_list()
    assert sorted(found) == sorted(rows["cutout_id"])


def test_a_selection_is_cut_down_to_a_part(split, tmp_path):
    ids = np.sort(split.inputs["cutouts"].table()["cutout_id"].to_numpy())[:200]
    x = np.random.default_rng(0).normal(size=(200, 4))
    features = features_artifact(tmp_path, x, ids)
    chosen = skyloom.curate("neardup", features=features, own_clusters=2, eps=0.01, store=tmp_path)
    part = take(split, "train", selection=chosen.id)
    table = part.table()
    train = set(take(split, "train").table()["cutout_id"])
    expected = chosen.table().filter(chosen.table()["cutout_id"].is_in(list(train)))
    assert 0 < len(table) < len(chosen.table())
    assert table.equals(expected)


def test_a_datamodule_takes_a_part_but_not_the_whole_split(split):
    cutouts = split.inputs["cutouts"]
    options = {"batch_size": 2, "workers": 0}
    part = take(split, "val")
    data = CutoutsDataModule.from_artifacts({"cutouts": cutouts, "selection": part}, options, 0)
    assert len(data.dataset) == part.counts["kept"]
    with pytest.raises((StoreError, ConfigError), match="split"):
        CutoutsDataModule.from_artifacts({"cutouts": cutouts, "selection": split}, options, 0)


def test_unknown_parts_and_foreign_selections(split, tmp_path):
    with pytest.raises(ConfigError, match=r"part=tain .* train, val.*Did you mean 'train'"):
        take(split, "tain")
    features = features_artifact(tmp_path, np.random.default_rng(0).normal(size=(20, 4)))
    foreign = skyloom.curate("neardup", features=features, own_clusters=2, eps=0.01, store=tmp_path)
    with pytest.raises(InputError, match=f"20 cutouts of selection {foreign.id} are not in split"):
        take(split, "train", selection=foreign.id)


def test_the_official_part_of_labelled_cutouts(tmp_path):
    labelled = make_labelled(tmp_path, ["a", "b", "a", "b", "a"], split=["train", "test", "train", None, "val"])
    ids = labelled.table("labels.parquet")["cutout_id"]
    assert take(labelled, "train").table()["cutout_id"].to_list() == [ids[0], ids[2]]
    with pytest.raises(ConfigError, match="part=valid"):
        take(labelled, "valid")
    with pytest.raises(InputError, match="hold no labels"):
        take(index(tmp_path, grid(300, 100, 100)), "train")
