"""DINO and what it shares with DINOv2: teacher, crops, schedules, resuming."""

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch import nn

from make.tiny_task import Sky, TinyBackbone, keep_logged, loader, make_trainer, weights
from make.two_processes import in_two_processes, loss_and_gradients
from skyloom.backbone import build_backbone
from skyloom.errors import ConfigError
from skyloom.run.notebook import compose
from skyloom.task.dino import DinoTask
from skyloom.transform import Preprocess, RadioAugment

SMALL = {
    "local_crops": 2, "output_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8, "warmup_epochs": 0,
    "learning_rate": 5e-3, "freeze_last_layer_epochs": 0, "seed": 3,
}  # fmt: skip
STUDENT, TEACHER = ("backbone", "projection"), ("teacher_backbone", "teacher_projection")


def make_task(backbone: nn.Module | None = None, **options: object) -> DinoTask:
    options = SMALL | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = backbone or TinyBackbone(batch_norm=False)
    augment = RadioAugment(local_crops=options["local_crops"], local_size_px=8)
    return DinoTask(backbone, augment, Preprocess(image_size_px=16), **options)


def views_of(batch: int = 4, local: int = 2) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    sides = [16, 16] + [8] * local
    return [torch.rand(batch, 1, side, side, generator=draw) for side in sides]


def test_conf_file_names_every_option() -> None:
    config = compose("train", ["task=dino", "cutouts=x"])
    options = OmegaConf.to_container(OmegaConf.create(config)["task"], resolve=True)
    assert options.pop("name") == "dino"
    assert config["augment"]["local_crops"] == options["local_crops"] == 8
    task = DinoTask(TinyBackbone(), RadioAugment(local_crops=8), Preprocess(image_size_px=16), **options)
    assert dict(task.hparams) == options


def test_teacher_starts_equal_gets_no_gradient_and_is_not_the_student() -> None:
    task = make_task()
    student, teacher = weights(task, *STUDENT), weights(task, *TEACHER)
    assert all(torch.equal(student[k], teacher[f"teacher_{k}"]) for k in student)
    task.loss(views_of()).total.backward()
    assert all(p.grad is None for part in TEACHER for p in getattr(task, part).parameters())
    assert all(p.grad is not None for part in STUDENT for p in getattr(task, part).parameters() if p.requires_grad)
    assert not {id(p) for p in task.backbone.parameters()} & {id(p) for p in task.teacher_backbone.parameters()}


def test_teacher_moves_exactly_by_the_momentum(tmp_path: Path) -> None:
    task = make_task(momentum_start=0.9, momentum_end=0.9)
    before = weights(task, *STUDENT)
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    after = task.state_dict()
    for key in (k for k, p in task.named_parameters() if k in before and p.requires_grad):
        assert not torch.equal(after[key], before[key]), key
        torch.testing.assert_close(after[f"teacher_{key}"], 0.9 * before[key] + 0.1 * after[key], rtol=1e-5, atol=1e-7)


def test_momentum_one_freezes_the_teacher(tmp_path: Path) -> None:
    task = make_task(momentum_start=1.0)
    before = weights(task, *TEACHER)
    make_trainer(tmp_path, max_steps=3).fit(task, loader())
    assert all(torch.equal(v, task.state_dict()[k]) for k, v in before.items())


def test_loss_is_the_mean_over_pairs_of_different_crops() -> None:
    """Eq. 2 of the paper, written out."""
    task, views = make_task().eval(), views_of()
    task.criterion.center += torch.linspace(-0.1, 0.1, 32)
    center = task.criterion.center.clone().view(-1)
    with torch.no_grad():
        student = [task.projection(task.backbone(view)) for view in views]
        wanted = 0.0
        for t in range(2):
            teacher = ((task.teacher_projection(task.teacher_backbone(views[t])) - center) / 0.04).softmax(1)
            for s in range(4):
                if s != t:
                    wanted -= (teacher * (student[s] / 0.1).log_softmax(1)).sum(1).mean() / 6
        terms = task.loss(views)
    torch.testing.assert_close(terms.total, wanted)
    assert terms.embedding.shape == (4, 12)


def test_the_teacher_sees_the_global_crops_only() -> None:
    task, seen = make_task(), []
    task.teacher_backbone.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    views = views_of()
    task.loss(views)
    assert len(seen) == 1
    assert torch.equal(seen[0], torch.cat(views[:2]))


def test_features_that_are_all_zero_do_not_blow_up_the_gradient() -> None:
    head, features = make_task().projection, torch.zeros(4, 12, requires_grad=True)
    head(features).log_softmax(1)[:, 0].sum().backward()
    assert features.grad.norm() < 1e3  # lightly's own head: above 1e8


def test_loss_falls_on_32_images(tmp_path: Path) -> None:
    """Of a student whose goal stands still: teacher and centre do not move, and the centre is that of the images."""
    task = make_task(momentum_start=1.0, center_momentum=1.0, weight_decay_end=None, learning_rate=0.02)
    with torch.no_grad():
        images = task.preprocess(torch.stack([entry["image"] for entry in Sky()]))
        task.criterion.center += task.teacher_projection(task.teacher_backbone(images)).mean(0)
    logged = keep_logged(task)
    make_trainer(tmp_path, epochs=12).fit(task, loader())
    values = [entry["train/loss"] for entry in logged]
    assert sum(values[-4:]) < 0.9 * sum(values[:4])
    assert {"train/loss", "train/collapse_std", "train/momentum", "train/teacher_temperature"} == set(logged[0])


