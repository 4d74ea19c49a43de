"""Several processes for one fit: the caller is rank 0, the others are started here, or by Slurm or torchrun."""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from skyloom.errors import ConfigError, SkyloomError, StoreError
from skyloom.trainer.distributed.environment import Processes
from skyloom.trainer.distributed.outside import open_started
from skyloom.trainer.distributed.ranks import started, wrong_size
from skyloom.trainer.distributed.rendezvous import leader

GRACE_S = 60.0  # for rank 0 to notice by itself that another process is gone; NCCL may not
REPORT_S = 10.0  # for the report of a process whose end rank 0 has noticed


@contextmanager
def open_processes(work: Callable[[Any, Processes], None], job: Any, size: int) -> Iterator[Processes]:
    """Run ``work(job, environment)`` in processes 1 to ``size`` - 1, and the body of the ``with`` as rank 0.

    Parameters
    ----------
    work
        A function of a module.
    job
        Is pickled: each process gets a copy of its own.
    size
        Number of processes; with 1 nothing is started.

    Raises
    ------
    SkyloomError
        What another process raised, or that it was killed.
    ConfigError
        Slurm or torchrun have started another number of processes.
    """
    if mine := leader():
        with open_started(mine, work, job, size) as environment:
            yield environment
        return
    if size > 1 and (elsewhere := started()):
        raise ConfigError(f"{wrong_size(1, elsewhere)}: only train.py and recipes share a fit among them")
    environment = Processes(0, size, find_free_network_port())
    if size == 1:
        yield environment
        return
    threads = torch.get_num_threads()
    share = max(1, threads // size)
    # Bytes, since multiprocessing would place tensors in memory that all processes share, and train the same weights.
    content = pickle.dumps((work, job))
    context = get_context("spawn")
    others = []
    kept = {
        name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    }  # Lightning sets them
    try:
        for rank in range(1, size):
            receiver, sender = context.Pipe(duplex=False)
            its = Processes(rank, size, environment.main_port)
            process = context.Process(target=_work, args=(content, its, share, sender), name=f"rank {rank}")
            process.start()
            sender.close()
            others.append((process, receiver))
        ended, asking = threading.Event(), threading.Lock()
        watched = [process for process, _ in others]
        threading.Thread(target=_watch, args=(watched, ended, asking), daemon=True).start()
        torch.set_num_threads(share)
        try:
            try:
                yield environment
            finally:
                with asking:
                    ended.set()
            for process in watched:
                process.join(GRACE_S)
        except (SkyloomError, KeyboardInterrupt):
            raise
        except Exception as error:
            if cause := _report(others):
                raise cause from error
            raise
        if any(process.exitcode for process, _ in others):
            raise _report(others) or StoreError("another process of the fit failed without a word; try it again")
    finally:
        for process, receiver in others:
            process.kill()
            process.join()
            receiver.close()
        torch.set_num_threads(threads)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in kept.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _work(content: bytes, environment: Processes, threads: int, report: connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 is told and ends the others
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        work, job = pickle.loads(content)  # written by the parent process
        work(job, environment)
    except SkyloomError as error:
        report.send((type(error), str(error)))
        sys.exit(1)
    except SystemExit:
        raise  # rank 0 was told to stop, and all stop together
    except BaseException as error:
        report.send((StoreError, f"process {environment.rank} of the fit failed: {_line(error)}"))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone: nobody else would."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _watch(processes: list[Any], ended: threading.Event, asking: threading.Lock) -> None:
    """End rank 0 too when it waits in vain for one that has died.

    Only one thread may ask for an exit code at a time: where a server has forked the process, it can be read once, and
    the second to ask would be told 255.
    """
    waiting = {process.sentinel: process for process in processes}
    while waiting and not ended.is_set():
        for sentinel in connection.wait(list(waiting), timeout=1.0):
            process = waiting.pop(sentinel)
            with asking:
                if ended.is_set():
                    return
                process.join()
            if process.exitcode and not ended.wait(GRACE_S):
                print(f"error: {_killed(process)}", file=sys.stderr, flush=True)
                os._exit(2)


def _report(others: list[tuple[Any, connection.Connection]]) -> SkyloomError | None:
    """Why another process failed, if one did."""
    connection.wait([receiver for _, receiver in others], timeout=REPORT_S)
    for _, receiver in others:
        with suppress(EOFError):  # it has ended without a word
            if receiver.poll():
                kind, text = receiver.recv()
                return kind(text)
    for process, _ in others:
        end = time.monotonic() + 1.0
        while process.exitcode is None and time.monotonic() < end:  # the watching thread may be about to be told it
            process.join(0.05)
            time.sleep(0.01)
        if process.exitcode is not None and process.exitcode < 0:
            return StoreError(_killed(process))
    return None


def _killed(process: Any) -> str:
    name = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
    return (
        f"{process.name} of the fit has ended ({name}), most likely because memory ran out; give the same command "
        "again, it goes on from the last checkpoint, or lower datamodule.batch_size"
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
