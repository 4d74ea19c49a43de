"""Rows of survey-wide tables near cutouts: none lost anywhere on the sky, the same whatever parts and format."""

import numpy as np
import polars as pl
import pytest
from astropy.table import Table

from skyloom.sky.geometry.sphere import angle_arcsec, unit_vectors
from skyloom.step.cutouts.footprints import regions as footprint_regions
from skyloom.step.cutouts.footprints.regions import PartTask, Regions, row_parts, select_part
from skyloom.step.cutouts.footprints.tables import rows_of_tile

RADIUS_ARCSEC = 22.0


@pytest.mark.parametrize("place", [(0.0, 12.0), (45.0, 89.999), (200.0, -89.995), (45.0, 41.81)])
def test_all_that_is_near_a_centre_is_selected_and_little_else(tmp_path, place):
    rng = np.random.default_rng(1)
    spread = 300 / 3600
    dec = np.clip(place[1] + rng.uniform(-spread, spread, 3000), -90, 90)
    ra = (place[0] + rng.uniform(-spread, spread, 3000) / max(np.cos(np.radians(place[1])), 1e-3)) % 360
    centres = np.arange(0, 3000, 500)
    tile = np.arange(6) % 2
    regions = Regions.around(ra[centres], dec[centres], tile, RADIUS_ARCSEC)
    path = tmp_path / "table.parquet"
    pl.DataFrame({"ra": ra, "dec": dec}).write_parquet(path)
    select_part(tmp_path / "near.parquet", PartTask(path, 0, 3000, "ra", "dec", regions))
    near = angle_arcsec(
        np.linalg.norm(unit_vectors(ra, dec)[:, None] - unit_vectors(ra[centres], dec[centres])[None], axis=2)
    )
    for one in (0, 1):
        rows = rows_of_tile([tmp_path / "near.parquet"], one)
        found = set(rows[footprint_regions.ROW].to_list())
        apart = near[:, tile == one].min(axis=1)
        assert set(np.flatnonzero(apart <= RADIUS_ARCSEC).tolist()) <= found
        assert all(apart[row] < 12 * RADIUS_ARCSEC for row in found)


def test_parts_of_a_table_and_its_format_change_nothing(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    table = {"id": np.arange(500), "ra": rng.uniform(9.9, 10.1, 500), "dec": rng.uniform(-0.1, 0.1, 500)}
    table["ra"][7] = np.nan
    pl.DataFrame(table).write_parquet(tmp_path / "t.parquet", row_group_size=64)
    Table(table).write(tmp_path / "t.fits")
    regions = Regions.around(np.array([10.0, 10.05]), np.array([0.0, 0.01]), np.array([0, 1]), RADIUS_ARCSEC)

    def selected(name):
        pieces = []
        for first, rows in row_parts(tmp_path / name):
            pieces.append(tmp_path / f"{name}-{first}-{rows}.parquet")
            select_part(pieces[-1], PartTask(tmp_path / name, first, rows, "ra", "dec", regions))
        return len(pieces), [rows_of_tile(pieces, tile) for tile in (0, 1)]

    one, whole = selected("t.parquet")
    monkeypatch.setattr(footprint_regions, "ROWS", 90)
    several, parts = selected("t.parquet")
    _, other = selected("t.fits")
    assert (one, several) == (1, 6)
    for tile in (0, 1):
        assert 0 < len(whole[tile]) < 500
        assert whole[tile].equals(parts[tile])
        assert whole[tile].equals(other[tile].cast(dict(whole[tile].schema)))
        assert whole[tile]["id"].equals(whole[tile][footprint_regions.ROW].rename("id"))
