"""From the options of conf/executor to an executor."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from skyloom.errors import ConfigError, unknown_choice
from skyloom.store.executor import Executor, Local


class SlurmOptions(BaseModel):
    """Keys of conf/executor/slurm.yaml, which says what they are for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    folder: str
    pieces_per_job: PositiveInt
    max_jobs: PositiveInt
    parallel_jobs: PositiveInt
    retries: NonNegativeInt
    timeout_min: PositiveInt
    cpus: PositiveInt
    mem_gb: PositiveFloat
    gpus: NonNegativeInt
    partition: str | None
    account: str | None
    qos: str | None
    setup: list[str]
    additional: dict[str, Any]
    poll_s: PositiveFloat


class ProcessesOptions(BaseModel):
    """Keys of conf/executor/processes.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    workers: PositiveInt | None = Field(default=...)


class SerialOptions(BaseModel):
    """Keys of conf/executor/serial.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str


OPTIONS: dict[str, type[SerialOptions] | type[ProcessesOptions] | type[SlurmOptions]] = {
    "serial": SerialOptions,
    "processes": ProcessesOptions,
    "slurm": SlurmOptions,
}


def build_executor(options: Mapping[str, Any]) -> Executor:
    """Build an executor.

    Parameters
    ----------
    options
        ``name`` (``serial``, ``processes`` or ``slurm``) and all keys of its file in conf/executor.

    Raises
    ------
    ConfigError
        The name is not known, or a key is missing, unknown or of the wrong type.
    """
    name = str(options.get("name"))
    if name not in OPTIONS:
        raise unknown_choice("executor", name, OPTIONS)
    try:
        checked = OPTIONS[name].model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"executor.{where}={first['input']!r}: {first['msg'].lower()}") from None
    if isinstance(checked, SlurmOptions):
        from skyloom.executor.slurm import Slurm

        return Slurm(checked)
    return Local(checked.workers if isinstance(checked, ProcessesOptions) else 1)
