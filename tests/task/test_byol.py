import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader

from make.tiny_task import Sky, TinyBackbone, keep_logged, loader, make_trainer, weights
from make.tiny_task import make_task as make_any_task
from skyloom.errors import ConfigError, InputError
from skyloom.task import ByolTask
from skyloom.task.streams import step_seed
from skyloom.transform import Preprocess, RadioAugment

CONF = Path(__file__).parents[2] / "conf" / "task" / "byol.yaml"
OPTIONS = {
    "projection_dim": 8,
    "hidden_dim": 16,
    "prediction_hidden_dim": 16,
    "warmup_epochs": 0,
    "learning_rate": 0.05,
    "optimizer": "sgd",
    "seed": 3,
}


def make_task(dropout: float = 0.0, **options: object) -> ByolTask:
    return make_any_task(ByolTask, dropout=dropout, **(OPTIONS | options))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Restore the thread and random state that Lightning touches."""
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


ONLINE, TARGET = ("backbone", "projection"), ("target_backbone", "target_projection")


def test_conf_file_names_every_option() -> None:
    config = OmegaConf.create({"seed": 4, "task": OmegaConf.load(CONF)})
    options = OmegaConf.to_container(config.task, resolve=True)
    assert options.pop("name") == "byol"
    task = ByolTask(TinyBackbone(), RadioAugment(), Preprocess(image_size_px=16), **options)
    assert dict(task.hparams) == options


def test_target_starts_equal_then_lags_behind(tmp_path: Path) -> None:
    task = make_task(momentum_start=0.9, momentum_end=0.9)
    before, target = weights(task, *ONLINE), weights(task, *TARGET)
    assert all(torch.equal(before[k], target[f"target_{k}"]) for k in before)
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    after = weights(task, *ONLINE)
    for name, _ in [*task.backbone.named_parameters(prefix="backbone")]:
        assert not torch.equal(after[name], before[name]), name
        # One step of eq. 1, with the weights after the optimiser's step.
        wanted = 0.9 * before[name] + 0.1 * after[name]
        torch.testing.assert_close(task.state_dict()[f"target_{name}"], wanted, rtol=1e-5, atol=1e-7)
        assert not torch.equal(task.state_dict()[f"target_{name}"], after[name])


def test_no_gradient_reaches_the_target() -> None:
    task = make_task()
    view = torch.rand(4, 1, 16, 16)
    terms = task.loss([view, view.flip(3)])
    terms.total.backward()
    assert all(p.grad is None for part in TARGET for p in getattr(task, part).parameters())
    online = [p for part in (*ONLINE, "prediction") for p in getattr(task, part).parameters()]
    assert all(p.grad is not None for p in online)
    assert not terms.embedding.requires_grad


def test_optimizer_holds_the_online_network_only(tmp_path: Path) -> None:
    task = make_task(weight_decay=0.1)
    make_trainer(tmp_path, max_steps=1).fit(task, loader())
    optimizer = task.trainer.optimizers[0]
    decayed, plain = (group["params"] for group in optimizer.param_groups)
    assert {id(p) for p in [*decayed, *plain]} == {id(p) for p in task.parameters() if p.requires_grad}
    assert all(p.ndim > 1 for p in decayed)  # matrices and filters
    assert all(p.ndim == 1 for p in plain)  # biases and normalisation
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_momentum_one_freezes_the_target(tmp_path: Path) -> None:
    task = make_task(momentum_start=1.0, momentum_end=1.0)
    before = {k: v.clone() for k, v in task.target_backbone.named_parameters()}
    make_trainer(tmp_path, max_steps=3).fit(task, loader())
    assert all(torch.equal(before[k], v) for k, v in task.target_backbone.named_parameters())


def test_loss_is_0_for_right_and_4_for_unrelated_predictions() -> None:
    task = make_task()
    task.prediction = nn.Identity()
    task.eval()
    view = torch.rand(4, 1, 16, 16)
    loss = task.loss([view, view]).total
    torch.testing.assert_close(loss, torch.tensor(0.0), rtol=0, atol=1e-5)
    task.prediction = nn.Linear(8, 8, bias=False)  # a prediction at right angles to every projection
    turn = torch.zeros(8, 8)
    turn[torch.arange(0, 8, 2), torch.arange(1, 8, 2)] = 1.0
    task.prediction.weight.data = turn - turn.T
    loss = task.loss([view, view]).total
    torch.testing.assert_close(loss, torch.tensor(4.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adamw", 3e-3), ("lars", 1.0)])
def test_loss_falls_on_32_images(tmp_path: Path, optimizer: str, rate: float) -> None:
    task = make_task(optimizer=optimizer, learning_rate=rate, momentum_end=0.99)
    losses = keep_logged(task)
    make_trainer(tmp_path, epochs=6).fit(task, loader())
    values = [entry["train/loss"] for entry in losses]
    assert len(values) == 24
    assert sum(values[-4:]) / 4 < 0.8 * sum(values[:4]) / 4
    assert set(losses[0]) == {"train/loss", "train/collapse_std", "train/momentum"}
    assert all(0 < entry["train/collapse_std"] < 1 / math.sqrt(8) + 0.05 for entry in losses)


def test_schedules_run_from_start_to_end(tmp_path: Path) -> None:
    task = make_task(warmup_epochs=1, momentum_start=0.9, momentum_end=1.0, learning_rate=0.1)
    momenta, rates = [], []
    task.log_dict = lambda values, **_: (  # type: ignore[assignment]
        momenta.append(values["train/momentum"]),
        rates.append(task.trainer.optimizers[0].param_groups[0]["lr"]),
    )
    make_trainer(tmp_path, epochs=3).fit(task, loader())
    assert momenta[0] == 0.9
    assert momenta[-1] == 1.0
    assert momenta == sorted(momenta)
    assert momenta[5] == pytest.approx(0.95 - 0.05 * math.cos(math.pi * 5 / 11))
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1 * rates[4]
    assert task.trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_gradient_accumulation_counts_optimizer_steps(tmp_path: Path) -> None:
    task = make_task(warmup_epochs=1)
    followed = []
    update = task.after_step
    task.after_step = lambda step: (followed.append(task.scheduled(step)["momentum"]), update(step))  # type: ignore[assignment,func-returns-value]
    make_trainer(tmp_path, epochs=2, accumulate_grad_batches=2).fit(task, loader())
    assert task.total_steps == 4
    assert len(followed) == 4
    assert followed[-1] == 1.0


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    options = {"epochs": 2, "enable_checkpointing": True}
    whole = make_task(dropout=0.2, optimizer="adamw", learning_rate=1e-2)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(tmp_path, callbacks=[keep], **options).fit(whole, loader())
    torch.manual_seed(99)  # the global state must not matter
    resumed = make_task(dropout=0.2, optimizer="adamw", learning_rate=1e-2)
    same = ModelCheckpoint(tmp_path, save_top_k=0)  # Lightning asks for the callback that wrote the checkpoint
    trainer = make_trainer(tmp_path, callbacks=[same], **options)
    trainer.fit(resumed, loader(), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert whole.global_step == resumed.global_step == 8
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    first = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["state_dict"]
    assert not torch.equal(first["backbone.0.weight"], whole.state_dict()["backbone.0.weight"])


def test_checkpoint_is_plain_and_small(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="last")
    task = make_task(optimizer="adamw", projection_dim=64, hidden_dim=512, prediction_hidden_dim=512)
    make_trainer(tmp_path, max_steps=1, enable_checkpointing=True, callbacks=[keep]).fit(task, loader())
    path = tmp_path / "last.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"] == OPTIONS | {
        "optimizer": "adamw", "projection_dim": 64, "hidden_dim": 512, "prediction_hidden_dim": 512,
        "momentum_start": 0.99, "momentum_end": 1.0, "weight_decay": 1.5e-6,
    }  # fmt: skip
    assert {key.split(".")[0] for key in content["state_dict"]} == {*ONLINE, *TARGET, "prediction"}
    tensors = sum(v.nbytes for v in content["state_dict"].values())
    tensors += 2 * sum(p.nbytes for p in task.parameters() if p.requires_grad)  # the two moments of Adam
    assert path.stat().st_size < 1.1 * tensors + 20_000


def test_views_depend_on_seed_step_and_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_views(seed: int, rank: int) -> list[Tensor]:
        """The first views of the same batch in two epochs."""
        task, views = make_task(seed=seed), []
        loss = task.loss
        task.loss = lambda v: (views.append(v[0]), loss(v))[1]  # type: ignore[assignment,func-returns-value]
        monkeypatch.setattr(ByolTask, "global_rank", rank)
        make_trainer(tmp_path, epochs=2).fit(task, DataLoader(Sky(), batch_size=4, sampler=[0, 1, 2, 3]))
        return views

    views = first_views(1, 0)
    assert torch.equal(views[0], first_views(1, 0)[0])
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views[0], first_views(2, 0)[0])
    assert not torch.equal(views[0], first_views(1, 1)[0])
    assert step_seed(0, 1, 0, 1) != step_seed(0, 1, 0, 2)  # micro-batches of one accumulated step


def test_loss_treats_both_views_alike() -> None:
    task = make_task().eval()
    task.prediction.train()  # no running statistics yet, so that the two directions differ
    first, second = torch.rand(2, 4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    forth, back = task.loss([first, second]).total, task.loss([second, first]).total
    torch.testing.assert_close(forth, back)
    one_way = 2 + 2 * task.criterion(
        task.prediction(task.projection(task.backbone(first))), task.target_projection(task.target_backbone(second))
    )
    other_way = forth - one_way
    assert not torch.isclose(one_way, other_way, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adam"}, "task.optimizer=adam is not known.*Did you mean 'adamw'"),
        ({"momentum_start": 1.0, "momentum_end": 0.9}, "momentum_start <= momentum_end"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"seed": -1}, "seed >= 0"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task(**options)


def test_one_image_and_endless_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"at least 2 in each.*drop_last"):
        make_trainer(tmp_path).fit(make_task(), loader(batch=1))
    with pytest.raises(ConfigError, match=r"set trainer\.max_epochs"):
        make_trainer(tmp_path, epochs=-1).fit(make_task(), loader())
