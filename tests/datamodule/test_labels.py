"""open_labels: classes, targets and groups from the table, and a plain word where there is none."""

import polars as pl
import pytest

from make.labelled import first_zip
from make.windows import grid, index
from skyloom import curate
from skyloom.datamodule.labels import COLUMNS, open_labels
from skyloom.errors import InputError
from skyloom.store import builds, of_kind


@pytest.fixture
def sky(tmp_path):
    return index(tmp_path / "store", grid(1024, 256, 256), length_px=1024)


def labels_of(sky, **columns):
    """A labels artifact; columns override those of three good rows."""
    good = {
        "cutout_id": sky.table()["cutout_id"].gather([7, 0, 3]).to_list(), "label": [["b"], ["a"], ["b"]],
        "split": ["test", None, "train"], "fold": [None, None, None], "group": [5, 5, 6],
    }  # fmt: skip
    table = pl.DataFrame(good | columns, schema=COLUMNS, strict=False)

    @builds("labels", version=1, inputs={"cutouts": of_kind("cutouts")})
    def labelled(build, *, cutouts, digest: str):
        with build.write("labels.parquet") as path:
            table.write_parquet(path)

    return labelled(cutouts=sky, digest=str(table.rows()), store=sky.path.parents[1])


def test_rows_keep_their_order(sky):
    labels = open_labels(labels_of(sky))
    assert labels.cutout_id.tolist() == sky.table()["cutout_id"].gather([7, 0, 3]).to_list()
    assert labels.classes == ["a", "b"]
    assert labels.targets.tolist() == [[False, True], [True, False], [False, True]]
    assert labels.label.tolist() == [1, 0, 1]
    assert labels.split.tolist() == ["test", None, "train"]
    assert labels.fold is None
    assert labels.group.tolist() == [5, 5, 6]
    assert labels.cutouts.id == sky.id
    assert not labels.multi_label
    assert len(labels) == 3


def test_several_or_no_labels_make_it_multi_label(sky):
    labels = open_labels(labels_of(sky, label=[["b", "a"], [], ["b"]], fold=[2, None, 0]))
    assert labels.multi_label
    assert labels.targets.tolist() == [[True, True], [False, False], [False, True]]
    assert labels.fold.tolist() == [2, -1, 0]
    with pytest.raises(InputError, match="use targets"):
        _ = labels.label


def test_labelled_cutouts_are_their_own_cutouts(tmp_path):
    made = curate("labelled", format="radio_galaxy_dataset", files=first_zip(tmp_path / "z.zip"), store=tmp_path / "s")
    labels = open_labels(made)
    assert labels.cutouts.id == made.id
    assert labels.cutout_id.tolist() == made.table()["cutout_id"].to_list()


def test_what_holds_no_labels_is_refused(sky):
    with pytest.raises(InputError, match="hold no labels; expected cutouts made by step=labelled"):
        open_labels(sky)


@pytest.mark.parametrize(
    "columns", [{"cutout_id": [1, 1, 2]}, {"label": [["a"], None, ["b"]]}, {"group": [1, None, 2]}]
)
def test_a_broken_table_is_refused(sky, columns):
    with pytest.raises(InputError, match=r"labels.parquet: expected .* make it again"):
        open_labels(labels_of(sky, **columns))
