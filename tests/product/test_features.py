"""product=features: one finite vector per cutout, in the order of the index, resumable at the piece."""

import h5py
import numpy as np
import polars as pl
import pytest
import torch

import skyloom
from make.survey import sky, write_image
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.product import features as module
from skyloom.store import Store

FAST = {"backbone.image_size_px": 32, "shard_rows": 10, "batch_size": 4}


@pytest.fixture
def cutouts(tmp_path):
    for name in "ab":
        write_image(tmp_path / "in" / f"{name}.fits", sky(96, 96, seed=ord(name)))
    return skyloom.curate("cutouts", images=tmp_path / "in", window_px=32, threads=1, store=tmp_path / "store")


def extract(cutouts, **options):
    return skyloom.extract("features", cutouts=cutouts, **{**FAST, **options}, store=cutouts.path.parents[1])


def arrays(artifact):
    with h5py.File(artifact.file("features.h5")) as file:
        return file["features"][:], file["cutout_id"][:]


def test_rows_follow_the_index_and_equal_the_plain_forward_pass(cutouts):
    artifact = extract(cutouts)
    found, ids = arrays(artifact)
    assert ids.tolist() == cutouts.table()["cutout_id"].to_list()
    assert found.shape == (50, 512)
    assert np.isfinite(found).all()
    from skyloom.backbone import build_backbone
    from skyloom.datamodule.cutout_index import CutoutIndex
    from skyloom.transform import Preprocess

    raw = torch.from_numpy(CutoutIndex(cutouts).read([49])).unsqueeze(1)
    network = build_backbone("resnet18", in_chans=1, image_size_px=32, seed=0).eval()
    with torch.inference_mode():
        expected = network(Preprocess(**artifact.notes["preprocess"])(raw))
    assert np.allclose(found[49], expected[0], atol=1e-5)
    assert artifact.notes["preprocess_digest"] == Preprocess(**artifact.notes["preprocess"]).digest


def test_random_weights_are_named_and_follow_the_seed(cutouts, capsys):
    first = extract(cutouts)
    assert "weights of resnet18 are random (seed 0)" in capsys.readouterr().err
    other = extract(cutouts, seed=1)
    assert first.id != other.id
    assert not np.allclose(arrays(first)[0], arrays(other)[0])


def test_free_options_do_not_change_the_id(cutouts):
    assert extract(cutouts).id == extract(cutouts, batch_size=7, device="cpu").id


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(cutouts, tmp_path, monkeypatch):
    whole = extract(cutouts)
    bytes_before = whole.file("features.h5").read_bytes()
    Store(cutouts.path.parents[1]).remove(whole)
    real, calls = module._extract, []

    def stop_at_third(*args):
        calls.append(len(args[3]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "_extract", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        extract(cutouts)
    again = extract(cutouts)
    assert calls == [10] * 6, "two pieces were kept, three and the interrupted one were made after it"
    assert again.file("features.h5").read_bytes() == bytes_before


def test_a_selection_restricts_and_is_counted(cutouts, tmp_path):
    store = Store(cutouts.path.parents[1])
    whole = extract(cutouts)
    levels = [{"clusters": 5, "sample_size": 2, "resamples": 1}]
    clusters = skyloom.curate("cluster", features=whole, levels=levels, store=store.root)
    selection = skyloom.curate("subsample", clusters=clusters, target_size=12, store=store.root)
    part = extract(cutouts, selection=selection)
    found, ids = arrays(part)
    assert ids.tolist() == selection.table().sort("row")["cutout_id"].to_list()
    assert np.allclose(found, arrays(whole)[0][selection.table()["row"].to_numpy()], atol=1e-5)
    assert part.counts["dropped"]["not in the selection"]["number"] == 38
    assert part.inputs["selection"].id == selection.id


def test_an_image_that_changed_is_refused(cutouts, tmp_path):
    path = tmp_path / "in" / "b.fits"
    path.unlink()
    write_image(path, sky(96, 96, seed=99))
    with pytest.raises(InputError, match=r"b\.fits is not the file that cutouts .* were indexed from"):
        extract(cutouts)


def test_images_that_moved_are_found_below_a_root(cutouts, tmp_path):
    (tmp_path / "in").rename(tmp_path / "in2")
    with pytest.raises(InputError, match=r"image a .* is no longer at .*paths\.images"):
        extract(cutouts)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in2").rename(tmp_path / "elsewhere" / "in")
    artifact = extract(cutouts, **{"paths.images": str(tmp_path / "elsewhere")})
    assert artifact.counts["kept"] == 50


def test_features_that_are_not_finite_stop_with_the_cutouts_named(cutouts, monkeypatch):
    from skyloom.backbone import Backbone

    monkeypatch.setattr(Backbone, "forward", lambda self, x: torch.full((len(x), 512), torch.nan))
    with pytest.raises(InputError, match=r"4 features are not finite .cutout ids \["):
        extract(cutouts)
    assert not Store(cutouts.path.parents[1]).find("features")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backbone.weights": "nothing.pt"}, InputError, r"backbone\.weights=nothing\.pt: no such file"),
        ({"backbone.weights": "abcd"}, StoreError, "no model with the id"),
        ({"backbone.model": "resnet19"}, ConfigError, "resnet19 is not a model of timm"),
        ({"precision": "fp64"}, ConfigError, "precision=fp64 is not known; choose one of: bf16, fp16, fp32"),
        ({"preprocess": {"stretch": "asin"}}, ConfigError, "Did you mean 'asinh'"),
    ],
)
def test_bad_options(cutouts, options, error, message):
    with pytest.raises(error, match=message):
        extract(cutouts, **options)


def test_reduced_precision_is_close_and_stored_as_float32(cutouts):
    full, reduced = arrays(extract(cutouts))[0], arrays(extract(cutouts, precision="bf16"))[0]
    assert reduced.dtype == np.float32
    cosine = (full * reduced).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(reduced, axis=1)
    assert cosine.min() > 0.99


def test_an_unknown_cutout_id_is_explained(cutouts):
    from skyloom.datamodule.cutout_index import CutoutIndex

    with pytest.raises(InputError, match=r"1 of 2 cutout ids .first: 5. are not in cutouts"):
        CutoutIndex(cutouts).rows_of(np.array([cutouts.table()["cutout_id"][3], 5]))
    assert cutouts.table().schema["cutout_id"] == pl.Int64
