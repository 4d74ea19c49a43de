"""A moving average of weights."""

import pytest
import torch
from torch import nn

from skyloom.errors import ConfigError
from skyloom.task.ema import MovingAverage, deployed


def test_the_average_follows_with_a_decay_that_rises():
    network = nn.BatchNorm1d(1)
    average = MovingAverage(network, 0.5)
    values, kept = [1.0, 3.0, 7.0, 9.0, 2.0, 4.0, 8.0, 1.0, 5.0, 6.0, 0.0], None
    for done, value in enumerate(values):
        nn.init.constant_(network.weight, value)
        network.running_mean.fill_(value)
        average.update_parameters(network)
        decay = min(0.5, (1 + done) / (10 + done))
        kept = value if kept is None else decay * kept + (1 - decay) * value
        assert float(average.module.weight) == pytest.approx(kept, rel=1e-6)
        assert float(average.module.running_mean) == value, "buffers are copied"
    assert network.weight.requires_grad
    assert not average.module.weight.requires_grad


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_decays_that_cannot_be(decay):
    with pytest.raises(ConfigError, match="expected above 0 and below 1, or null"):
        MovingAverage(nn.Linear(1, 1), decay)


def test_what_is_shipped():
    state = {"detector.a": torch.ones(1), "ema.module.a": torch.zeros(2, 3).T, "ema.n_averaged": torch.tensor(3)}
    shipped = deployed(state, name="detector", average="ema")
    assert list(shipped) == ["detector.a"]
    assert shipped["detector.a"].shape == (3, 2)
    assert shipped["detector.a"].is_contiguous()
    assert deployed({"detector.a": torch.ones(1), "x": torch.ones(1)}, name="detector", average="ema").keys() == {
        "detector.a"
    }
