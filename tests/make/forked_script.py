"""Runs the four scripts in children of a server that has imported the heavy packages, which saves seconds per call."""

import contextlib
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = ["hydra", "skyloom.run.script", "skyloom.run.verbs", "skyloom.product.features", "skyloom.step.cutouts",
            "skyloom.step.pack", "skyloom.step.neardup", "skyloom.step.download"]  # fmt: skip


def call(context: Any, *words: str, cwd: Path) -> CompletedProcess[str]:
    """Run ``words[0]``, a script of the root, as ``python words…`` in ``cwd`` would.

    Parameters
    ----------
    context
        A server of :func:`make.killed.server` with the modules ``IMPORTED``.
    words
        Script and arguments.
    cwd
        Folder to work in.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = context.Process(target=_main, args=(words, cwd, out, err))
        process.start()
        process.join()
        return CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _main(words: tuple[str, ...], cwd: Path, out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
    os.chdir(cwd)
    sys.argv = [str(ROOT / words[0]), *words[1:]]
    code: Any = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code if isinstance(code, int) else int(bool(code)))
