"""The fit of :mod:`make.tiny_fit` as a command, for tests that start train.py as people do."""

import sys
from collections.abc import Sequence
from pathlib import Path

from make.tiny_fit import AUGMENT, BACKBONE, BATCH, PREPROCESS, TASK, TRAINER, make_cutouts

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "train.py"


def words(group: str, options: dict) -> list[str]:
    """Overrides that set all options of a group."""
    found = []
    for key, value in options.items():
        if isinstance(value, dict):
            found += words(f"{group}.{key}", value)
        elif key != "name":
            said = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
            found.append(f"{group}.{key}={said}".replace(" ", ""))
    return found


def overrides(tmp_path: Path, **trainer) -> list[str]:
    """What follows ``train.py``; the cutouts are made in ``tmp_path/store`` unless they are there."""
    cutouts = make_cutouts(tmp_path / "store").id
    return [
        "task=byol", f"cutouts={cutouts}", f"datamodule.batch_size={BATCH}", f"paths.store={tmp_path / 'store'}",
        f"paths.runs={tmp_path / 'runs'}", *words("task", TASK), *words("backbone", BACKBONE),
        *words("transform.preprocess", PREPROCESS), *words("transform.augment", AUGMENT),
        *words("trainer", {**TRAINER, "log_every_n_steps": 1, **trainer}),
    ]  # fmt: skip


def torchrun(processes: int, tmp_path: Path, through: Path | None = None, **trainer) -> Sequence[str]:
    """A command that starts train.py in several processes of this machine, by way of a script that runs it if given."""
    own = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *own, *([str(through)] if through else []), str(TRAIN), *overrides(tmp_path, **trainer)]
