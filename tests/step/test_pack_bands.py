"""step=pack on a survey with bands: all bands of a cutout in one piece, and everything that takes cutouts takes it."""

import copy
import pickle
import shutil

import numpy as np
import pytest
import zarr

import skyloom
from make.band_cutouts import band_cutouts
from make.joint_data import joint_data, joint_stats
from skyloom.datamodule.band_index import BandIndex, truth_of
from skyloom.datamodule.joint_channels import band_facts
from skyloom.datamodule.joint_inputs import find_stats
from skyloom.datamodule.roman_lsst import RomanLsstDataModule
from skyloom.errors import InputError
from skyloom.store import builds, of_kind


@pytest.fixture
def cutouts(tmp_path):
    """Seven cutouts of six bands on one tile, one of them with blank pixels."""
    pixels = np.random.default_rng(0).normal(0, 1, (7, 6, 24, 24)).astype("f4")
    pixels[2, 1, :3] = np.nan
    pixels[5] *= 1e5
    return band_cutouts(tmp_path / "store", n=7, size=24, pixels=pixels)


def pack(cutouts, **options):
    return skyloom.curate(
        "pack", store=cutouts.path.parents[1], **{"cutouts": cutouts, "shard_rows": 3, "workers": 1, **options}
    )


def cube(artifact):
    index = BandIndex(artifact)
    return np.stack([index.read(row) for row in range(len(index))])


def select(cutouts, ids):
    @builds("selection", version=1, inputs={"cutouts": of_kind("cutouts")})
    def selection(build, *, cutouts, ids: list[int]):
        with build.write("selection.parquet") as path:
            cutouts.table().select("cutout_id").filter(cutouts.table()["cutout_id"].is_in(ids)).write_parquet(path)
        build.table = "selection.parquet"

    return selection(cutouts=cutouts, ids=ids, store=cutouts.path.parents[1])


@pytest.mark.parametrize("options", [{}, {"compression": "none", "chunk_rows": 2}, {"workers": 2}])
def test_packed_bands_are_those_of_the_images_without_the_images(cutouts, options):
    exact, packed = cube(cutouts), pack(cutouts, **options)
    shutil.rmtree(cutouts.path.parents[1] / "images")
    with pytest.raises(InputError, match="no longer at"):
        cube(cutouts)
    assert np.array_equal(cube(packed), exact, equal_nan=True)
    index = pickle.loads(pickle.dumps(BandIndex(packed)))
    assert np.array_equal(index.read(2, ["y", "g"]), exact[2, [5, 1]], equal_nan=True)
    out = np.empty((6, 24, 24), np.float32)
    assert index.read(5, out=out) is out
    assert np.array_equal(out, exact[5])
    assert copy.copy(index)._packed is not index._packed, "threads open files of their own"
    assert index.header(3) == BandIndex(cutouts).header(3)
    assert np.array_equal(zarr.open_array(packed.file("pixels.zarr"), mode="r")[:], exact, equal_nan=True)
    assert packed.verify() == []


def test_all_tables_come_along_and_of_a_selection_its_rows(cutouts):
    packed = pack(cutouts)
    for name in cutouts.manifest["files"]:
        assert packed.table(name).equals(cutouts.table(name)), name
    ids = cutouts.table()["cutout_id"].to_list()
    some = pack(cutouts, selection=select(cutouts, [ids[5], ids[2]]))
    kept = sorted([ids[2], ids[5]])
    for name in cutouts.manifest["files"]:
        if name != "images.parquet":
            assert sorted(some.table(name)["cutout_id"].unique().to_list()) == kept, name
    tile = cutouts.table()["tile"][0]
    assert len(truth_of(some, tile)) == 10
    assert np.array_equal(cube(some), cube(cutouts)[[2, 5]], equal_nan=True)


def test_float16_of_bands(cutouts):
    exact, found = cube(cutouts), cube(pack(cutouts, dtype="float16"))
    finite = np.isfinite(exact)
    assert np.array_equal(finite, np.isfinite(found))
    peak = np.where(finite, np.abs(exact), 0).max(axis=(1, 2, 3), keepdims=True)
    allowed = np.maximum(np.abs(exact) * 2.0**-11, peak * 2.0**-39)
    assert (np.abs(found - exact)[finite] <= allowed[finite]).all()


def test_integrity_is_that_of_the_images(cutouts):
    made = {}
    for name, artifact in (("virtual", cutouts), ("packed", pack(cutouts))):
        options = {"cutouts": artifact, "threads": 2, "shard_rows": 4, "store": cutouts.path.parents[1]}
        made[name] = skyloom.curate("integrity", **options)
    assert made["virtual"].table().equals(made["packed"].table())


def test_statistics_of_the_cutouts_serve_those_that_were_packed_from_them(tmp_path):
    data = joint_data(tmp_path)
    packed = pack(data.lsst)
    found = joint_stats(data, data.lsst)
    assert find_stats(packed, data.store).id == found.id
    own = joint_stats(data, packed)
    assert find_stats(packed, data.store).id == own.id


def test_training_sees_the_same_nine_channels(tmp_path):
    data = joint_data(tmp_path)
    options = {
        "surveys": ["lsst", "roman"], "combine": "wcs", "interpolation": "lanczos", "conserve_flux": False,
        "cache_maps": True, "parts": {"train": "train"}, "masks": True, "truth": [], "blank_value": 0.0,
        "augment": None, "batch_size": 2, "stack": True, "workers": 0,
    }  # fmt: skip

    def batches(**roles):
        module = RomanLsstDataModule.from_artifacts({"dataset": data.dataset, **roles}, options, seed=1)
        return list(module.train_dataloader())

    virtual, packed = batches(), batches(lsst=pack(data.lsst), roman=pack(data.roman))
    for one, two in zip(virtual, packed, strict=True):
        assert one["id"].equal(two["id"])
        assert one["image"].equal(two["image"])


def test_what_the_survey_said_of_its_bands_is_handed_on(cutouts):
    @builds("cutouts", version=1)
    def told(build, *, survey: dict):
        for name in cutouts.manifest["files"]:
            with build.write(name) as path:
                shutil.copyfile(cutouts.file(name), path)
        build.table = "cutouts.parquet"
        build.note(**cutouts.notes)

    facts = {"name": "lsst", "bands": [{"name": "g", "wavelength_nm": 480.0}]}
    made = told(survey=facts, store=cutouts.path.parents[1])
    assert band_facts(made, "wavelength_nm") == band_facts(pack(made), "wavelength_nm") == {"g": 480.0}
    assert band_facts(pack(pack(made)), "wavelength_nm") == {"g": 480.0}


def test_cutouts_of_several_shapes_are_refused(cutouts, monkeypatch):
    monkeypatch.setattr(BandIndex, "shape", lambda self, row: (24, 24 + row % 2))
    with pytest.raises(InputError, match=r"have 2 shapes, \(24, 24\) to \(24, 25\) px; expected one: .*shape=constant"):
        pack(cutouts)
