"""A run of Weights & Biases for an artifact: opened, told the lineage, and closed so that it can be uploaded."""

import io
import json
import logging
import os
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from pydantic import BaseModel, ConfigDict, ValidationError

from skyloom.errors import ConfigError
from skyloom.trainer.tracking.about import About, tracker_name

log = logging.getLogger("skyloom")

CLOSED = "closed.json"  # in the folder of a run: it has ended, and may be uploaded
STEP = "trainer/global_step"
STARTS_PER_S = 4  # of the jobs of an array that log in at once


class WandbOptions(BaseModel):
    """Options of Weights & Biases; names are those of ``wandb.init``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["offline", "online", "disabled"]
    project: str
    entity: str | None
    name: str | None
    group: str | None
    job_type: str | None
    tags: list[str]


def open_wandb(options: WandbOptions, about: About, folder: Path) -> WandbLogger:
    """Open the run whose id is that of the artifact.

    Online it goes on with the run of an earlier attempt. Offline, where W&B cannot, it begins another segment with the
    same id, to which :class:`skyloom.trainer.tracking.retell.Retell` repeats what the record has, so that the newest
    segment is the whole run.

    Parameters
    ----------
    options
        Where and how.
    about
        What the run is about.
    folder
        Of all segments of this run.

    Raises
    ------
    ConfigError
        The package is not installed, or the server refuses.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ConfigError("logger=wandb needs the package wandb: pip install wandb") from error
    folder.mkdir(parents=True, exist_ok=True)
    if wandb.run is not None:
        wandb.finish()  # a run left open in a notebook, or by another job of this process, would swallow this one
    if options.mode == "online":
        time.sleep(int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) % 64 / STARTS_PER_S)
    known = {"name": options.name or about.id, "job_type": options.job_type or about.verb}
    try:
        run = wandb.init(
            dir=folder,
            id=about.id,
            resume="allow",
            # Git is asked by skyloom: W&B would describe the folder one stands in, and upload what was edited there.
            settings=wandb.Settings(console="off", quiet=True, disable_git=True),
            **{**options.model_dump(), **known},
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"logger.wandb: {' '.join(str(error).split())}; log in with 'wandb login' or set logger.wandb.mode=offline"
        ) from error
    except ValidationError as error:  # of a variable of the environment: our own options are checked before
        first = error.errors()[0]
        key = "_".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"logger.wandb: W&B refuses its setting {key}={first['input']!r} ({first['msg'].lower()}), which comes "
            f"from the environment or a settings file of W&B; mend or unset WANDB_{key.upper()}"
        ) from error
    if options.mode == "offline":
        log.info("W&B run in %s; upload it when it has ended: slurm/sync_wandb.sh FOLDER", Path(run.dir).parent)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    run.config.update({**about.asked(), "code": about.code}, allow_val_change=True)
    for role, source in about.sources().items():
        entry = _entry(tracker_name(**source), source["kind"], source["id"], {"id": source["id"], "role": role})
        if options.mode == "offline":
            # What use_artifact does with an artifact of this kind, but for waiting for an answer of the server.
            run._log_artifact(entry, is_user_created=True, use_after_commit=True)
        elif options.mode == "online":
            run.use_artifact(entry)
    return WandbLogger(experiment=run, save_dir=folder, log_model=False)


def close_wandb(logger: WandbLogger, about: About, options: WandbOptions, *, whole: bool) -> None:
    """Close the run; one that is whole is told what it has made first.

    Parameters
    ----------
    logger
        Of :func:`open_wandb`.
    about
        What the run is about.
    options
        Noted, so that the same run is not told again.
    whole
        Whether the work has come to its end.
    """
    import wandb

    run: Any = logger.experiment
    folder = Path(run.dir).parent
    if whole and options.mode != "disabled":
        metadata = {
            "id": about.id,
            "step": about.step,
            "path": str(about.folder),
            "parameters": about.parameters,
            "code": about.code,
            **about.facts,
        }
        run.log_artifact(_entry(about.name, about.kind, about.id, metadata))
    wandb.finish(exit_code=0 if whole else 1)
    if options.mode != "disabled":
        (folder / CLOSED).write_text(json.dumps({"whole": whole, **_place(options)}))


def told_wandb(options: WandbOptions, folder: Path) -> bool:
    """Whether a run of the artifact has come to its end in the same project."""
    wanted = {"whole": True, **_place(options)}
    return any(json.loads(path.read_text()) == wanted for path in folder.glob(f"wandb/*run-*/{CLOSED}"))


def _place(options: WandbOptions) -> dict[str, Any]:
    return {"mode": options.mode, "entity": options.entity, "project": options.project}


def _entry(name: str, kind: str, id: str, metadata: dict[str, Any]) -> Any:
    """An artifact of W&B without files: a reference that is the same on every machine, so that equal ones are one."""
    import wandb

    entry = wandb.Artifact(name, type=kind, metadata=metadata)
    with redirect_stderr(io.StringIO()):  # it says of every reference that it does not know the scheme
        entry.add_reference(f"skyloom:{kind}/{id}", name=kind, checksum=False)
    return entry
