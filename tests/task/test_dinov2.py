"""DINOv2: hidden patches, its three losses, resuming; the rest is tested with DINO."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf

from make.tiny_task import Sky, keep_logged, loader, make_trainer, weights
from make.two_processes import in_two_processes, loss_and_gradients
from skyloom.backbone import build_backbone
from skyloom.backbone.tokens import patch_tokens
from skyloom.errors import ConfigError
from skyloom.run.notebook import compose
from skyloom.task.dinov2 import Dinov2Task
from skyloom.transform import Preprocess, RadioAugment

SMALL = {
    "local_crops": 1, "output_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8, "warmup_epochs": 0,
    "drop_path_rate": 0.0, "learning_rate": 5e-3, "freeze_last_layer_epochs": 0,
    "teacher_temperature_warmup_epochs": 0, "seed": 3,
}  # fmt: skip


def make_task(**options: object) -> Dinov2Task:
    options = SMALL | options
    backbone = build_backbone("test_vit", image_size_px=64, seed=1)
    augment = RadioAugment(local_crops=options["local_crops"], local_size_px=32)
    return Dinov2Task(backbone, augment, Preprocess(image_size_px=64), **options)


def views_of(batch: int = 4) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [torch.rand(batch, 1, side, side, generator=draw) for side in (64, 64, 32)]


@pytest.fixture(autouse=True)
def masks_follow_the_global_stream():
    """In a training step that stream is set by the task; here by the test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


def test_conf_file_names_every_option() -> None:
    config = compose("train", ["task=dinov2", "backbone=dinov2_s", "cutouts=x"])
    options = OmegaConf.to_container(OmegaConf.create(config)["task"], resolve=True)
    assert options.pop("name") == "dinov2"
    assert config["augment"]["local_crops"] == options["local_crops"] == 8
    augment = RadioAugment(local_crops=8, local_size_px=32)
    task = Dinov2Task(build_backbone("test_vit"), augment, Preprocess(image_size_px=64), **options)
    assert dict(task.hparams) == options


def test_the_teacher_sees_no_mask_and_the_student_does() -> None:
    task, tokens = make_task(), {}
    for name, network in (("student", task.backbone), ("teacher", task.teacher_backbone)):

        def keep(_module, given, name=name) -> None:
            tokens.setdefault(name, given[0].detach())  # the student's global views come first

        network.model.blocks[0].register_forward_pre_hook(keep)
    masks, mask = [], task.mask
    task.mask = lambda images: masks.append(mask(images)) or masks[-1]
    task.mask_token.value.data.fill_(5.0)
    task.loss(views_of())
    prefix = task.backbone.model.num_prefix_tokens
    student, teacher = (tokens[name][:, prefix:] for name in ("student", "teacher"))
    hidden = masks[0].flatten(1)
    assert hidden.sum() > 0
    assert hidden.any(1).sum() == 4  # half of the eight global views
    assert torch.equal(student[~hidden], teacher[~hidden])
    assert ((student - teacher)[hidden].abs().amax(1) > 1).all()


def test_only_hidden_patches_enter_the_patch_loss() -> None:
    """The loss written out: mean over images of the mean over their hidden patches, and nothing of the others."""
    task, views = make_task().eval(), views_of()
    mask = torch.zeros(8, 4, 4, dtype=torch.bool)
    mask[0, 1, 1:3] = True
    mask[5, 3, 0] = True
    task.mask = lambda images: mask
    with torch.no_grad():
        task.mask_token.value += 0.5
        found = task.loss(views)
        prefix, total = task.backbone.model.num_prefix_tokens, 0.0
        large, flat = torch.cat(views[:2]), mask.flatten(1)
        teacher = task.teacher_projection(task.teacher_backbone.model.forward_features(large)[:, prefix:])
        given = task.backbone.model.patch_embed(large)
        given[mask] = task.mask_token.value
        task.backbone.model.patch_embed.register_forward_hook(lambda _m, _i, _o: given)
        student = task.projection(task.backbone.model.forward_features(large)[:, prefix:])
        for image in (0, 5):
            said = (teacher[image, flat[image]] / 0.07).softmax(1)
            total -= (said * (student[image, flat[image]] / 0.1).log_softmax(1)).sum(1).mean() / 8
    torch.testing.assert_close(found.parts["ibot"], total)


