"""A moving average of the weights of a network, which is judged and shipped in place of those that learn."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from skyloom.errors import ConfigError


class MovingAverage(AveragedModel):
    """Exponential moving average (Polyak & Juditsky 1992; with a rising decay as in TensorFlow's own).

    After n updates an update keeps min(decay, (1 + n) / (10 + n)) of the average, so that the random start is soon
    forgotten. Buffers, such as running statistics, are copied. It learns nothing by itself.

    Parameters
    ----------
    model
        The network that learns; copied.
    decay
        Share that an update keeps, above 0 and below 1.

    Raises
    ------
    ConfigError
        The decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"task.ema_decay={decay}: expected above 0 and below 1, or null for no average")
        super().__init__(model, multi_avg_fn=_Follow(decay))
        self.requires_grad_(False)


class _Follow:
    """The update, as a class so that tasks can be sent to other processes."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor | int) -> None:
        done = int(number)
        decay = min(self.decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(decay)(tuple(averaged), tuple(current), done)


def deployed(state: Mapping[str, Tensor], *, name: str, average: str) -> dict[str, Tensor]:
    """Choose from the state of a task the weights that are shipped.

    Parameters
    ----------
    state
        ``task.state_dict()``, or that of its checkpoint.
    name
        Attribute of the task that holds the network.
    average
        Attribute that holds its `MovingAverage`, where there is one.

    Returns
    -------
    dict
        Tensors by ``<name>.…``: the average if there is one, else the weights that learn; on the CPU, contiguous.
    """
    averaged = f"{average}.module."
    prefix = averaged if any(key.startswith(averaged) for key in state) else f"{name}."
    return {
        f"{name}.{key.removeprefix(prefix)}": torch.clone(value.detach().cpu(), memory_format=torch.contiguous_format)
        for key, value in state.items()
        if key.startswith(prefix)
    }
