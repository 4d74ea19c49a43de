"""What the groups ``trainer`` and ``datamodule`` say, and which of it decides the result."""

import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from skyloom.errors import ConfigError, unknown_choice
from skyloom.store.arguments import check_arguments
from skyloom.trainer.distributed.ranks import started
from skyloom.trainer.validation import ValidationOptions

PLACE = (  # where a fit runs and how often its state is saved: no part of an id
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "checkpoint_every_n_epochs",
    "checkpoint_every_min",
)


class MonitorOptions(BaseModel):
    """What is measured and drawn while a fit runs; none of it needs labels but the k-NN score.

    Attributes
    ----------
    images
        Recent images whose embeddings and features are kept and measured; 0 measures none.
    every_n_steps
        Optimiser steps between two measurements of them; rounded to rows of ``metrics.csv``.
    views_every_n_epochs
        Epochs between two pictures of the views; None draws none.
    knn_every_n_epochs
        Epochs between two k-NN scores, where a labelled set is given.
    knn_images
        At most so many images of the labelled set.
    knn_k, knn_temperature
        Neighbours that vote, and how much the nearest count (Wu et al. 2018).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: NonNegativeInt
    every_n_steps: PositiveInt
    views_every_n_epochs: PositiveInt | None
    knn_every_n_epochs: PositiveInt
    knn_images: PositiveInt
    knn_k: PositiveInt
    knn_temperature: PositiveFloat


class TrainerOptions(BaseModel):
    """Options of the fit; names are Lightning's where Lightning has them.

    Attributes
    ----------
    max_epochs
        Passes over the data.
    precision
        Arithmetic, in Lightning's words (``32-true``, ``bf16-mixed``).
    accumulate_grad_batches
        Batches per optimiser step.
    gradient_clip_val
        Largest norm of the gradient; None does not clip.
    limit_train_batches
        Batches per epoch, for trials; None takes all.
    log_every_n_steps
        Optimiser steps between two rows of ``metrics.csv``.
    deterministic
        Only use algorithms that give the same bits each time on one GPU.
    channels_last
        Keep the weights of convolutions with their channels last in memory, which is faster in bf16 and on CPUs;
        results differ by rounding.
    sync_batchnorm
        Batch statistics over all processes instead of each one's own part of the batch; on GPUs only.
    on_nan
        ``stop`` at a loss or gradient that is not finite, or ``skip`` that optimiser step.
    max_nan_fraction
        Largest share of all optimiser steps that may be skipped.
    monitor
        What is measured and drawn on the way.
    validation
        How often a task that validates does so, and on how much; no part of the ids of other tasks.
    devices, num_nodes
        Processes on each machine, one device each, and machines. Their product is part of the id, since the global
        batch is as many times ``batch_size``.
    strategy
        ``ddp``, or Lightning's longer name that also allows weights without a gradient, or ``fsdp``, which shares the
        weights out among the processes.
    accelerator
        Where it runs.
    checkpoint_every_n_epochs, checkpoint_every_min
        How often the state is saved from which a killed run goes on; minutes may be None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_epochs: PositiveInt
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: NonNegativeFloat | None
    limit_train_batches: PositiveInt | None
    log_every_n_steps: PositiveInt
    deterministic: bool
    channels_last: bool
    sync_batchnorm: bool
    on_nan: Literal["stop", "skip"]
    max_nan_fraction: Annotated[float, Field(ge=0, le=1)]
    monitor: MonitorOptions
    validation: ValidationOptions
    devices: PositiveInt
    num_nodes: PositiveInt
    strategy: Literal["ddp", "ddp_find_unused_parameters_true", "fsdp"]
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    checkpoint_every_n_epochs: PositiveInt
    checkpoint_every_min: PositiveFloat | None

    def parameter(self) -> dict[str, Any]:
        """What enters an id: all but where it runs and how often its state is saved; of the processes their number."""
        left_out = {*PLACE, "validation"} | (
            set() if self.channels_last else {"channels_last"}
        )  # older fits keep their ids
        return {**self.model_dump(exclude=left_out), "world_size": self.world_size}

    @property
    def shares_out(self) -> bool:
        """Whether no process has the whole network."""
        return self.strategy == "fsdp" and self.world_size > 1

    @property
    def world_size(self) -> int:
        """Processes on all machines together."""
        return self.devices * self.num_nodes

    def place(self, module: nn.Module) -> None:
        """Lay the weights of a module out in memory as ``channels_last`` says."""
        if self.channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def check_machine(self) -> None:
        """Refuse what this machine cannot do.

        Raises
        ------
        ConfigError
            Says what to set instead.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        on_gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and gpus > 0)
        if self.accelerator == "gpu" and not gpus:
            raise ConfigError("trainer.accelerator=gpu: torch sees no GPU here; use trainer=auto or trainer=cpu")
        if self.num_nodes > 1 and not started():
            raise ConfigError(
                f"trainer.num_nodes={self.num_nodes}: on several machines Slurm or torchrun has to start the "
                "processes; set hydra/launcher=slurm_ddp_nodes, or see docs/howto/many-gpus.md"
            )
        if on_gpu and self.devices > gpus:
            raise ConfigError(
                f"trainer.devices={self.devices}: torch sees {gpus} GPU(s) here; lower it (and let Slurm give GPUs to "
                "machines, --gpus-per-node, not to tasks)"
            )
        if self.devices > 1 and (self.accelerator == "mps" or (self.accelerator == "auto" and not on_gpu)):
            raise ConfigError(
                f"trainer.devices={self.devices} takes GPUs of NVIDIA, of which torch sees none here; to try it with "
                "that many processes on the CPU set trainer.accelerator=cpu"
            )
        on_mps = self.accelerator == "mps" or (self.accelerator == "auto" and torch.backends.mps.is_available())
        if self.precision == "16-mixed" and not (on_gpu or on_mps):
            raise ConfigError("trainer.precision=16-mixed: a CPU has none; set trainer.precision=bf16-mixed or 32-true")
        if self.strategy == "fsdp" and self.precision == "16-mixed":
            raise ConfigError("trainer.strategy=fsdp: set trainer.precision=bf16-mixed, which needs no scaled losses")
        if self.sync_batchnorm and not on_gpu:
            raise ConfigError(
                "trainer.sync_batchnorm=true: torch synchronises batch normalisation on GPUs only; set it to false, "
                "or use a backbone with layer normalisation (dinov2_s, swin_t)"
            )


class DataOptions(dict[str, Any]):
    """Options of a datamodule: its ``name`` and the arguments of its class."""

    FREE = ("workers", "cache_maps")  # the batches do not depend on them

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the name."""
        return {key: value for key, value in self.items() if key != "name"}

    def parameter(self) -> dict[str, Any]:
        """What enters an id."""
        return {key: value for key, value in self.items() if key not in self.FREE}