def test_parts_add_up_and_gradient_reaches_all_of_the_student() -> None:
    task = make_task(separate_heads=True, ibot_weight=0.5, koleo_weight=0.2)
    terms = task.loss(views_of())
    parts = terms.parts
    wanted = parts["dino"] + 0.5 * parts["ibot"] + 0.2 * parts["koleo"]
    torch.testing.assert_close(terms.total, wanted)
    terms.total.backward()
    for name, parameter in task.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
        assert name.startswith("teacher_") is not parameter.requires_grad or name.endswith("weight_g")
    assert terms.embedding.shape == (4, task.backbone.num_features)


def test_separate_heads_are_two(tmp_path: Path) -> None:
    task = make_task(separate_heads=True, momentum_start=0.9, momentum_end=0.9)
    before = weights(task, "patch_projection")
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    after, key = task.state_dict(), "patch_projection.layers.0.weight"
    assert not torch.equal(after[key], after["projection.layers.0.weight"])
    torch.testing.assert_close(after[f"teacher_{key}"], 0.9 * before[key] + 0.1 * after[key], rtol=1e-5, atol=1e-7)
    assert not hasattr(make_task(), "patch_projection")


def test_teacher_moves_by_the_momentum_and_one_freezes_it(tmp_path: Path) -> None:
    task = make_task(momentum_start=0.8, momentum_end=0.8)
    before = weights(task, "backbone", "projection")
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    after = task.state_dict()
    for key in (k for k, p in task.named_parameters() if k in before and p.requires_grad):
        torch.testing.assert_close(after[f"teacher_{key}"], 0.8 * before[key] + 0.2 * after[key], rtol=1e-5, atol=1e-7)
    frozen = make_task(momentum_start=1.0)
    first = weights(frozen, "teacher_backbone", "teacher_projection")
    make_trainer(tmp_path, max_steps=2).fit(frozen, loader())
    assert all(torch.equal(value, frozen.state_dict()[key]) for key, value in first.items())


def test_loss_falls_on_32_images_and_its_parts_are_logged(tmp_path: Path) -> None:
    """Of a student whose goal stands still: teacher and centres do not move, and the centres suit the images."""
    still = {"momentum_start": 1.0, "center_momentum": 1.0, "weight_decay_end": None, "learning_rate": 1e-3}
    task = make_task(**still, layer_decay=1.0, patch_embed_scale=1.0)
    with torch.no_grad():
        images = task.preprocess(torch.stack([entry["image"] for entry in Sky()]))
        whole, patches = patch_tokens(task.teacher_backbone, images)
        task.criterion.center += task.teacher_projection(whole).mean(0)
        task.patch_criterion.center.center += task.teacher_projection(patches).mean((0, 1))
    logged = keep_logged(task)
    make_trainer(tmp_path, epochs=6).fit(task, loader())
    names = {"train/loss", "train/loss_dino", "train/loss_ibot", "train/loss_koleo", "train/collapse_std"}
    assert set(logged[0]) == names | {"train/momentum", "train/teacher_temperature"}
    for name in ("train/loss", "train/loss_dino", "train/loss_ibot"):
        values = [entry[name] for entry in logged]
        assert sum(values[-4:]) < 0.95 * sum(values[:4]), name
    assert not torch.equal(task.mask_token.value, torch.zeros(task.backbone.num_features))


def test_layers_learn_at_their_own_rates(tmp_path: Path) -> None:
    task = make_task(learning_rate=0.01, layer_decay=0.5, patch_embed_scale=0.2)
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    rates = {id(p): group["initial_lr"] for group in task.trainer.optimizers[0].param_groups for p in group["params"]}
    blocks = [rates[id(block.attn.qkv.weight)] for block in task.backbone.model.blocks]
    assert blocks == pytest.approx([blocks[-1] * 0.5 ** (len(blocks) - 1 - i) for i in range(len(blocks))])
    assert rates[id(task.backbone.model.patch_embed.proj.weight)] == pytest.approx(0.1 * blocks[0])
    assert rates[id(task.mask_token.value)] == rates[id(task.projection.layers[0].weight)] == 0.01


