"""train.py ckpt=…: goes on with a finished fit for more epochs, from its last checkpoint."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import LightningModule

from skyloom.errors import ConfigError, InputError
from skyloom.store import Artifact, Store, fingerprint
from skyloom.trainer.job import CHECKPOINT as FILE
from skyloom.trainer.job import Job, Write
from skyloom.trainer.resume import KEY, VERSION

DAMAGED = (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile)

WHOLE = ("epoch", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")  # of a checkpoint
WHOLE_KEY = ("facts", "rows", "images", "batches", "sums")  # of our part of it


@dataclass(frozen=True)
class Start:
    """Where a fit starts: a checkpoint, given as a file or as the model that it belongs to; None is the beginning.

    Attributes
    ----------
    source
        The model, the file, or None.
    """

    source: Artifact | Path | None

    def identity(self) -> Any:
        """Null, kind and id of the model, or name and fingerprint of the file."""
        if isinstance(self.source, Path):
            return {"file": self.source.name, "fingerprint": fingerprint(self.source)}
        return self.source and self.source.identity()

    @property
    def file(self) -> Path | None:
        """The checkpoint."""
        return self.source.file(FILE) if isinstance(self.source, Artifact) else self.source


def open_start(value: Any, parameters: Mapping[str, Any], store: Store) -> Start:
    """Resolver of the input ``ckpt``: null, ``last``, an id, a name, a folder or a file."""
    if value is None:
        return Start(None)
    if isinstance(value, Artifact):
        return Start(store.open(value, "model"))
    if value == "last":
        return Start(_newest(store, parameters["task"].get("name")))
    path = Path(str(value)).expanduser()
    if path.is_file():
        return Start(path.absolute())
    if path.is_dir() and not (path / "manifest.json").exists() and (path / FILE).is_file():
        return Start((path / FILE).absolute())
    if path.is_dir():
        return Start(store.open(str(path.absolute()), "model"))
    if path.suffix == ".ckpt" or "/" in str(value):
        raise InputError(f"ckpt={value}: no such file; give the id of a model, a path to its {FILE}, last or null")
    return Start(store.open(str(value), "model"))


def go_on_from(file: Path, job: Job, write: Write) -> None:
    """Make the checkpoint of a finished fit the first one of this fit.

    Weights, moving averages, the state of the optimiser and the numbers of epoch and step are kept; schedules are those
    of this fit, at that step; counts of images and rows begin anew.

    Parameters
    ----------
    file
        The checkpoint of the other fit.
    job
        The fit; its checkpoint is written.
    write
        Opens a temporary path that replaces that checkpoint when it is whole.

    Raises
    ------
    InputError
        The checkpoint is damaged, unsafe, not of skyloom, of another version, or of another network.
    ConfigError
        The request is not one for more epochs of the same fit.
    """
    max_epochs, steps_per_epoch = job.options.max_epochs, job.steps_per_epoch()
    checkpoint = read_checkpoint(file)
    own = checkpoint[KEY]
    _same(file, own["facts"], job.facts)
    _fits(file, checkpoint["state_dict"], job.module)
    done = checkpoint["epoch"] if own["batches"] else checkpoint["epoch"] + _whole(checkpoint)
    if max_epochs <= done:
        raise ConfigError(
            f"ckpt: {file} has {done} epochs behind it; trainer.max_epochs={max_epochs} counts them too, raise it"
        )
    if own["batches"] or own["facts"]["steps_per_epoch"] != steps_per_epoch:
        raise ConfigError(
            f"ckpt: {file} has {own['facts']['steps_per_epoch']} optimiser steps per epoch, this fit would have "
            f"{steps_per_epoch}, which the schedules do not allow; start other data or batches with "
            "backbone.weights=ID instead"
        )
    checkpoint[KEY] = {**own, "rows": 0, "images": 0, "batches": 0, "sums": {}, "moved": True}
    checkpoint["callbacks"] = {}
    for scheduler in checkpoint["lr_schedulers"]:  # only where they are, not how long the other fit was
        kept = ("last_epoch", "_step_count", "_last_lr", "base_lrs", "lr_lambdas")
        for key in [key for key in scheduler if key not in kept]:
            del scheduler[key]
    with write(job.last.name) as path, path.open("wb") as out:  # given a path torch does not say that the disk is full
        torch.save(checkpoint, out)


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of ours, and nothing that would run code.

    Raises
    ------
    InputError
        It is damaged, unsafe, or not ours.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        if isinstance(error, UnpicklingError) and zipfile.is_zipfile(file):
            culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f" ({culprit.group(1)})" if culprit else ""
            raise InputError(
                f"ckpt: {file} holds Python objects besides tensors{what}, which could run any code when loaded; "
                f"skyloom writes none, so give a {FILE} of skyloom"
            ) from error
        raise InputError(f"ckpt: {file} is not a whole checkpoint; copy it again, or give another") from error
    part = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(part, dict):
        raise InputError(
            f"ckpt: {file} was not written by skyloom's train.py; backbone.weights={file.name} may load its backbone"
        )
    if part.get("version") != VERSION:
        raise InputError(
            f"ckpt: {file} has version {part.get('version', 0)} of the checkpoints, this skyloom reads {VERSION}; "
            f"start from its weights with backbone.weights, or use the skyloom that wrote it"
        )
    lost = [key for key in WHOLE if key not in checkpoint] + [key for key in WHOLE_KEY if key not in part]
    if lost:
        raise InputError(f"ckpt: {file} is not a whole checkpoint, it lacks {', '.join(lost)}; give another")
    return checkpoint


def own_checkpoint(job: Job, rows: int) -> dict[str, Any]:
    """Read the checkpoint that an earlier attempt at the same fit has left.

    Parameters
    ----------
    job
        The fit.
    rows
        Of its record, which the checkpoint counts on.

    Raises
    ------
    InputError
        It is damaged, of another version, or does not fit, or rows are lost.
    """
    try:
        checkpoint = read_checkpoint(job.last)
        _fits(job.last, checkpoint["state_dict"], job.module)
        if rows < checkpoint[KEY]["rows"]:
            raise InputError(f"metrics.csv beside {job.last} has {rows} of {checkpoint[KEY]['rows']} rows")
    except InputError as error:
        why = str(error).removeprefix("ckpt: ").partition(";")[0]
        raise InputError(
            f"this fit was interrupted and cannot go on: {why}; remove {job.folder} to begin anew"
        ) from error
    return checkpoint


def _whole(checkpoint: Mapping[str, Any]) -> int:
    """1 for a checkpoint from the end of an epoch whose number does not count that epoch yet."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return int(progress["completed"] > checkpoint["epoch"])


