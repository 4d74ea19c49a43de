"""One self-contained HTML page: numbers, plots, lineage and the command that makes it again."""

import base64
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from skyloom.report.lineage import Ancestor

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Plot:
    """A picture on the page.

    Attributes
    ----------
    name : str
        File beside the page (``sky.png``).
    png : bytes
        The picture.
    caption : str
        What it shows, in a sentence or two.
    photo : bool
        True for images of the sky, whose colours a dark page must leave alone.
    """

    name: str
    png: bytes
    caption: str
    photo: bool = False

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height, read from the PNG header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height


@dataclass(frozen=True)
class Table:
    """A table: heads, rows of ready texts, and whether all but the first columns are numbers."""

    heads: list[str]
    rows: list[list[str]]
    text_columns: int = 1

    def text(self) -> str:
        """The table in plain letters, for a terminal."""
        lines = [self.heads, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


@dataclass(frozen=True)
class Section:
    """A part of the page: title, paragraphs, terms with explanations, tables and plots, in this order."""

    title: str
    text: list[str] = field(default_factory=list)
    terms: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)


def render(
    *,
    title: str,
    kind: str,
    id: str,
    lead: str,
    facts: list[tuple[str, str]],
    sections: list[Section],
    lineage: list[Ancestor],
    command: str,
    code: str,
) -> str:
    """Render the page.

    Parameters
    ----------
    title, kind, id
        Of the report.
    lead
        What the report found, in a sentence or two.
    facts
        A few key figures: value and what it is.
    sections
        The parts of the page.
    lineage
        The report and all it was made from, nearest first.
    command
        Shell command that makes the report again.
    code
        Version of the program.

    Returns
    -------
    str
        HTML without any reference to another file.
    """
    page = _template().render(
        title=title, kind=kind, id=id, lead=lead, facts=facts, sections=sections, lineage=lineage, command=command,
        code=code,
    )  # fmt: skip
    return page.rstrip() + "\n"


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("skyloom.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")
