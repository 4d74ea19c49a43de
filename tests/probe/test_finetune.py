import numpy as np
import pytest

from make.probes import make_labelled, task
from make.tiny_fit import AUGMENT, BACKBONE, PREPROCESS
from skyloom.errors import ConfigError, InputError
from skyloom.probe import finetune as module
from skyloom.probe.finetune import Tuner, finetune

NAMES = ["source" if i % 2 == 0 else "noise" for i in range(40)]  # every second window of the fake mosaic has a source
SPLIT = ["train"] * 24 + ["test"] * 16
TINY = {"epochs": 30, "learning_rate": 3e-3}


def run(store, cutouts, **changes):
    options = {"method": "finetune", "seeds": 1, "finetune": TINY, **changes}
    return finetune(
        labels=cutouts.id if cutouts else None, weights=None, backbone=BACKBONE, preprocess=PREPROCESS,
        augment=AUGMENT, task=task(**options), seed=0, image_roots=None, store=store,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def cutouts(store):
    return make_labelled(store, NAMES, split=SPLIT)


def test_sources_are_told_from_noise_and_the_same_every_time(store, cutouts, tmp_path):
    made = run(store, cutouts)
    assert made.table()["accuracy"].item() > 0.85
    assert (made.notes["backbone"], made.notes["weights"], made.notes["split"]) == ("test_resnet", None, "official")
    again = run(tmp_path, make_labelled(tmp_path, NAMES, split=SPLIT))
    assert again.id == made.id
    assert again.file("predictions.parquet").read_bytes() == made.file("predictions.parquet").read_bytes()


def test_an_interrupted_one_goes_on_after_its_finished_pieces(store, cutouts, monkeypatch):
    short = {"finetune": {"epochs": 1}, "seeds": 3}
    answer, asked = Tuner.answer, []

    def stopping(self, piece):
        asked.append(piece.key)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return answer(self, piece)

    monkeypatch.setattr(Tuner, "answer", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(store, cutouts, **short)
    made = run(store, cutouts, **short)
    assert len(asked) == 4  # the first piece once, the second twice, the third once
    assert made.table()["seed"].to_list() == [0, 1, 2]


def test_few_labels_are_passed_over_more_often(store, cutouts):
    made = run(store, cutouts, finetune={"epochs": 1, "min_steps": 5, "augment": True}, fractions=[0.1, 1.0])
    assert made.table()["chosen"].to_list() == [5.0, 3.0]  # epochs: one batch of 2 images, two batches of 24
    assert made.table()["n_train"].to_list() == [2, 24]


def test_a_last_batch_of_one_image_is_left_out(store):
    lone = make_labelled(store, NAMES[:35], split=["train"] * 33 + ["test"] * 2)
    assert run(store, lone, finetune={"epochs": 1}).table()["n_test"].item() == 2


def test_several_labels_each_with_balanced_weights(store):
    names = [[name, "odd"] if i % 3 else [name] for i, name in enumerate(NAMES)]
    both = make_labelled(store, names, split=SPLIT, multi_label=True)
    made = run(store, both, finetune={"epochs": 1, "class_weight": "balanced"})
    assert made.notes["multi_label"] is True


def test_rare_classes_weigh_more():
    weight = module._class_weight(np.array([[1, 0, 0]] * 3 + [[0, 1, 0]], dtype=bool))
    assert weight.tolist() == pytest.approx([2 / 3, 2, 0])


def test_bad_input_is_said_in_one_line(store, cutouts):
    with pytest.raises(ConfigError, match="labels must be given"):
        run(store, None)
    with pytest.raises(InputError, match="one class: noise"):
        run(store, make_labelled(store, ["noise"] * 10))
    with pytest.raises(ConfigError, match="sees no GPU"):
        run(store, cutouts, finetune={"accelerator": "gpu"})
