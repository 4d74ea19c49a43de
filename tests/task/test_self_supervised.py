"""What every method promises, whatever it compares."""

import math
from pathlib import Path

import pytest
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.utils.data import DataLoader

from make.tiny_task import Sky, TinyBackbone, keep_logged, loader, make_task, make_trainer
from make.two_processes import in_two_processes, loss_and_gradients
from skyloom.errors import ConfigError, InputError
from skyloom.task import ByolTask, SimclrTask, VicregTask
from skyloom.task.optimizers import Recipe
from skyloom.transform import Preprocess, RadioAugment

CONF = Path(__file__).parents[2] / "conf" / "task"
COMMON = {"projection_dim": 8, "hidden_dim": 16, "warmup_epochs": 0, "seed": 3}
METHODS = {  # class, small options, rates at which it learns
    "byol": (ByolTask, {"prediction_hidden_dim": 16, "momentum_end": 0.99}, {"sgd": 0.05, "adamw": 3e-3, "lars": 1.0}),
    "simclr": (SimclrTask, {"temperature": 0.5}, {"sgd": 0.1, "adamw": 1e-2, "lars": 3.0}),
    "vicreg": (VicregTask, {}, {"sgd": 0.01, "adamw": 1e-2, "lars": 0.5}),
}
every_method = pytest.mark.parametrize("method", METHODS)


def make(method: str, optimizer: str = "adamw", **options: object):
    kind, own, rates = METHODS[method]
    options = COMMON | own | {"optimizer": optimizer, "learning_rate": rates[optimizer]} | options
    return make_task(kind, **options)


