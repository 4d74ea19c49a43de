"""What the groups ``trainer`` and ``datamodule`` say, and which of it decides the result."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt

from skyloom.errors import ConfigError, unknown_choice
from skyloom.store.arguments import check_arguments


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
    hints = get_type_hints(made.__init__)  # type: ignore[misc]
    return check_arguments(what, signature.replace(parameters=kept), hints, given, unchecked=set())


def refuse_unknown(what: str, made: type, given: Mapping[str, Any]) -> None:
    """Refuse options that the constructor of a class does not know."""
    known = inspect.signature(made).parameters
    for name in given:
        if name not in known:
            raise unknown_choice(f"{what}: option", name, known)
