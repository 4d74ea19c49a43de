"""Which code and which packages made an artifact."""

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "numpy", "scipy", "astropy", "polars", "h5py", "zarr", "torch", "torchvision", "lightning", "timm", "lightly",
    "hydra-core",
)  # fmt: skip


@cache
def code() -> dict[str, object]:
    """Version of skyloom, git commit of its checkout and whether tracked files differ from it.

    Returns
    -------
    dict
        ``version``; ``git_commit`` and ``git_dirty`` are None when the code is not in a git checkout. Of a
        copy that was made for jobs of a cluster (:mod:`skyloom.run.freeze`), those of the checkout at that time.
    """
    here = Path(__file__).resolve().parent
    note = here.parents[2] / "code.json"
    if note.exists():
        noted = json.loads(note.read_text())
        return {key: noted[key] for key in ("version", "git_commit", "git_dirty")}
    commit = _git(here, "rev-parse", "HEAD")
    status = _git(here, "status", "--porcelain", "--untracked-files=no") if commit else None
    dirty = None if status is None else bool(status)
    return {"version": _version("skyloom"), "git_commit": commit or None, "git_dirty": dirty}


@cache
def packages() -> dict[str, str]:
    """Versions of the installed packages that can change a result."""
    return {name: found for name in PACKAGES if (found := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git on this machine: recorded as unknown
    return done.stdout.strip() if done.returncode == 0 else None
