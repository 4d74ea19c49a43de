"""Training and validation around a detector, with one of a few weights."""

import math
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.modules.batchnorm import SyncBatchNorm

from make.tiny_detector import CONF, TinyDetector, detect_task, options, squares
from make.tiny_task import make_trainer
from skyloom.errors import ConfigError, InputError
from skyloom.task.detect import DetectTask

PARTS = {"loss_cls", "loss_box_reg", "loss_mask"}


class Kept(Callback):
    """What was logged after each batch and each validation."""

    def __init__(self):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({key: float(v) for key, v in trainer.callback_metrics.items() if key.startswith("train/")})

    def on_validation_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.epochs.append({key: float(v) for key, v in trainer.callback_metrics.items() if key.startswith("val/")})


@pytest.fixture(autouse=True)
def quiet():
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


def fit(folder, task, epochs=1, train=None, val=None, **trainer):
    kept = Kept()
    trainer["callbacks"] = [*trainer.get("callbacks", []), kept]
    checkpoint = trainer.pop("ckpt_path", None)
    data = squares() if train is None else train, squares(3, seed=2) if val is None else val
    make_trainer(folder, epochs, **trainer).fit(
        task, *data, ckpt_path=checkpoint, weights_only=bool(checkpoint) or None
    )
    return kept