def data_options(value: Any) -> DataOptions:
    """Take the options of a datamodule from a mapping."""
    if not isinstance(value, Mapping):
        raise ValueError("expected a name and options")
    return DataOptions(value)


def named(group: str, options: dict[str, Any]) -> str:
    """The ``name`` in the options of a group, which leads to its module and class.

    Raises
    ------
    ConfigError
        When it is missing.
    """
    name = options.get("name")
    if not isinstance(name, str):
        raise ConfigError(
            f"{group}.name is missing; the file in conf/{group} says which module is meant, as name: byol"
        )
    return name


def checked(what: str, made: type, given: Mapping[str, Any], given_as_objects: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check options against the constructor of a class, names and types.

    Raises
    ------
    ConfigError
        For an unknown or missing option, or a value of the wrong type.
    """
    signature = inspect.signature(made)
    kept = [parameter for name, parameter in signature.parameters.items() if name not in given_as_objects]
    hints = get_type_hints(made.__init__, include_extras=True)  # type: ignore[misc]
    return check_arguments(what, signature.replace(parameters=kept), hints, given, unchecked=set())


def checked_some(what: str, made: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check options against a constructor that gets its other arguments from elsewhere, as of a datamodule.

    Raises
    ------
    ConfigError
        For an unknown option, or a value of the wrong type.
    """
    known = inspect.signature(made).parameters
    for name in given:
        if name not in known:
            raise unknown_choice(f"{what}: option", name, known)
    return checked(what, made, given, given_as_objects=tuple(name for name in known if name not in given))
