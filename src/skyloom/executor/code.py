"""A copy of this package for the jobs of an array: an edit while they wait in the queue changes nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import skyloom


@contextmanager
def copied_code(folder: Path) -> Iterator[Path]:
    """Yield a folder for PYTHONPATH with a copy of the package in it, below ``folder``; it goes with the jobs."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = Path(mkdtemp(prefix="code-", dir=folder))
    try:
        package = Path(skyloom.__file__).parent
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)
