"""What `make demo-detect` prints and draws: a catalogue that is the truth scores 1, whatever its classes."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from make.joint_data import joint_data
from skyloom.sky.mask.rle import encode

FILE = Path(__file__).resolve().parents[1] / "examples" / "demo_detect.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_detect", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["lsst", "roman"])
def unseen(demo, request, tmp_path_factory):
    """The test images of a small data set on the grid of either survey."""
    data = joint_data(tmp_path_factory.mktemp("demo"), objects=4)
    surveys = ["lsst"] if request.param == "lsst" else ["lsst", "roman"]
    model = SimpleNamespace(parameters={"datamodule": {"surveys": surveys}})
    return demo.unseen(SimpleNamespace(artifacts={"dataset": data.dataset, "model": model}))


def catalog(samples, *, every=1, score=0.9, change=lambda mask: mask):
    """The truth, or one object in so many of it, as a catalogue of another class."""
    rows = [
        {"cutout_id": sample["id"], "score": score, "class": 1, "rle": encode(change(mask)),
         **dict(zip(("x0_px", "y0_px", "x1_px", "y1_px"), box.tolist(), strict=True))}
        for sample in samples
        for mask, box in list(zip(sample["masks"].numpy(), sample["boxes"], strict=True))[::every]
    ]  # fmt: skip
    return pl.DataFrame(rows)


def test_the_truth_scores_one_and_half_of_it_half(demo, unseen):
    samples = unseen[0]
    assert sum(len(sample["labels"]) for sample in samples) == 4
    assert demo.scores(catalog(samples), samples) == {0.3: 1, 0.5: 1, 0.75: 1}
    assert demo.scores(catalog(samples, every=2), samples)[0.5] == pytest.approx(0.5, abs=0.01)
    assert demo.scores(catalog(samples).clear(), samples)[0.5] == 0
    eroded = catalog(samples, change=lambda mask: mask & (np.cumsum(mask) <= 0.4 * mask.sum()).reshape(mask.shape))
    assert list(demo.scores(eroded, samples).values()) == [1, 0, 0], "masks of two fifths of the area"


def test_the_picture_is_small_and_shows_what_is_sure(demo, unseen, tmp_path):
    samples, bands = unseen
    found = {"found": catalog(samples, score=0.4), "sextractor": catalog(samples)}
    picture = tmp_path / "new" / "detect.png"
    demo.draw(picture, samples, bands, found)
    assert 5_000 < picture.stat().st_size < 300_000
    colours = demo.shown(samples[0]["image"], bands)
    assert colours.shape == (*samples[0]["image"].shape[1:], 3)
    assert np.isfinite(colours).all()
    assert colours.min() >= 0
    assert colours.max() <= 1
