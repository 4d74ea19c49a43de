"""The decorator that makes a function's result an artifact: validate, identify, look up, lock, build, finish."""

import errno
import inspect
import shutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from filelock import Timeout

from skyloom.errors import ConfigError, SkyloomError, StoreError
from skyloom.progress import say, seconds_text
from skyloom.store.arguments import check_arguments
from skyloom.store.artifact import Artifact
from skyloom.store.build import REQUEST, Build
from skyloom.store.executor import JOBS, Executor
from skyloom.store.flat import counts_text
from skyloom.store.ids import NotPlain, Request, canonical, plain
from skyloom.store.parallel import refuse_starting_worker
from skyloom.store.store import Store

Resolver = Callable[[Any, Mapping[str, Any], Store], Any]
"""Opens an input: gets the value as given, the checked other parameters and the store."""

WAIT_NOTE_S = 30.0
FULL = ("No space left on device", "Disk quota exceeded", "Not enough space on disk")


@dataclass(frozen=True)
class Plan:
    """What a dry run answers: the request, its id, and whether the store has it already.

    Attributes
    ----------
    request : Request
        What would be made.
    exists : bool
        True when the artifact is finished.
    pieces : int
        Pieces that an interrupted run has left and that would be used again.
    """

    request: Request
    exists: bool
    pieces: int

    @property
    def id(self) -> str:
        """Id that the artifact has or would get."""
        return self.request.id

    def __str__(self) -> str:
        state = "is there already" if self.exists else f"would be made ({self.pieces} pieces are done)"
        return f"{self.request.kind} {self.id} {state}"


def of_kind(*kinds: str) -> Resolver:
    """Resolver for an input that is an artifact of one of ``kinds``; None stays None."""

    def resolve(value: Any, _parameters: Mapping[str, Any], store: Store) -> Artifact | None:
        return None if value is None else store.open(value, kinds)

    return resolve


def builds(
    kind: str | Callable[[Mapping[str, Any]], str],
    *,
    version: int,
    inputs: Mapping[str, Resolver] | None = None,
    free: tuple[str, ...] = (),
    unused: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda values: (),
    pieces: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., Any]]:
    """Turn ``body(build, *, ...)`` into a function that returns a finished :class:`Artifact`.

    All keyword parameters of the body enter the artifact's id, so none can be forgotten; those named in
    ``free`` and by ``unused`` do not, and must therefore not change the result. The new function takes three more
    keywords: ``store`` (folder or :class:`Store`), ``name`` (a name to give) and ``dry_run`` (returns a :class:`Plan`).

    Parameters
    ----------
    kind
        Kind of the artifact.
    version
        Raise it when the same parameters would give another result than before.
    inputs
        Per input parameter how it is opened. What it opens to must have ``identity()``.
    free
        Parameters that change how fast the work goes, never what comes out (numbers of workers, devices).
    unused
        From all values, the parameters that are not read with such values (options of a strategy that was not chosen);
        they do not enter the id either.
    pieces
        Whether the body works by :meth:`Build.shards_in_parallel`: the function then takes a keyword ``executor``, too
        (who makes the pieces; None: processes on this machine).
    """
    resolvers = dict(inputs or {})

    def decorate(body: Callable[..., None]) -> Callable[..., Any]:
        signature = inspect.signature(body)
        names = [name for name in signature.parameters if name != "build"]
        hints = typing.get_type_hints(body, include_extras=True)

        @wraps(body)
        def call(
            *, store: Store | str | Path | None = None, name: str | None = None, dry_run: bool = False, **given: Any
        ) -> Artifact | Plan:
            if not isinstance(dry_run, bool):
                raise ConfigError(f"dry_run={dry_run!r}: expected true or false")
            executor = given.pop("executor", None) if pieces else None
            where = Store(store)
            step = body.__name__
            values = check_arguments(step, signature, hints, given, unchecked=set(resolvers))
            for key, resolver in resolvers.items():
                values[key] = resolver(values[key], values, where)
            aside = {*resolvers, *free, *unused(values)}
            request = Request(
                kind=kind if isinstance(kind, str) else kind(values),
                step=step,
                version=version,
                parameters={k: _parameter(k, values[k]) for k in names if k not in aside},
                inputs={k: _identity(values[k]) for k in resolvers},
            )
            settings = {k: values[k] for k in free} | ({"executor": str(executor)} if executor else {})
            return realise(where, request, lambda build: body(build, **values), name, dry_run, settings, executor)

        own = {"store": None, "name": None, "dry_run": False, **({"executor": None} if pieces else {})}
        extra = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in own.items()]
        kept = [p for n, p in signature.parameters.items() if n != "build"]
        call.__signature__ = signature.replace(parameters=kept + extra)  # type: ignore[attr-defined]
        call.step = body.__name__  # type: ignore[attr-defined]
        call.check = lambda arguments: check_arguments(  # type: ignore[attr-defined]
            body.__name__,
            signature,
            hints,
            {key: value for key, value in arguments.items() if key not in own},
            unchecked=set(resolvers),
        )
        return call

    return decorate


