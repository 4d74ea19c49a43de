"""product=features: one finite vector per cutout, in the order of the index, resumable at the piece."""

import h5py
import numpy as np
import polars as pl
import pytest
import torch

import skyloom
from make.survey import sky, write_image
from skyloom.errors import ConfigError, InputError, StoreError
from skyloom.product.extraction import Extractor
from skyloom.product.features import spans_of
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
    assert extract(cutouts).id == extract(cutouts, batch_size=7, shard_rows=9, device="cpu").id


@pytest.mark.parametrize(
    ("finished", "expected"),
    [
        ([], [(0, 4), (4, 8), (8, 11)]),
        (["0-4", "4-8", "8-11"], [(0, 4), (4, 8), (8, 11)]),
        (["0-3", "6-9"], [(0, 3), (3, 6), (6, 9), (9, 11)]),
        (["5-11"], [(0, 4), (4, 5), (5, 11)]),
        (["0-11"], [(0, 11)]),
    ],
)
def test_pieces_cover_every_row_once_around_those_that_are_finished(finished, expected):
    assert spans_of(finished, 11, 4) == expected


def test_a_killed_run_may_go_on_with_another_size_of_pieces(cutouts, monkeypatch):
    whole, ids = arrays(extract(cutouts))
    store = Store(cutouts.path.parents[1])
    store.remove(store.find("features")[0])
    real, calls = Extractor.vectors, []

    def stop_at_third(self, rows, advance):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, rows, advance)

    monkeypatch.setattr(Extractor, "vectors", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        extract(cutouts)
    again, again_ids = arrays(extract(cutouts, shard_rows=16))
    assert calls[3:] == [16, 14], "the 20 finished rows are not made again"
    assert np.array_equal(again_ids, ids)
    assert np.allclose(again, whole, atol=1e-5)


def test_a_missing_image_is_found_before_the_network_is_built(cutouts, tmp_path, monkeypatch):
    (tmp_path / "in" / "b.fits").unlink()
    built = []
    monkeypatch.setattr("skyloom.backbone.spec.Weights.build", lambda *args: built.append(args))
    with pytest.raises(InputError, match="image b of cutouts"):
        extract(cutouts)
    assert not built


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(cutouts, tmp_path, monkeypatch):
    whole = extract(cutouts)
    bytes_before = whole.file("features.h5").read_bytes()
    Store(cutouts.path.parents[1]).remove(whole)
    real, calls = Extractor.vectors, []

    def stop_at_third(self, rows, advance):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, rows, advance)

    monkeypatch.setattr(Extractor, "vectors", stop_at_third)
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
        ({"preprocess": {"strech": "asinh"}}, ConfigError, "option=strech .*Did you mean 'stretch'"),
        ({"transform": "multistretch"}, InputError, r"expects images .batch, 1,.*set backbone\.in_chans"),
        ({"layer": "layer9"}, ConfigError, r"resnet18 has no such module.*did you mean layer"),
        ({"on_error": "ignore"}, ConfigError, "on_error=ignore is not known; choose one of: skip, stop"),
        ({"device": "gpu"}, ConfigError, "device=gpu: expected auto, cpu, cuda"),
        ({"device": "mps", "devices": 2}, ConfigError, "devices=2 takes the first GPUs or the CPU"),
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


def test_two_processes_give_the_same_bytes(cutouts):
    first = extract(cutouts, device="cpu")
    bytes_before = first.file("features.h5").read_bytes()
    Store(cutouts.path.parents[1]).remove(first)
    again = extract(cutouts, device="cpu", devices=2)
    assert again.id == first.id
    assert again.file("features.h5").read_bytes() == bytes_before
    assert again.history["settings"]["devices"] == 2


