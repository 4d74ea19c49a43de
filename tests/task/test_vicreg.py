"""VICReg: its three terms are the paper's."""

import pytest
import torch
from lightly.loss import VICRegLoss
from torch import Tensor, nn

from make.tiny_task import keep_logged, loader, make_task, make_trainer
from skyloom.errors import ConfigError
from skyloom.task import VicregTask

SMALL = {"projection_dim": 6, "hidden_dim": 16, "warmup_epochs": 0, "optimizer": "sgd", "learning_rate": 0.01}


def terms_of_paper(a: Tensor, b: Tensor) -> dict[str, float]:
    """Eqs. 1 to 5 of Bardes et al. 2022 written out, with the two factors of the authors' code (see the docstring)."""
    (n, d), eps = a.shape, 1e-4

    def v(z: Tensor) -> float:
        return sum(max(0.0, 1.0 - float((z[:, j].var() + eps).sqrt())) for j in range(d)) / d

    def c(z: Tensor) -> float:
        matrix = sum(torch.outer(row, row) for row in z - z.mean(0)) / (n - 1)
        return sum(float(matrix[i, j]) ** 2 for i in range(d) for j in range(d) if i != j) / d

    s = sum(float((x - y).square().sum()) for x, y in zip(a, b, strict=True)) / n
    return {"invariance": s / d, "variance": (v(a) + v(b)) / 2, "covariance": c(a) + c(b)}


def pair() -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(7, 6, 1, 1, generator=draw) * torch.linspace(0.2, 2, 6).view(1, 6, 1, 1) for _ in range(2)]


def bare(**options: object) -> VicregTask:
    """A task that compares its views as they are."""
    task = make_task(VicregTask, **SMALL | options)
    task.backbone, task.projection = nn.Flatten(), nn.Identity()
    return task


def test_terms_are_those_of_the_paper():
    views = pair()
    terms, wanted = bare().loss(views), terms_of_paper(*(view.flatten(1) for view in views))
    assert {name: float(value) for name, value in terms.parts.items()} == pytest.approx(wanted, rel=1e-5)
    assert all(value > 0 for value in wanted.values())
    total = 25 * wanted["invariance"] + 25 * wanted["variance"] + wanted["covariance"]
    assert float(terms.total) == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(terms.total, VICRegLoss()(*(view.flatten(1) for view in views)))


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
def test_each_weight_weighs_its_term(name):
    weights = {f"{other}_weight": 0.0 for other in ("invariance", "variance", "covariance")}
    terms = bare(**weights | {f"{name}_weight": 3.0}).loss(pair())
    torch.testing.assert_close(terms.total, 3.0 * terms.parts[name])


def test_collapse_costs_variance_and_nothing_else():
    same = torch.ones(4, 6, 1, 1)
    parts = bare().loss([same, same]).parts
    assert float(parts["variance"]) == pytest.approx(0.99)  # 1 - sqrt(1e-4)
    assert float(parts["invariance"]) == float(parts["covariance"]) == 0.0


def test_parts_are_logged_one_by_one(tmp_path):
    task = make_task(VicregTask, **SMALL)
    logged = keep_logged(task)
    make_trainer(tmp_path, max_steps=2).fit(task, loader())
    names = ["loss", "loss_invariance", "loss_variance", "loss_covariance", "collapse_std"]
    assert list(logged[0]) == [f"train/{name}" for name in names]
    values = logged[1]
    parts = [values[f"train/loss_{name}"] for name in ("invariance", "variance", "covariance")]
    assert values["train/loss"] == pytest.approx(25 * parts[0] + 25 * parts[1] + parts[2], rel=1e-5)


def test_weights_are_not_negative():
    with pytest.raises(ConfigError, match="'covariance': -1"):
        make_task(VicregTask, covariance_weight=-1)
