"""How the files of a survey's tiles are named on disk and on a server."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from skyloom.errors import ConfigError
from skyloom.sky.survey.values import mapping, pattern, text

ROLES = ("image", "segmentation", "detections", "truth")
"""What a file of a tile may be."""


@dataclass(frozen=True)
class TileLayout:
    """How the files of a survey's tiles are named; ``{tile}`` and ``{band}`` stand for their names.

    Attributes
    ----------
    name : str
        Regular expression of a tile's name.
    image, segmentation, detections, truth : str or None
        Glob patterns relative to the folder that the user names, ``**`` is any depth. A table whose pattern has no
        ``{tile}`` serves the whole survey. None: the survey has no such file.
    remote : Mapping
        The same below ``base_url``, for step=download, by role; empty: nobody has said.
    """

    name: str
    image: str
    segmentation: str | None = None
    detections: str | None = None
    truth: str | None = None
    remote: Mapping[str, str] = field(default_factory=dict)

    def pattern(self, role: str) -> str | None:
        """Pattern of ``image``, ``segmentation``, ``detections`` or ``truth``."""
        value = getattr(self, role)
        return None if value is None else str(value)

    def file_name(self, role: str, *, tile: str = "", band: str = "") -> str:
        """Plain path to write such a file under: the pattern without ``**/``, names filled in, ``*`` left out.

        Raises
        ------
        ConfigError
            The survey has no such file.
        """
        value = self.pattern(role)
        if value is None:
            raise ConfigError(f"survey.tiles.{role} is null: this survey has no such file.")
        return value.replace("**/", "").replace("*", "").replace("{tile}", tile).replace("{band}", band)

    @classmethod
    def from_mapping(cls, facts: object) -> Self:
        """Build the layout from the survey's file."""
        facts = mapping("tiles", facts, [item.name for item in fields(cls)], ["name", "image"])
        name = text("tiles.name", facts["name"])
        try:
            re.compile(name)
        except re.error as error:
            raise ConfigError(f"survey.tiles.name={name!r} is no regular expression: {error}.") from error
        given = {role: pattern(f"tiles.{role}", facts[role]) for role in ROLES if facts.get(role) is not None}
        for holder in ("{tile}", "{band}"):
            if holder not in given.get("image", ""):
                raise ConfigError(f"survey.tiles.image={facts['image']!r}: expected {holder} in it.")
        if "{tile}" not in given.get("segmentation", "{tile}"):
            raise ConfigError(f"survey.tiles.segmentation={facts['segmentation']!r}: expected {{tile}} in it.")
        remote = mapping("tiles.remote", facts.get("remote") or {}, ROLES)
        return cls(name=name, **given, remote={role: pattern(f"tiles.remote.{role}", remote[role]) for role in remote})