def test_sinkhorn_targets_use_all_prototypes_alike_and_leave_the_center() -> None:
    task = make_task(centring="sinkhorn")
    logits = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)) * 0.02
    logits[:, 3] += 0.1  # one answer for all
    said = (task.targets(logits, 0.07) / 0.07).softmax(1)
    torch.testing.assert_close(said.sum(1), torch.ones(64))
    assert said.mean(0).max() < 1.5 / 32
    assert (logits / 0.07).softmax(1).mean(0).max() > 3 / 32
    assert task.loss(views_of()).total.isfinite()
    assert (task.criterion.center == 0).all()
    assert (task.patch_criterion.center.center == 0).all()


def test_resumed_run_equals_the_uninterrupted_one_centers_included(tmp_path: Path) -> None:
    options = {"epochs": 2, "enable_checkpointing": True}
    chosen = {"drop_path_rate": 0.3, "momentum_start": 0.9}
    whole = make_task(**chosen)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(tmp_path, callbacks=[keep], **options).fit(whole, loader(16))
    torch.manual_seed(99)  # the global state must not matter
    resumed = make_task(**chosen)
    make_trainer(tmp_path, callbacks=[ModelCheckpoint(tmp_path, save_top_k=0)], **options).fit(
        resumed, loader(16), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True
    )
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    for key in ("criterion.center", "patch_criterion.center.center"):
        assert first[key].abs().sum() > 0
        assert not torch.equal(first[key], whole.state_dict()[key])


def without_neighbours() -> Dinov2Task:
    """Without KoLeo, which looks for neighbours on one device; every view with the same hidden patches."""
    task, hidden = make_task(koleo_weight=0.0), torch.zeros(4, 4, dtype=torch.bool)
    hidden[1, 1:3] = True
    task.mask = lambda images: hidden.expand(len(images), 4, 4)
    return task


def of_two(rank: int) -> dict[str, torch.Tensor]:
    task = without_neighbours()
    found = loss_and_gradients(task, views_of(8), rank)
    return found | {"center": task.criterion.center, "patches": task.patch_criterion.center.center}


def test_two_processes_give_loss_and_gradient_of_one() -> None:
    task = without_neighbours()
    one = loss_and_gradients(task, views_of(8))
    one |= {"center": task.criterion.center, "patches": task.patch_criterion.center.center}
    first, second = in_two_processes(of_two)
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, one["loss"], rtol=0, atol=1e-4)
    for key in one.keys() - {"loss"}:
        torch.testing.assert_close(first[key], one[key], rtol=1e-3, atol=1e-5)


def test_student_skips_branches_and_the_teacher_does_not() -> None:
    task = make_task(drop_path_rate=0.4)
    rates = [
        [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.model.blocks]
        for network in (task.backbone, task.teacher_backbone)
    ]
    assert rates[0][-1] == 0.4
    assert not any(rates[1])


def test_koleo_weighs_as_in_the_code_of_the_authors_who_add_both_views_up() -> None:
    parts = (terms := make_task().loss(views_of())).parts
    torch.testing.assert_close(terms.total, parts["dino"] + parts["ibot"] + 0.1 * (2 * parts["koleo"]))


@pytest.mark.parametrize("centring", ["mean", "sinkhorn"])
def test_double_precision(tmp_path: Path, centring: str) -> None:
    task = make_task(centring=centring)
    logged = keep_logged(task)
    make_trainer(tmp_path, max_steps=2, precision="64-true").fit(task, loader())
    assert all(torch.isfinite(torch.tensor([*entry.values()])).all() for entry in logged)


def test_half_precision_does_not_round_the_losses() -> None:
    task, views = make_task(), views_of()
    task.mask = lambda images: torch.eye(4, dtype=torch.bool).expand(len(images), 4, 4)
    with torch.no_grad():
        exact = task.loss(views).parts
        task.criterion.center.zero_()
        task.patch_criterion.center.center.zero_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = task.loss(views).parts
    for name, value in exact.items():  # of its inputs, some 1e-3 remains
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centring": "sinkhornn"}, "task.centring=sinkhornn is not known.*Did you mean 'sinkhorn'"),
        ({"mask_share": (0.5, 0.1)}, "rising mask_share"),
        ({"mask_probability": 1.5}, "mask_probability"),
        ({"optimizer": "sgd"}, "need optimizer=adamw"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(**options)


def test_a_backbone_without_patch_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="task=dinov2 hides patches, and test_resnet has no patch tokens"):
        Dinov2Task(build_backbone("test_resnet"), RadioAugment(local_crops=8), Preprocess(image_size_px=64))
