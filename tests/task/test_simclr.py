"""SimCLR: its loss is the paper's."""

import math

import pytest
import torch
from torch import Tensor, nn

from make.tiny_task import make_task
from skyloom.errors import ConfigError
from skyloom.task import SimclrTask

SMALL = {"projection_dim": 8, "hidden_dim": 16, "temperature": 0.5}


def eq_1(first: Tensor, second: Tensor, temperature: float) -> float:
    """Eq. 1 of Chen et al. 2020, averaged over all views, written out."""
    z = torch.cat([first, second])
    total = 0.0
    for i in range(len(z)):
        j = (i + len(first)) % len(z)
        similar = [math.exp(float(torch.cosine_similarity(z[i], z[k], dim=0)) / temperature) for k in range(len(z))]
        total -= math.log(similar[j] / sum(s for k, s in enumerate(similar) if k != i))
    return total / len(z)


def test_loss_is_the_formula_of_the_paper():
    task = make_task(SimclrTask, **SMALL).eval()
    views = list(torch.rand(2, 5, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        terms = task.loss(views)
        first, second = (task.projection(task.backbone(view)) for view in views)
    assert float(terms.total) == pytest.approx(eq_1(first, second, 0.5), rel=1e-5)
    torch.testing.assert_close(terms.embedding, first)


def test_loss_is_small_for_equal_views_of_different_images():
    task = make_task(SimclrTask, **SMALL | {"temperature": 0.01})
    task.backbone, task.projection = nn.Flatten(), nn.Identity()
    unlike = torch.eye(8).view(8, 1, 8, 1)
    assert float(task.loss([unlike, unlike]).total) < 1e-5
    alike = torch.ones(8, 1, 8, 1)
    assert float(task.loss([alike, alike]).total) == pytest.approx(math.log(15), rel=1e-5)


def test_gradient_reaches_everything():
    task = make_task(SimclrTask, **SMALL)
    task.loss(list(torch.rand(2, 4, 1, 16, 16))).total.backward()
    assert all(p.grad is not None for p in task.parameters())


def test_half_precision_does_not_round_the_loss():
    task = make_task(SimclrTask, **SMALL | {"temperature": 0.01})
    task.backbone, task.projection = nn.Flatten(), nn.Identity()
    views = list(torch.rand(2, 6, 1, 4, 4, generator=torch.Generator().manual_seed(0)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = task.loss(views).total
    torch.testing.assert_close(rounded, task.loss(views).total, rtol=0, atol=0)


def test_temperature_is_positive():
    with pytest.raises(ConfigError, match="temperature=0"):
        make_task(SimclrTask, temperature=0)
