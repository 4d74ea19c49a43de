"""How answers are printed: tables and trees on a terminal, lines with tabs in a pipe."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WHOLE = ("id", "kind", "finished", "size")  # columns that stay in one line; on a narrow terminal the first two do
NARROW = 80


@dataclass
class Node:
    """A line of a tree: its columns, and the lines below it."""

    columns: tuple[str, ...]
    children: list["Node"] = field(default_factory=list)


def is_terminal() -> bool:
    """Whether a person reads the answer."""
    return sys.stdout.isatty()


def say(text: str) -> None:
    """Tell the person something that is no part of the answer."""
    print(text, file=sys.stderr)


def line(columns: Sequence[object]) -> None:
    """Print columns with tabs between; tabs and line ends within them become spaces."""
    print("\t".join(" ".join(str(column).split()) for column in columns))


def dump(value: Any) -> None:
    """Print JSON, for programs that want more than columns."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """Print rows; heads and title are for terminals only, which do not show columns that are empty throughout."""
    if not is_terminal():
        for row in rows:
            line(row)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    console = Console()
    whole = WHOLE if console.width >= NARROW else WHOLE[:2]
    filled = [at for at in range(len(heads)) if any(str(row[at]) for row in rows)]
    for at in filled:
        drawn.add_column(heads[at], overflow="fold", no_wrap=heads[at] in whole)
    for row in rows:
        drawn.add_row(*(Text(str(row[at])) for at in filled))  # Text: square brackets in a value are no mark-up
    console.print(drawn)


def sections(parts: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
    """Print names and values under headings; in a pipe each line starts with ``heading.name``."""
    if not is_terminal():
        for heading, rows in parts:
            for name, value in rows:
                line((f"{heading}.{name}", value))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 3, 0, 0))
    for heading, rows in parts:
        if rows:
            drawn.add_row(Text(heading, style="bold"), "")
        for name, value in rows:
            drawn.add_row(Text(f"  {name}"), Text(value, overflow="fold"))
    Console().print(drawn)


def tree(root: Node) -> None:
    """Print a tree; in a pipe each line starts with its depth, 0 for the root."""
    if not is_terminal():
        _lines(root, 0)
        return
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def grow(node: Node, into: Tree | None) -> Tree:
        label = Text("  ".join(column for column in node.columns if column))
        branch = Tree(label) if into is None else into.add(label)
        for child in node.children:
            grow(child, branch)
        return branch

    Console().print(grow(root, None))


def size_text(size: int) -> str:
    """Bytes as a person reads them on a terminal; the plain number in a pipe."""
    if not is_terminal():
        return str(size)
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def _lines(node: Node, depth: int) -> None:
    line((depth, *node.columns))
    for child in node.children:
        _lines(child, depth + 1)
