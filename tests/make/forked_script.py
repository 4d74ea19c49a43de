"""Runs the four scripts in children of a server that has imported the heavy packages, which saves seconds per call."""

import contextlib
import json
import os
import runpy
import socketserver
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from make.killed import server

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["annotate", "assemble", "cluster", "cutouts", "download", "integrity", "neardup", "pack", "part", "simulate",
         "simulate.roman_lsst", "stats", "subsample", "cutouts.tiles.step"]  # fmt: skip
IMPORTED = ["hydra", "skyloom.run.script", "skyloom.run.verbs", "skyloom.product.features", "skyloom.trainer.train",
            "skyloom.task", "skyloom.datamodule.cutouts", "skyloom.report.selection.report",
            *(f"skyloom.step.{name}" for name in STEPS)]  # fmt: skip
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")

# Stands for `python` where a shell runs commands: it hands them on to the process that holds the server.
PYTHON = """#!{python} -IS
import json, os, socket, sys
agent = socket.socket(socket.AF_UNIX)
agent.connect({address!r})
agent.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
agent.shutdown(socket.SHUT_WR)
out, err, code = json.loads(agent.makefile(encoding="utf-8").read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def running() -> Any:
    """The server, running, with one thread per library: forks must not meet other threads."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # the server inherits it
    try:
        context = server(IMPORTED)
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


def call(context: Any, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run ``words[0]``, a script of the root, as ``python words…`` in ``cwd`` would.

    Parameters
    ----------
    context
        A server of :func:`running`.
    words
        Script and arguments.
    cwd
        Folder to work in.
    env
        Environment; None for that of this process.
    """
    environment = dict(os.environ if env is None else env)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = context.Process(target=_main, args=(words, cwd, environment, out, err))
        process.start()
        process.join()
        return CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


@contextlib.contextmanager
def python(context: Any) -> Iterator[Path]:
    """A folder with a ``python`` that runs the four scripts in children of the server; to stand first in ``PATH``."""

    class Agent(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            words, cwd, environment = json.loads(self.rfile.read())
            done = call(context, *words, cwd=Path(cwd), env=environment)
            self.wfile.write(json.dumps([done.stdout, done.stderr, done.returncode]).encode())

    with tempfile.TemporaryDirectory(prefix="sk") as folder:  # addresses of sockets are short
        address = Path(folder) / "agent"
        program = Path(folder) / "python"
        program.write_text(PYTHON.format(python=sys.executable, address=str(address)))
        program.chmod(0o755)
        with socketserver.UnixStreamServer(str(address), Agent) as agent:
            thread = threading.Thread(target=agent.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield Path(folder)
            finally:
                agent.shutdown()
                thread.join()


def _main(words: tuple[str, ...], cwd: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    for path, number in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
    os.environ.clear()
    os.environ.update(environment)
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
