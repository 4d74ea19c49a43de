"""What the groups ``trainer`` and ``datamodule`` say, and which of it decides the result."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt

from skyloom.errors import ConfigError


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
    accelerator: Literal["auto", "cpu", "gpu", "mps"]
    checkpoint_every_n_epochs: PositiveInt
    checkpoint_every_min: PositiveFloat | None

    def parameter(self) -> dict[str, Any]:
        """What enters an id: all but where it runs and how often its state is saved."""
        return self.model_dump(exclude={"accelerator", "checkpoint_every_n_epochs", "checkpoint_every_min"})


class DataOptions(dict[str, Any]):
    """Options of a datamodule: its ``name`` and the arguments of its class."""

    FREE = ("workers",)  # the order of the batches does not depend on it

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything but the name."""
        return {key: value for key, value in self.items() if key != "name"}

    def parameter(self) -> dict[str, Any]:
        """What enters an id."""
        return {key: value for key, value in self.items() if key not in self.FREE}


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
