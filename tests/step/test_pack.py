"""step=pack: the same pixels from one array, without the images; damage is named, never read as sky."""

import pickle
import shutil

import numpy as np
import polars as pl
import pytest
import zarr

import skyloom
from make.survey import sky, write_image
from skyloom.datamodule.cutout_index import CutoutIndex
from skyloom.datamodule.cutouts import CutoutsDataModule
from skyloom.errors import ConfigError, InputError
from skyloom.store import builds, of_kind


@pytest.fixture
def cutouts(tmp_path):
    """50 windows of 32 px of two images, with blank and infinite pixels."""
    pixels = sky(96, 96)
    pixels[:4, :4] = np.nan
    pixels[50, 50] = np.inf
    write_image(tmp_path / "in" / "a.fits", pixels)
    write_image(tmp_path / "in" / "b.fits", 1e6 * sky(96, 96, seed=1))
    return skyloom.curate(
        "cutouts", images=tmp_path / "in", window_px=32, max_nan_frac=0.5, threads=1, store=tmp_path / "store"
    )


def pack(cutouts, **options):
    given = {"cutouts": cutouts, "shard_rows": 16, "workers": 1, **options}
    return skyloom.curate("pack", store=cutouts.path.parents[1], **given)


def pixels(artifact):
    return CutoutIndex(artifact).read(range(len(artifact.table())))


def select(cutouts, ids):
    @builds("selection", version=1, inputs={"cutouts": of_kind("cutouts")})
    def selection(build, *, cutouts, ids: list[int]):
        with build.write("selection.parquet") as path:
            pl.DataFrame({"cutout_id": ids}).write_parquet(path)
        build.table = "selection.parquet"

    return selection(cutouts=cutouts, ids=ids, store=cutouts.path.parents[1])


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "none"}, {"compression": "zstd"}, {"chunk_rows": 3}, {"shard_rows": 1}, {"shard_rows": 999}],
)
def test_packed_pixels_are_those_of_the_images(cutouts, options):
    packed = pack(cutouts, **options)
    assert packed.kind == "cutouts"
    assert packed.table().equals(cutouts.table())
    assert packed.table("images.parquet").equals(cutouts.table("images.parquet"))
    assert np.array_equal(pixels(packed), pixels(cutouts), equal_nan=True)
    some = np.array([49, 0, 17, 17, 3])
    assert np.array_equal(CutoutIndex(packed).read(some), pixels(cutouts)[some], equal_nan=True)
    others = zarr.open_array(packed.file("pixels.zarr"), mode="r")
    assert np.array_equal(others[:], pixels(cutouts), equal_nan=True), "any Zarr reader sees the same"
    assert packed.verify() == []


def test_the_layout_is_chunks_in_shards(cutouts):
    packed = pack(cutouts, shard_rows=20, chunk_rows=3)
    array = zarr.open_array(packed.file("pixels.zarr"), mode="r")
    assert (array.shape, array.shards, array.chunks) == ((50, 32, 32), (21, 32, 32), (3, 32, 32))
    assert sorted(p.name for p in packed.file("pixels.zarr").iterdir()) == [
        "c.0.0.0",
        "c.1.0.0",
        "c.2.0.0",
        "zarr.json",
    ]
    assert packed.notes["packed"]["shard_rows"] == 21
    assert {key: packed.notes[key] for key in cutouts.notes} == cutouts.notes
    assert packed.inputs["cutouts"].id == cutouts.id


def test_float16_keeps_eleven_bits_whatever_the_unit(cutouts, capfd):
    packed, exact = pack(cutouts, dtype="float16"), pixels(cutouts)
    assert "float16 loses precision" in capfd.readouterr().err
    found = pixels(packed)
    assert found.dtype == np.float32
    finite = np.isfinite(exact)
    assert np.array_equal(found[~finite], exact[~finite], equal_nan=True)
    peak = np.where(finite, np.abs(exact), 0).max(axis=(1, 2), keepdims=True)
    allowed = np.maximum(np.abs(exact) * 2.0**-11, peak * 2.0**-39)
    assert (np.abs(found[finite] - exact[finite]) <= allowed[finite]).all()
    assert not np.array_equal(found, exact, equal_nan=True)
    assert packed.file("exponent.npy").stat().st_size < 1000


def test_the_images_are_not_needed_any_more(cutouts, tmp_path):
    exact, packed = pixels(cutouts), pack(cutouts)
    shutil.rmtree(tmp_path / "in")
    with pytest.raises(InputError, match="no longer at"):
        pixels(cutouts)
    index = pickle.loads(pickle.dumps(CutoutIndex(packed)))
    assert np.array_equal(index.read([3, 40]), exact[[3, 40]], equal_nan=True)
    again = pack(packed, shard_rows=8)
    assert np.array_equal(pixels(again), exact, equal_nan=True), "a packed one can be packed anew"


def test_only_a_selection(cutouts):
    ids = cutouts.table()["cutout_id"].to_list()
    chosen = [ids[30], ids[2], ids[30], ids[11]]
    packed = pack(cutouts, selection=select(cutouts, chosen))
    assert packed.table()["cutout_id"].to_list() == [ids[2], ids[11], ids[30]]
    assert np.array_equal(pixels(packed), pixels(cutouts)[[2, 11, 30]], equal_nan=True)
    assert packed.counts["kept"] == 3
    assert packed.counts["dropped"]["not in the selection"]["number"] == 47


