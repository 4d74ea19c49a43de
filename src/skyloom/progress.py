"""Progress of long work: a rich bar with rate and time left on a terminal, quiet periodic lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

QUIET_INTERVAL_S = 30.0  # a log file of a day-long job stays readable at two lines a minute

T = TypeVar("T")

said = logging.getLogger("skyloom.said")  # a script lets it write into the log file of the command
said.setLevel(logging.INFO)
said.propagate = False
said.addHandler(logging.NullHandler())


def say(text: str) -> None:
    """Tell the person one thing: on stderr, since stdout carries the result alone, and in the log of the command."""
    print(text, file=sys.stderr, flush=True)
    said.info(text.strip())


class Bar(Protocol):
    """What the body of :func:`progress` gets: call ``advance`` when work is done."""

    def advance(self, n: int = 1) -> None:
        """Add ``n`` finished units."""


class _RichBar:
    def __init__(self, progress: object, task: int) -> None:
        self._progress, self._task = progress, task

    def advance(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)  # type: ignore[attr-defined]


class _QuietBar:
    """Writes a line at most every ``QUIET_INTERVAL_S`` seconds, and none for work that ends sooner."""

    def __init__(self, total: int | None, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = 0
        self.start = self._last = time.monotonic()

    def advance(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self._last >= QUIET_INTERVAL_S:
            self._last = now
            print(self.line(now), file=sys.stderr, flush=True)

    def line(self, now: float) -> str:
        elapsed = max(now - self.start, 1e-9)
        scale, unit = (1e6, "MB") if self.unit == "bytes" else (1, self.unit)
        done, rate = round(self.done / scale), self.done / scale / elapsed
        if not self.total:
            return f"{self.label}: {done} {unit} in {_clock(elapsed)}, {rate:.4g} {unit}/s"
        left = _clock((self.total - self.done) / scale / rate) if rate > 0 else "?"
        return (
            f"{self.label}: {done}/{round(self.total / scale)} {unit} ({100 * self.done / self.total:.0f} %), "
            f"{rate:.4g} {unit}/s, {left} left"
        )


@contextmanager
def progress(total: int | None, label: str, unit: str = "it") -> Iterator[Bar]:
    """Show the progress of one piece of work on stderr.

    Parameters
    ----------
    total
        Units of work; None when it is not known beforehand.
    label
        What is being done, shown in front of the numbers.
    unit
        What is counted (``windows``, ``images``); ``bytes`` are shown in MB or GB.

    Yields
    ------
    Bar
        Call ``bar.advance(n)`` whenever ``n`` more units are done.
    """
    if not sys.stderr.isatty():
        yield _QuietBar(total, label, unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: object) -> Text:
            speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
            return Text("" if speed is None else f"{speed:,.0f} {unit}/s")

    amount = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), Rate())
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as rich_progress:
        yield _RichBar(rich_progress, rich_progress.add_task(label, total=total))


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate over ``items`` and show how far it is; ``total`` defaults to ``len(items)`` where it has one."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(total, label, unit) as bar:
        for item in items:
            yield item
            bar.advance()


def seconds_text(seconds: float) -> str:
    """A duration for people: ``8.3 s``, from 100 s on hours, minutes and seconds."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
