"""Runs pieces of arithmetic on several threads such that their number changes no bit of a result."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_pool: ThreadPoolExecutor | None = None
_threads = 0


@contextmanager
def workers(threads: int | None = None) -> Iterator[None]:
    """Let :func:`ordered` use ``threads`` threads inside; None takes OMP_NUM_THREADS or, unset, all processors.

    BLAS itself is held to one thread meanwhile: a library that splits a product among its threads may round it
    differently for another number of them, whereas whole blocks given to threads do not. Inner blocks change nothing.
    """
    global _pool, _threads
    if _pool is not None:
        yield
        return
    _threads = threads or _usual()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(_threads) as _pool:
        try:
            yield
        finally:
            _pool = None


def ordered(call: Callable[[T], R], pieces: Iterable[T], *, alone: bool = False) -> Iterator[R]:
    """Yield ``call(piece)`` in the order of the pieces, computed by the threads of :func:`workers`.

    Only a few pieces are taken ahead, so that a stream of pieces from disk is never in memory as a whole. Work on very
    small arrays is best done by the calling thread ``alone``: threads would wait for the interpreter most of the time.
    """
    if _pool is None or _threads == 1 or alone:
        yield from map(call, pieces)
        return
    waiting: deque[Future[R]] = deque()
    for piece in pieces:
        waiting.append(_pool.submit(call, piece))
        if len(waiting) > 2 * _threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _usual() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else os.cpu_count() or 1