def two_views(images: int = 8) -> list[torch.Tensor]:
    return list(torch.rand(2, images, 1, 16, 16, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(autouse=True)
def quiet():
    """Restore the random state that Lightning touches."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@every_method
def test_conf_file_names_every_option(method):
    config = OmegaConf.create({"seed": 4, "task": OmegaConf.load(CONF / f"{method}.yaml")})
    options = OmegaConf.to_container(config.task, resolve=True)
    assert options.pop("name") == method
    small = {key: 8 for key in options if key.endswith("_dim")}
    task = METHODS[method][0](TinyBackbone(), RadioAugment(), Preprocess(image_size_px=16), **options | small)
    assert dict(task.hparams) == options | small


@every_method
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_loss_falls_on_32_images(tmp_path, method, optimizer):
    task = make(method, optimizer)
    logged = keep_logged(task)
    make_trainer(tmp_path, epochs=12).fit(task, loader())
    values = [entry["train/loss"] for entry in logged]
    assert len(values) == 48
    assert sum(values[-4:]) < 0.93 * sum(values[:4])
    assert all(0 < entry["train/collapse_std"] < 1 / math.sqrt(8) + 0.05 for entry in logged)


@every_method
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, method):
    whole, resumed = (make(method, dropout=0.2) for _ in range(2))
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(tmp_path, 2, enable_checkpointing=True, callbacks=[keep]).fit(whole, loader())
    torch.manual_seed(99)  # the global state must not matter
    same = ModelCheckpoint(tmp_path, save_top_k=0)
    trainer = make_trainer(tmp_path, 2, enable_checkpointing=True, callbacks=[same])
    trainer.fit(resumed, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    content = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    assert content["hyper_parameters"] == dict(whole.hparams)
    tensors = sum(v.nbytes for v in content["state_dict"].values())
    tensors += 2 * sum(p.nbytes for p in whole.parameters() if p.requires_grad)  # the two moments of Adam
    assert (tmp_path / "epoch=0.ckpt").stat().st_size < 1.1 * tensors + 40_000


@every_method
def test_three_channels_and_mixed_precision(tmp_path, method):
    task = make(method, channels=3)
    logged = keep_logged(task)
    make_trainer(tmp_path, max_steps=2, precision="bf16-mixed").fit(task, loader())
    assert all(math.isfinite(value) for entry in logged for value in entry.values())
    assert task.last_embedding.dtype == torch.float32


@every_method
def test_double_precision(tmp_path, method):
    task = make(method)
    logged = keep_logged(task)
    make_trainer(tmp_path, max_steps=2, precision="64-true").fit(task, loader())
    assert all(math.isfinite(value) for entry in logged for value in entry.values())
    assert next(task.backbone.parameters()).dtype == torch.float64


@every_method
def test_blank_and_constant_images_do_no_harm(method):
    images = Sky().images[:4].clone()
    images[0], images[1], images[2, 0, 0, 0] = torch.nan, 1.0, torch.inf
    task = make(method).eval()
    scaled = task.preprocess.scale(images)
    views = [task.preprocess.normalise(v) for v in task.augment(scaled, torch.Generator().manual_seed(0))]
    total = task.train().loss(views).total
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)


@every_method
def test_views_and_embedding_are_kept_for_pictures(tmp_path, method):
    task = make(method)
    make_trainer(tmp_path, max_steps=1).fit(task, loader(16))
    assert [tuple(view.shape) for view in task.last_views] == [(8, 1, 16, 16)] * 2
    assert all(-0.5 < view.min() < view.max() < 1.5 for view in task.last_views)
    assert not torch.equal(*task.last_views)
    assert task.last_embedding.shape == (16, 8)
    assert not task.last_embedding.requires_grad


def ddp(rank: int) -> dict:
    """In a process of two: loss and gradients of each method on half of the batch."""
    return {method: loss_and_gradients(make(method), two_views(), rank) for method in METHODS}


@pytest.fixture(scope="module")
def halves():
    return in_two_processes(ddp)


@every_method
def test_two_processes_have_the_loss_and_the_gradients_of_one(halves, method):
    """With batch normalisation over both, as SyncBN does it: the methods are functions of the global batch."""
    alone, (first, second) = loss_and_gradients(make(method), two_views()), (half[method] for half in halves)
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, alone["loss"], rtol=0, atol=1e-4)
    assert set(first) == set(alone)
    for name, wanted in alone.items():
        if name != "loss":
            torch.testing.assert_close(first[name], wanted, rtol=1e-3, atol=1e-4)
            assert torch.equal(first[name], second[name])
    plain = make(method).loss(two_views()).total
    torch.testing.assert_close(alone["loss"], plain.detach(), rtol=0, atol=1e-4)


@every_method
def test_every_batch_normalisation_becomes_synchronised(method):
    task = SyncBatchNorm.convert_sync_batchnorm(make(method))
    norms = [module for module in task.modules() if isinstance(module, _BatchNorm)]
    assert len(norms) >= 2
    assert all(isinstance(module, SyncBatchNorm) for module in norms)
    decayed, plain = Recipe(0.1, 0.1, 0, "sgd").groups(task.backbone, task.online())
    assert {id(p) for norm in norms for p in norm.parameters() if p.requires_grad} <= {id(p) for p in plain["params"]}
    assert all(p.ndim > 1 for p in decayed["params"])


@every_method
def test_one_image_and_endless_training_are_refused(tmp_path, method):
    with pytest.raises(InputError, match=rf"{method.upper()} .*at least 2 in each.*drop_last"):
        make_trainer(tmp_path).fit(make(method), loader(batch=1))
    with pytest.raises(ConfigError, match=r"set trainer\.max_epochs"):
        make_trainer(tmp_path, epochs=-1).fit(make(method), DataLoader(Sky(), batch_size=8))


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_layer_decay_slows_lower_layers(model):
    network = nn.Module()
    network.model = timm.create_model(model, num_classes=0)
    head = nn.Linear(4, 4)
    recipe = Recipe(1.0, 0.1, 0, "adamw", layer_decay=0.5)
    optimizer = recipe.build(recipe.groups(network, [head]))
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    assert set(rate) == {id(p) for p in [*network.parameters(), *head.parameters()]}
    assert rate[id(head.weight)] == (1.0, 0.1)
    assert rate[id(head.bias)] == (1.0, 0.0)
    parts = {"test_vit": ["patch_embed.proj", "blocks.0.attn.qkv", "blocks.1.attn.qkv"]}
    lower = parts.get(model, ["conv1.0", "layer1.0.conv1", "layer2.0.conv1"])
    rates = [rate[id(network.model.get_submodule(name).weight)][0] for name in lower]
    assert rates[0] < rates[1] < rates[2] < 1
    if model == "test_vit":
        assert rates[2] / rates[1] == rates[1] / rates[0] == 2
        assert rate[id(network.model.pos_embed)][1] == 0.0  # timm says that it does not decay
        scaled = Recipe(1.0, 0.1, 0, "adamw", layer_decay=0.5, patch_embed_scale=0.2)
        groups = scaled.groups(network, [head])
        slow = next(g["lr"] for g in groups for p in g["params"] if p is network.model.patch_embed.proj.weight)
        assert slow == pytest.approx(0.2 * rates[0])


def test_weight_decay_follows_its_schedule(tmp_path):
    task = make("simclr", weight_decay=0.04)
    task.recipe = Recipe(0.01, 0.04, 0, "adamw", weight_decay_end=0.4)
    seen = []
    task.after_step = lambda step: seen.append([g["weight_decay"] for g in task.trainer.optimizers[0].param_groups])
    make_trainer(tmp_path, epochs=2).fit(task, loader())
    decayed, plain = zip(*seen, strict=True)
    assert decayed[0] == pytest.approx(0.04)
    assert decayed[-1] == pytest.approx(0.4)
    assert list(decayed) == sorted(decayed)
    assert set(plain) == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "task.optimizer=adam is not known.*Did you mean 'adamw'"),
        ({"learning_rate_end": 1.0}, "learning_rate_end=1.0: expected 0 to 0.1"),
        ({"weight_decay": 0.0, "weight_decay_end": 0.4}, "needs weight_decay > 0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0: expected above 0"),
        ({"layer_decay": 0.9, "optimizer": "lars"}, "need optimizer=adamw, found lars"),
    ],
)
def test_recipes_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**{"learning_rate": 0.1, "weight_decay": 0.1, "warmup_epochs": 0, "optimizer": "adamw"} | options)
