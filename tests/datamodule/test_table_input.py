"""A table that is a file or an artifact: opened, identified, joined from tiles."""

import numpy as np
import polars as pl
import pytest

from make.band_cutouts import band_cutouts
from skyloom.datamodule.table_input import open_table_input
from skyloom.errors import InputError, StoreError
from skyloom.store import Store


def test_a_file_is_known_by_its_content(tmp_path):
    store = Store(tmp_path / "store")
    table = pl.DataFrame({"ra": [1.0, 2.0], "dec": [3.0, 4.0]})
    for name in ("a.parquet", "b.parquet"):
        table.write_parquet(tmp_path / name)
    one, other = (open_table_input(tmp_path / name, store, ("catalog",)) for name in ("a.parquet", "b.parquet"))
    assert one.identity() == other.identity()
    assert (one.label, one.word) == ("a.parquet", "a.parquet")
    opened, tile = one.open("detections")
    assert opened.column("dec")[0].tolist() == [3, 4]
    assert tile is None
    with pytest.raises(InputError, match=r"c\.csv: no such file"):
        open_table_input(tmp_path / "c.csv", store, ("catalog",))


def test_tiles_of_an_artifact_are_one_table(tmp_path):
    cutouts = band_cutouts(tmp_path, n=2, bands=3, tiles=2, objects=3, size=16)
    given = open_table_input(cutouts.id, Store(tmp_path), ("cutouts",))
    assert given.identity() == {"kind": "cutouts", "id": cutouts.id}
    for role, id in (("truth", "object_id"), ("detections", "detection_id")):
        table, tile = given.open(role)
        parts = [pl.read_parquet(path) for path in sorted((cutouts.path / role).glob("*.parquet"))]
        assert table.column(id)[0].tolist() == pl.concat(parts)[id].to_list()
        assert tile is not None
        assert np.unique(tile, return_counts=True)[1].tolist() == [6, 6]
    with pytest.raises(StoreError):
        open_table_input(cutouts.id, Store(tmp_path), ("catalog",))
