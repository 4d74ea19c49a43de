"""Run a function in two processes that talk over gloo, as distributed training does; batch norm over both."""

import importlib.util
import inspect
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightly.utils.dist import gather, world_size
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from make.forking import Forking

TIMEOUT = timedelta(seconds=60)
# Imported once, by the process from which all others are forked. The first step of any optimiser imports torch._dynamo.
IMPORTED = ("lightning.pytorch", "skyloom.task", "torch._dynamo", __name__)


def in_two_processes(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``function(rank, *arguments)`` in two processes of one gloo group; what each returned, in order of rank.

    The function stands at the top level of a file, which both processes load (whatever pytest calls its module). What
    it returns is saved and loaded by torch: plain types and tensors. An error in a process is raised here.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = (str(inspect.getsourcefile(function)), function.__qualname__)
        _forking().call(_start, folder, place, arguments)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@cache
def _forking() -> Forking:
    return Forking(IMPORTED)


def _start(*arguments: Any) -> None:
    mp.start_processes(_process, args=arguments, nprocs=2, start_method="fork")


def _process(rank: int, folder: str, place: tuple[str, str], arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("in_two_processes", place[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dist.init_process_group("gloo", f"file://{folder}/group", timeout=TIMEOUT, rank=rank, world_size=2)
    try:
        torch.save(getattr(module, place[1])(rank, *arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


class GatheredBatchNorm(nn.Module):
    """Batch normalisation over the images of all processes: what nn.SyncBatchNorm does, which does not run on a CPU."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        everywhere = torch.cat(gather(x)) if world_size() > 1 else x
        dims = [0, *range(2, x.ndim)]
        mean = everywhere.mean(dims, keepdim=True)
        x = (x - mean) * (everywhere.var(dims, keepdim=True, correction=0) + self.eps).rsqrt()
        shape = [1, -1] + [1] * (x.ndim - 2)
        return x if self.weight is None else x * self.weight.view(shape) + self.bias.view(shape)


def gathered(module: nn.Module) -> nn.Module:
    """Replace batch normalisation in a module, where nn.SyncBatchNorm.convert_sync_batchnorm would."""
    for name, child in module.named_children():
        setattr(module, name, GatheredBatchNorm(child) if isinstance(child, _BatchNorm) else gathered(child))
    return module


class Loss(nn.Module):
    """The loss of a task as a forward pass, as DistributedDataParallel wants it."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, views: list[Tensor]) -> Tensor:
        return self.task.loss(views).total


def loss_and_gradients(task: nn.Module, views: list[Tensor], rank: int | None = None) -> dict[str, Tensor]:
    """Loss and gradients of one process (rank None), or of a process that has its half of each view."""
    model: nn.Module = Loss(gathered(task))
    if rank is not None:
        model = nn.parallel.DistributedDataParallel(model)
        half = len(views[0]) // 2
        views = [view[rank * half : (rank + 1) * half] for view in views]
    loss = model(views)
    loss.backward()
    return {"loss": loss.detach(), **{name: p.grad for name, p in task.named_parameters() if p.grad is not None}}
