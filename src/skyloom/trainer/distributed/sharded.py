"""Training with the weights, gradients and moments of the optimiser shared out among the processes (FSDP)."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from skyloom.errors import ConfigError
from skyloom.trainer.options import TrainerOptions


class Sharded(ModelParallelStrategy):
    """Each process keeps its part of every weight, and gathers the others for the length of a step.

    PyTorch's second implementation (``torch.distributed.fsdp.fully_shard``; Zhao et al. 2023, arXiv:2304.11277), in
    which every weight stays a tensor of its own: moving averages and optimisers work as they do without. The
    checkpoint is that of one process, so that it loads anywhere.

    Parameters
    ----------
    processes
        Their number.
    """

    def __init__(self, processes: int) -> None:
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step of the task as a forward pass of the whole, which is what gathers the weights."""
        assert self.lightning_module is not None
        assert self.model is not None
        with self.precision_plugin.train_step_context():
            module: Any = self.lightning_module
            return self._forward_redirection(self.model, module, "training_step", *args, **kwargs)


def share_out(module: LightningModule, *, sync_batchnorm: bool) -> None:
    """Let Lightning share out the weights of a module when its processes have met.

    The blocks of a transformer are gathered one by one, everything else together.

    Parameters
    ----------
    module
        Is changed for good.
    sync_batchnorm
        Batch statistics over all processes.
    """

    def configure() -> None:
        mesh = module.device_mesh["data_parallel"]  # type: ignore[index]
        if sync_batchnorm:
            nn.SyncBatchNorm.convert_sync_batchnorm(module)
        for part in list(module.modules()):
            if type(part).__name__ in ("Block", "SwinTransformerBlock"):
                fully_shard(part, mesh=mesh)
        fully_shard(module, mesh=mesh)

    module.configure_model = configure  # type: ignore[method-assign]


def refuse_other_sharding(facts: Mapping[str, Any], options: TrainerOptions) -> None:
    """Refuse to go on from a checkpoint whose optimiser has its moments in the other form.

    Raises
    ------
    ConfigError
        Says how it was begun.
    """
    begun = bool(facts.get("fsdp"))
    if begun != options.shares_out:
        before = "fsdp" if begun else "ddp (or one device)"
        raise ConfigError(
            f"trainer.strategy={options.strategy}: the checkpoint to go on from was made with {before}, whose "
            "optimiser cannot go on as the other; set it as before"
        )


def refuse_sharding(validates: bool, callbacks: int) -> None:
    """Refuse what needs the whole network in one process while it is shared out.

    Raises
    ------
    ConfigError
        Says what to set instead.
    """
    if validates:
        raise ConfigError(
            "trainer.strategy=fsdp: task=detect keeps and judges whole weights in one process; set trainer=ddp"
        )
    if callbacks:
        raise ConfigError(
            "trainer.strategy=fsdp: monitor_labels needs the whole network in one process; set monitor_labels=null, "
            "and score the finished model with task=probe"
        )
