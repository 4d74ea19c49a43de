"""step=simulate: the true layout of LoTSS DR2, the same bytes from the same seed."""

import numpy as np
import pytest
from astropy.io import fits

import skyloom
from skyloom.errors import ConfigError


def simulate(store, **options):
    return skyloom.curate("simulate", **{"survey": "lotss", "mosaics": 2, "size_px": 300, **options}, store=store)


def test_the_layout_is_that_of_dr2(tmp_path):
    artifact = simulate(tmp_path)
    folders = sorted((artifact.path / "mosaics").iterdir())
    assert len(folders) == 2
    for folder in folders:
        with fits.open(folder / "mosaic-blanked.fits") as hdus:
            assert hdus[0].header["BITPIX"] == -64
            assert hdus[0].data.shape == (300, 300)
            assert hdus[0].data.dtype == np.dtype(">f8")
            assert hdus[0].header["BUNIT"].strip().upper() == "JY/BEAM"
            assert hdus[0].header["BMAJ"] * 3600 == pytest.approx(6.0)
            assert hdus[0].header["CDELT2"] * 3600 == pytest.approx(1.5, rel=1e-5)
            assert 0.05 < np.isnan(hdus[0].data).mean() < 0.3
        with fits.open(folder / "mosaic.pybdsmmask.fits") as hdus:
            assert hdus[0].data.shape == (1, 1, 300, 300)
            assert hdus[0].data.dtype == np.dtype(">f4")
    assert artifact.counts["mosaics"] == 2


def test_seed_decides_every_byte(tmp_path):
    first, again, other = simulate(tmp_path / "a"), simulate(tmp_path / "b"), simulate(tmp_path / "a", seed=1)
    assert first.id == again.id != other.id
    assert first.manifest["files"] == again.manifest["files"]
    name = "sources.parquet"
    assert first.manifest["files"][name] != other.manifest["files"][name]


def test_a_survey_that_cannot_be_simulated_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="step=simulate does not know survey=generic; choose survey=lotss or survey="):
        skyloom.curate("simulate", survey="generic", store=tmp_path)
    with pytest.raises(ConfigError, match="does not know survey=mine"):
        simulate(tmp_path, **{"survey.name": "mine"})


def test_workers_change_no_byte_and_no_id(tmp_path):
    alone, together = simulate(tmp_path / "a"), simulate(tmp_path / "b", workers=2)
    assert (alone.id, alone.manifest["files"]) == (together.id, together.manifest["files"])
    assert together.history["settings"]["workers"] == 2