def realise(
    store: Store,
    request: Request,
    body: Callable[[Build], None],
    name: str | None,
    dry_run: bool,
    settings: dict[str, Any],
    executor: Executor | None = None,
) -> Artifact | Plan:
    """Return the artifact of a request, building it when the store does not have it.

    One process builds; others that ask for the same artifact meanwhile wait and then get the finished one.
    """
    kind, id = request.kind, request.id
    if name:
        store.names.check(name, f"{kind}/{id}")
    partial = store.partial(kind, id)
    if dry_run:
        waiting = Build(partial, request).shards()
        return Plan(request, store.has(kind, id), len(waiting))
    if store.has(kind, id):
        say(f"{kind} {id} is there already, nothing to do")
    else:
        _build_once(store, request, body, settings, executor)
    if name:
        store.names.give(name, f"{kind}/{id}")
    return Artifact(store.path(kind, id))


def _build_once(
    store: Store,
    request: Request,
    body: Callable[[Build], None],
    settings: dict[str, Any],
    executor: Executor | None,
) -> None:
    kind, id = request.kind, request.id
    refuse_starting_worker(f"{kind} {id}")
    lock = store.lock(kind, id)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is building {kind} {id}; waiting for it (lock {lock.lock_file})")
        while True:
            try:
                lock.acquire(timeout=WAIT_NOTE_S)
                break
            except Timeout:
                say(f"still waiting for {kind} {id}")
    try:
        if store.has(kind, id):
            say(f"{kind} {id} was finished by the other process")
            return
        if store.path(kind, id).exists():
            raise StoreError(
                f"{store.path(kind, id)} is in the way: it has no manifest, so it is no artifact; remove it and "
                "give the same command again"
            )
        build = Build(store.partial(kind, id), request, settings, executor)
        try:
            _run_body(build, body, store)
        except BaseException:
            build.interrupted()
            raise
    finally:
        lock.release()


def _run_body(build: Build, body: Callable[[Build], None], store: Store) -> None:
    kind, id = build.request.kind, build.request.id
    try:
        if build.whole():
            build.move(store.path(kind, id))
            return
        if pieces := build.prepare():
            say(f"{kind} {id}: going on after {pieces} finished pieces")
        (build.path / REQUEST).write_bytes(canonical(build.request.__dict__))
        body(build)
        made = build.finish(store.path(kind, id))
        told = f" ({counts})" if (counts := counts_text(made.counts)) else ""
        say(f"{kind} {id} was made in {seconds_text(made.history['seconds'])}{told}: {made.path}")
    except SkyloomError:
        if build.path.exists() and not build.worth_keeping() and not (build.path / JOBS).exists():
            shutil.rmtree(build.path)  # nothing worth resuming: leave no trace of a request that was refused
        raise
    except Exception as error:
        if _is_disk_full(error):
            raise StoreError(
                f"the disk is full while writing {kind} {id} in {store.root}; free some space and give the same "
                f"command again{_goes_on(build)}"
            ) from error
        raise


def _goes_on(build: Build) -> str:
    """Where the next attempt starts, for a message."""
    if pieces := len(build.shards()):
        return f", it goes on after the {pieces} pieces that are finished"
    return ", it goes on from its last checkpoint" if build.worth_keeping() else ""


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk; HDF5, Arrow and astropy only say so in their text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(error) for words in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _parameter(name: str, value: Any) -> Any:
    """What of an option enters the id; a number that is none is a mistake of whoever gave it."""
    try:
        return plain(value, name)
    except NotPlain as error:
        raise ConfigError(str(error)) from error


def _identity(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [_identity(item) for item in value]
    return plain(value.identity())