@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_same_tensors(cutouts, workers):
    def batches(artifact):
        options = {"batch_size": 8, "workers": workers}
        data = {"cutouts": artifact, "selection": None}
        return list(CutoutsDataModule.from_artifacts(data, options, seed=3).train_dataloader())

    for one, two in zip(batches(cutouts), batches(pack(cutouts)), strict=True):
        assert one["id"].equal(two["id"])
        assert one["image"].nan_to_num(nan=-7.0).equal(two["image"].nan_to_num(nan=-7.0))
        assert one["image"].isnan().equal(two["image"].isnan())


def test_extraction_gives_the_same_features(cutouts):
    import h5py

    options = {"backbone": "resnet18", "backbone.model": "test_resnet", "backbone.image_size_px": 32}
    read = {}
    for name, artifact in {"virtual": cutouts, "packed": pack(cutouts)}.items():
        made = skyloom.extract("features", cutouts=artifact, **options, store=cutouts.path.parents[1])
        with h5py.File(made.file("features.h5")) as file:
            read[name] = file["features"][:], file["cutout_id"][:]
    assert np.array_equal(read["virtual"][0], read["packed"][0])
    assert np.array_equal(read["virtual"][1], read["packed"][1])


def same_files(one, two):
    assert one.id == two.id
    for name in one.manifest["files"]:
        assert one.file(name).read_bytes() == two.file(name).read_bytes(), name
    assert (one.path / "manifest.json").read_bytes() == (two.path / "manifest.json").read_bytes()


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(cutouts, tmp_path, monkeypatch):
    import skyloom.step.pack as module

    whole = pack(cutouts)
    written, real = [], module._write_shard

    def stop_at_third(folder, piece):
        written.append(piece.start)
        if len(written) == 3:
            raise KeyboardInterrupt
        real(folder, piece)

    monkeypatch.setattr(module, "_write_shard", stop_at_third)
    shutil.copytree(cutouts.path, tmp_path / "killed" / "cutouts" / cutouts.id)
    copy = type(cutouts)(tmp_path / "killed" / "cutouts" / cutouts.id)
    with pytest.raises(KeyboardInterrupt):
        pack(copy)
    again = pack(copy)
    assert written == [0, 16, 32, 32, 48]
    same_files(whole, again)


def test_two_processes_write_the_same_bytes_as_one(cutouts, tmp_path):
    shutil.copytree(cutouts.path, tmp_path / "other" / "cutouts" / cutouts.id)
    copy = type(cutouts)(tmp_path / "other" / "cutouts" / cutouts.id)
    same_files(pack(cutouts, shard_rows=25), pack(copy, shard_rows=25, workers=2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"c\.1\.0\.0 cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), r"c\.1\.0\.0 has \d+ bytes, the manifest says \d+"),
        (lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]), r"c\.1\.0\.0 is damaged: chunk \d+ has another"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20] + b"\0" * 20), r"c\.1\.0\.0 is damaged: its index has"),
        (lambda path: (path.parent / "zarr.json").write_text("{}"), "no array that step=pack has written"),
    ],
)
def test_damage_is_named(cutouts, damage, message):
    packed = pack(cutouts)
    for path in packed.file("pixels.zarr").iterdir():
        path.chmod(0o644)
    damage(packed.file("pixels.zarr") / "c.1.0.0")
    with pytest.raises(InputError, match=message) as error:
        pixels(packed)
    assert "\n" not in str(error.value)


def test_bad_requests(cutouts, tmp_path):
    with pytest.raises(ConfigError, match="dtype=float64 is not known; choose one of: float16, float32"):
        pack(cutouts, dtype="float64")
    other = skyloom.curate("cutouts", images=tmp_path / "in", window_px=16, threads=1, store=tmp_path / "store")
    with pytest.raises(InputError, match="not in cutouts"):
        pack(other, selection=select(cutouts, cutouts.table()["cutout_id"].to_list()[:2]))
    (tmp_path / "in" / "b.fits").unlink()
    with pytest.raises(InputError, match=r"image b of cutouts .* no longer at"):
        pack(cutouts)


def test_more_shards_than_may_be_open_at_once(cutouts, monkeypatch):
    monkeypatch.setattr("skyloom.datamodule.packed_pixels.OPEN_SHARDS", 2)
    index = CutoutIndex(pack(cutouts, shard_rows=5))
    exact = pixels(cutouts)
    for rows in (range(50), [49, 0, 20]):
        assert np.array_equal(index.read(rows), exact[list(rows)], equal_nan=True)
    assert len(index._packed._open) == 2


def test_blanks_that_the_index_fills_are_packed_filled(cutouts, tmp_path):
    filled = skyloom.curate(
        "cutouts", images=tmp_path / "in", window_px=32, nan_policy="fill", threads=1, store=tmp_path / "store"
    )
    packed = pack(filled)
    assert np.isfinite(pixels(packed)).all()
    assert np.array_equal(pixels(packed), pixels(filled))