def _same(file: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare what is fitted; the network first, since that is what people get wrong."""
    for group, what in (("backbone", "network"), ("detector", "network"), ("task", "task")):
        there, here = theirs.get(group, {}), ours.get(group, {})
        for key in sorted({*there, *here} - {"seed", "allow_missing"}):
            then, now = there.get(key), here.get(key)
            if then != now:
                raise InputError(
                    f"ckpt: {file} is of another {what}: {group}.{key} is {then!r} there and {now!r} here; set "
                    f"{group}.{key}={'null' if then is None else then}, or start anew with backbone.weights"
                )


def _fits(file: Path, state: Mapping[str, torch.Tensor], module: LightningModule) -> None:
    wanted = module.state_dict()
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    if wrong or len(state) != len(wanted):
        key = next(iter(wrong), next((key for key in state if key not in wanted), "?"))
        there, here = (tuple(s[key].shape) if key in s else "nothing" for s in (state, wanted))
        raise InputError(
            f"ckpt: {file} does not fit: {len(wrong)} of {len(wanted)} tensors differ, such as {key} with {there} "
            f"there and {here} here; set backbone, task and transform as they were"
        )


def _newest(store: Store, task: Any) -> Artifact:
    models = [model for model in store.find("model") if (model.parameters.get("task") or {}).get("name") == task]
    models = [model for model in models if FILE in model.manifest["files"]]
    if not models:
        raise InputError(f"ckpt=last: no finished model of task {task} in {store.root}; give ckpt=null")
    return max(models, key=lambda model: (model.history.get("finished", ""), model.id))