def test_double_precision(tmp_path: Path) -> None:
    task = make_task()
    logged = keep_logged(task)
    make_trainer(tmp_path, max_steps=2, precision="64-true").fit(task, loader())
    assert task.criterion.center.dtype == torch.float64
    assert all(math.isfinite(entry["train/loss"]) for entry in logged)


def test_temperature_and_weight_decay_follow_their_schedules(tmp_path: Path) -> None:
    task = make_task(teacher_temperature=0.08, teacher_temperature_warmup_epochs=2, weight_decay=0.1)
    logged, decays = keep_logged(task), []
    step = task.after_step
    task.after_step = lambda n: (decays.append(task.trainer.optimizers[0].param_groups[0]["weight_decay"]), step(n))
    make_trainer(tmp_path, epochs=3).fit(task, loader())
    temperatures = [entry["train/teacher_temperature"] for entry in logged]
    assert temperatures[:9] == pytest.approx([0.04 + 0.005 * i for i in range(9)])
    assert temperatures[9:] == [0.08] * 3
    assert decays[0] == pytest.approx(0.1)
    assert decays[-1] == pytest.approx(0.4)
    assert decays == sorted(decays)


def test_last_layer_is_frozen_at_first(tmp_path: Path) -> None:
    task, kept = make_task(freeze_last_layer_epochs=1), []
    step = task.after_step
    task.after_step = lambda n: (kept.append(task.projection.last_layer.weight_v.detach().clone()), step(n))
    first = task.projection.last_layer.weight_v.detach().clone()
    make_trainer(tmp_path, epochs=2).fit(task, loader())
    assert all(torch.equal(first, value) for value in kept[:4])
    assert not torch.equal(first, kept[4])
    assert (task.projection.last_layer.weight_g == 1).all()


def test_resumed_run_equals_the_uninterrupted_one_center_included(tmp_path: Path) -> None:
    options = {"epochs": 2, "enable_checkpointing": True}
    tiny = {"model": "test_vit", "image_size_px": 16, "seed": 1}
    whole = make_task(build_backbone(**tiny), drop_path_rate=0.3, local_crops=0, momentum_start=0.9)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(tmp_path, callbacks=[keep], **options).fit(whole, loader())
    torch.manual_seed(99)  # the global state must not matter
    resumed = make_task(build_backbone(**tiny), drop_path_rate=0.3, local_crops=0, momentum_start=0.9)
    same = ModelCheckpoint(tmp_path, save_top_k=0)
    make_trainer(tmp_path, callbacks=[same], **options).fit(
        resumed, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True
    )
    assert whole.global_step == resumed.global_step == 8
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert first["criterion.center"].abs().sum() > 0
    assert not torch.equal(first["criterion.center"], whole.criterion.center)


def of_two(rank: int) -> dict[str, torch.Tensor]:
    task = make_task()
    found = loss_and_gradients(task, views_of(8), rank)
    return found | {"center": task.criterion.center}


def test_two_processes_give_loss_gradient_and_center_of_one() -> None:
    task = make_task()
    one = loss_and_gradients(task, views_of(8)) | {"center": task.criterion.center}
    first, second = in_two_processes(of_two)
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, one["loss"], rtol=0, atol=1e-4)
    for key in one.keys() - {"loss"}:
        torch.testing.assert_close(first[key], one[key], rtol=1e-4, atol=1e-6)
        assert torch.equal(first[key], second[key])


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_any_backbone_and_channels(model: str) -> None:
    backbone = build_backbone(model, in_chans=2)
    side = 224 if model.startswith("swin") else 64
    augment = RadioAugment(local_crops=1, local_size_px=32)
    options = SMALL | {"local_crops": 1, "batch_norm": model == "test_resnet"}
    task = DinoTask(backbone, augment, Preprocess(image_size_px=side, channels=2), **options)
    views = augment(torch.rand(2, 2, side, side), torch.Generator().manual_seed(0))
    terms = task.loss(views)
    terms.total.backward()
    assert terms.total.isfinite()
    assert terms.embedding.shape == (2, backbone.num_features)


def test_local_crops_must_suit_task_and_backbone() -> None:
    vit = build_backbone("test_vit")
    with pytest.raises(ConfigError, match=r"local_size_px=98: test_vit needs a multiple of 16 px, as 96"):
        DinoTask(vit, RadioAugment(local_crops=8), Preprocess(image_size_px=64))
    with pytest.raises(ConfigError, match=r"task\.local_crops=8, but transform\.augment\.local_crops=0"):
        DinoTask(vit, RadioAugment(), Preprocess(image_size_px=64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_temperature_start": 0.1}, "teacher_temperature_start <= teacher_temperature"),
        ({"freeze_last_layer_epochs": -1}, "freeze_last_layer_epochs >= 0"),
        ({"momentum_start": 1.1}, "momentum_start <= momentum_end"),
        ({"drop_path_rate": 0.1}, "only vision transformers skip branches"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(**options)
