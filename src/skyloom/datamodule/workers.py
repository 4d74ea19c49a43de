"""How the processes that read ahead are started."""

from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext


def reading_context(workers: int, module: str) -> BaseContext | None:
    """Return how a loader starts its workers: from a server that has imported the data module once for all of them.

    A forked worker inherits locks of threads that it does not have (polars, OpenCV), and may wait for ever. A fork
    server only imports, so that its children are clean; what it has imported, they need not: each starts within
    milliseconds and shares the memory of torch and Lightning with the others.

    Parameters
    ----------
    workers
        Number of worker processes; with 0 there are none to start.
    module
        What the server imports: the module of the data set and of the functions that workers call.
    """
    if not workers or "forkserver" not in get_all_start_methods():
        return None  # the usual way of the system
    context = get_context("forkserver")
    context.set_forkserver_preload([module])
    return context