def copies(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_conf_file_names_every_option():
    task = detect_task()
    assert CONF.exists()
    assert {**options(), "areas_px2": dict(task.hparams["areas_px2"])} == dict(task.hparams)


def test_every_loss_is_logged_and_their_sum_is_minimised(tmp_path):
    kept = fit(tmp_path, detect_task(), 6)
    assert len(kept.steps) == 18
    for step in kept.steps:
        assert set(step) == {f"train/{name}" for name in {*PARTS, "loss", "learning_rate"}}
        assert step["train/loss"] == pytest.approx(sum(step[f"train/{name}"] for name in PARTS), rel=1e-5)
    assert kept.steps[-1]["train/loss"] < 0.5 * kept.steps[0]["train/loss"]
    assert kept.epochs[-1]["val/mask_ap50"] > 0.9 > kept.epochs[0]["val/mask_ap50"]
    assert {f"val/{name}" for name in {*PARTS, "loss", "mask_ap", "box_ap", "mask_ap_tiny"}} <= set(kept.epochs[0])
    assert "val/mask_ap_large" not in kept.epochs[0], "there is no such object, hence no number"


def test_resumed_run_equals_the_uninterrupted_one(tmp_path):
    """With drop-out, random samples, a moving average, and a backbone that thaws after the interruption."""

    def task():
        return detect_task(TinyDetector(dropout=0.2), freeze_epochs=2, ema_decay=0.9, schedule="cosine")

    whole, resumed = task(), task()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    one = fit(tmp_path, whole, 3, enable_checkpointing=True, callbacks=[keep])
    torch.manual_seed(99)  # the global state must not matter
    same = ModelCheckpoint(tmp_path, save_top_k=0)
    two = fit(tmp_path, resumed, 3, ckpt_path=tmp_path / "epoch=0.ckpt", enable_checkpointing=True, callbacks=[same])
    assert equal(copies(whole), copies(resumed))
    assert one.steps[3:] == two.steps
    assert one.epochs[1:] == two.epochs


def test_clipping_clips(tmp_path):
    """A step of plain gradient descent with rate 1 is as long as the gradient, hence no longer than its bound."""

    def moved(limit):
        task = detect_task(optimizer="sgd", learning_rate=1.0)
        before = copies(task.detector)
        fit(tmp_path, task, max_steps=1, gradient_clip_val=limit)
        names = [name for name, _ in task.detector.named_parameters()]
        return math.sqrt(sum(float((before[n] - task.detector.state_dict()[n]).square().sum()) for n in names))

    assert moved(None) > 0.1
    assert moved(0.01) == pytest.approx(0.01, rel=1e-3)


class Losses(Callback):
    """The type of each loss."""

    def __init__(self):
        self.types = []

    def on_before_backward(self, trainer, task, loss):
        self.types.append(loss.dtype)


def test_mixed_precision_sums_in_single_precision(tmp_path):
    logged = {}
    for precision in ("32-true", "bf16-mixed"):
        losses = Losses()
        task = detect_task(TinyDetector(random=False))
        logged[precision] = fit(tmp_path, task, max_steps=2, precision=precision, callbacks=[losses]).steps
        assert losses.types == [torch.float32] * 2
    for exact, rounded in zip(*logged.values(), strict=True):
        assert rounded["train/loss"] == pytest.approx(exact["train/loss"], rel=0.05)


class FrozenStates(Callback):
    """The backbone before each epoch, and the number of steps that the optimiser has made with it."""

    def __init__(self):
        self.backbone, self.heads, self.counts = [], [], []

    def on_train_epoch_end(self, trainer, task):
        self.backbone.append(copies(task.detector.backbone))
        self.heads.append(copies(task.detector.heads))
        state = trainer.optimizers[0].state
        self.counts.append([int(state[p]["step"]) if state.get(p) else 0 for p in task.detector.backbone.parameters()])


def test_a_frozen_backbone_stays_and_then_starts_afresh(tmp_path):
    task, states = detect_task(freeze_epochs=2, weight_decay=0.1), FrozenStates()
    start = copies(task.detector.backbone)
    fit(tmp_path, task, 3, callbacks=[states])
    assert equal(start, states.backbone[1]), "neither weights nor running statistics move"
    assert not equal(states.heads[0], states.heads[1])
    assert not equal(start, states.backbone[2])
    assert not torch.equal(start["1.running_mean"], states.backbone[2]["1.running_mean"])
    assert states.counts[1] == [0] * 4
    assert states.counts[2] == [3] * 4, "moments and their correction begin when the backbone does"
    assert all(p.requires_grad for p in task.detector.parameters())


def test_weights_that_never_learn_stay_frozen_after_thawing(tmp_path):
    detector = TinyDetector()
    detector.backbone[0].requires_grad_(False)
    before, task = copies(detector.backbone[0]), detect_task(detector, freeze_epochs=1)
    fit(tmp_path, task, 2)
    assert equal(before, copies(detector.backbone[0]))


def test_the_moving_average_is_judged_and_shipped(tmp_path):
    task = detect_task(ema_decay=0.5)
    fit(tmp_path, task, 2)
    state = task.state_dict()
    assert task.evaluated is task.ema.module
    assert not any(p.requires_grad for p in task.ema.parameters())
    shipped = task.deployed()
    assert set(shipped) == {key for key in state if key.startswith("detector.")}
    assert torch.equal(shipped["detector.backbone.0.weight"], state["ema.module.backbone.0.weight"])
    assert not torch.equal(shipped["detector.backbone.0.weight"], state["detector.backbone.0.weight"])
    plain = detect_task()
    assert equal(plain.deployed(), plain.state_dict())
    assert plain.evaluated is plain.detector


def test_validation_does_not_depend_on_the_batches(tmp_path):
    numbers = []
    for batch in (1, 2, 5):
        task = detect_task()
        numbers.append(fit(tmp_path, task, train=squares(4), val=squares(5, batch, seed=2, empty=True)).epochs[0])
    assert numbers[0]["val/found_per_image"] > 0
    for other in numbers[1:]:
        assert other == pytest.approx(numbers[0], rel=1e-4)
    unmeasured = fit(tmp_path, detect_task(val_loss=False), train=squares(4)).epochs[0]
    assert "val/mask_ap" in unmeasured
    assert "val/loss" not in unmeasured


def test_training_mode_returns_after_validation(tmp_path):
    class Modes(Callback):
        seen = ()

        def on_before_backward(self, trainer, task, loss):
            self.seen = (*self.seen, task.detector.backbone.training)

    modes = Modes()
    fit(tmp_path, detect_task(freeze_epochs=1), 2, callbacks=[modes])
    assert modes.seen == (False,) * 3 + (True,) * 3


def test_a_task_can_be_sent_to_another_process_and_synchronised():
    task = pickle.loads(pickle.dumps(detect_task(ema_decay=0.9)))
    task.ema.update_parameters(task.detector)
    task = SyncBatchNorm.convert_sync_batchnorm(task)
    learning = {id(p) for g in task.recipe.groups(task.detector, [task.detector.backbone]) for p in g["params"]}
    assert isinstance(task.detector.backbone[1], SyncBatchNorm)
    assert learning == {id(p) for p in task.detector.parameters()}


def test_no_masks_and_endless_training_are_refused(tmp_path):
    loader = squares(2, 2)
    batch = next(iter(loader))
    for target in batch["targets"]:
        del target["masks"]
    with pytest.raises(InputError, match=r"without masks.*datamodule\.masks=true"):
        detect_task(val_loss=False).validation_step(batch, 0)
    with pytest.raises(ConfigError, match=r"set trainer\.max_epochs"):
        make_trainer(tmp_path, epochs=-1).fit(detect_task(), loader, loader)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["galaxy"]}, "2 classes, the data 1"),
        ({"freeze_epochs": -1}, "freeze_epochs >= 0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: expected above 0"),
        ({"score": 2.0}, "score and nms from 0 to 1"),
        ({"optimizer": "lars"}, "task.optimizer=lars is not known"),
        ({"areas_px2": {"star": (0, 1)}}, "names of classes and areas"),
    ],
)
def test_bad_options(changed, message):
    with pytest.raises(ConfigError, match=message):
        DetectTask(TinyDetector(), **options(**changed))