def test_images_that_cannot_be_read_are_left_out_counted_and_listed(cutouts, tmp_path):
    whole, ids = arrays(extract(cutouts))
    path = tmp_path / "in" / "b.fits"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    part = extract(cutouts, on_error="skip")
    found, kept = arrays(part)
    names = cutouts.table()["image"].to_numpy()
    assert kept.tolist() == ids[names == "a"].tolist()
    assert np.allclose(found, whole[names == "a"], atol=1e-5)
    assert (found != 0).any(axis=1).all(), "no row is silently zero"
    assert part.counts["read"] == 50
    assert part.counts["kept"] == 25
    dropped = pl.read_parquet(part.file("dropped.parquet"))
    assert dropped["cutout_id"].to_list() == ids[names == "b"].tolist()
    assert set(dropped["image"]) == {"b"}
    told = part.counts["dropped"]["unreadable"]
    assert told["number"] == 25
    assert "b.fits is not the file" in told["examples"][0]


def test_nothing_readable_is_an_error_and_skipping_nothing_changes_nothing(cutouts, tmp_path):
    whole = extract(cutouts)
    same = extract(cutouts, on_error="skip")
    assert same.id != whole.id
    assert np.array_equal(arrays(same)[0], arrays(whole)[0])
    assert len(pl.read_parquet(same.file("dropped.parquet"))) == 0
    for name in "ab":
        (tmp_path / "in" / f"{name}.fits").unlink()
    with pytest.raises(InputError, match=r"not one of 50 cutouts of .* could be read"):
        extract(cutouts, on_error="skip", seed=3)


def test_layers_have_ids_of_their_own(cutouts):
    pooled, named, early = (extract(cutouts, layer=layer) for layer in ("pooled", "layer4", "layer2"))
    assert len({pooled.id, named.id, early.id}) == 3
    assert np.allclose(arrays(pooled)[0], arrays(named)[0], atol=1e-5)
    assert arrays(early)[0].shape == (50, 128)
    assert early.notes["dimensions"] == 128
    assert early.notes["layer"] == "layer2"


def test_three_stretches_as_three_channels(cutouts):
    artifact = extract(cutouts, transform="multistretch", **{"backbone.in_chans": 3})
    assert [entry["stretch"] for entry in artifact.notes["preprocess"]["channels"]] == ["power", "minmax", "log"]
    assert np.isfinite(arrays(artifact)[0]).all()


def test_a_published_checkpoint_by_its_choice_alone(cutouts, tmp_path):
    import torchvision

    source = torchvision.models.resnet18(num_classes=3)
    path = tmp_path / "byol.ckpt"
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in source.state_dict().items()}}, path)
    artifact = extract(cutouts, backbone="byol_resnet18", transform="minmax", **{"backbone.weights": str(path)})
    source.fc = torch.nn.Identity()
    from skyloom.datamodule.cutout_index import CutoutIndex
    from skyloom.transform import Preprocess

    raw = torch.from_numpy(CutoutIndex(cutouts).read([7])).unsqueeze(1)
    with torch.inference_mode():
        expected = source.eval()(Preprocess(**artifact.notes["preprocess"])(raw))
    assert np.allclose(arrays(artifact)[0][7], expected[0], atol=1e-4)
    with pytest.raises(ConfigError, match=r"backbone\.weights must be given"):
        extract(cutouts, backbone="byol_resnet18")


def test_cutouts_of_several_sizes(tmp_path, cutouts):
    """Windows of step=cutouts strategy=mask have sizes of their own; rows keep the order of the index."""
    from skyloom.datamodule.cutout_index import CutoutIndex
    from skyloom.datamodule.reading import read_ahead

    index = CutoutIndex(cutouts)
    index._windows = index._windows.copy()
    index._windows[::3, 3] = 16
    rows = np.arange(40)
    places = []
    for batch in read_ahead(index, rows, 7):
        assert len(set(index.sizes[rows[batch.places]])) == 1
        assert np.array_equal(batch.values, index.read(rows[batch.places]))
        places += batch.places.tolist()
    assert sorted(places) == rows.tolist()
