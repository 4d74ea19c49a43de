"""Finds the files of a survey's tiles: images of all bands, segmentation map and tables, packed or unpacked."""

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyloom.errors import ConfigError, InputError
from skyloom.sky.files.tile_layout import ROLES
from skyloom.sky.survey.facts import Survey

PACKED = (".gz", ".fz")  # a file may lie unpacked or packed in one of these ways; the first that is there is taken


@dataclass(frozen=True)
class TileFiles:
    """Files of one tile.

    Attributes
    ----------
    name : str
        Name of the tile.
    images : Mapping
        Absolute path of the image of each band, in the order of the survey's bands.
    segmentation, detections, truth : Path or None
        Absolute paths; None when the survey has no such file, the tile lacks it, or it serves the whole survey.
    """

    name: str
    images: Mapping[str, Path]
    segmentation: Path | None
    detections: Path | None
    truth: Path | None


@dataclass(frozen=True)
class FoundTiles:
    """Tiles of a survey, by name; tables of the whole survey; and tiles that lack a file, with the reason."""

    tiles: tuple[TileFiles, ...]
    survey_detections: Path | None
    survey_truth: Path | None
    incomplete: Mapping[str, str]


def find_tiles(places: Sequence[Path], survey: Survey) -> FoundTiles:
    """Find the tiles of a survey below some folders.

    The patterns of ``survey.tiles`` are matched below each folder, or below its subfolder of the survey's name
    when there is one. Of a file that lies there packed and unpacked, the unpacked one is taken.

    Parameters
    ----------
    places
        Folders.
    survey
        The survey, with ``bands`` and ``tiles``.

    Returns
    -------
    FoundTiles
        Sorted by name, paths absolute, the same on every machine. Tiles that lack a band are in `incomplete`.

    Raises
    ------
    InputError
        A place is no folder, there is no tile, or two different files are the same thing of the same tile.
    """
    if survey.tiles is None or not survey.bands:
        raise ConfigError(f"survey={survey.name} has no bands and tiles; choose one that has, such as survey=roman.")
    found: dict[tuple[str, str, str], Path] = {}
    for place in (place.absolute() for place in places):
        if not place.is_dir():
            raise InputError(f"{place}: expected a folder with the files of survey '{survey.name}'; check the path.")
        below = place / survey.name
        for key, path in _look(below if below.is_dir() else place, survey).items():
            if found.setdefault(key, path).resolve() != path.resolve():
                raise _twice(key, found[key], path)
    names = sorted({tile for role, tile, _ in found if role == "image"})
    if not names:
        where = ", ".join(str(place) for place in places)
        raise InputError(
            f"{where}: no tile of survey '{survey.name}' found; looked for {survey.tiles.image} with a band of "
            f"{', '.join(band.name for band in survey.bands)}. Check the path, or survey.tiles."
        )
    incomplete = {name: why for name in names if (why := _lacking(name, found, survey))}
    tiles = [
        TileFiles(
            name,
            {band.name: found["image", name, band.name] for band in survey.bands},
            *(found.get((role, name, "")) for role in ROLES[1:]),
        )
        for name in names
        if name not in incomplete
    ]
    whole = {role: found.get((role, "", "")) for role in ROLES}
    return FoundTiles(tuple(tiles), whole["detections"], whole["truth"], incomplete)


def _look(folder: Path, survey: Survey) -> dict[tuple[str, str, str], Path]:
    """Files by role, tile ('' for the whole survey) and band ('' for all bands)."""
    assert survey.tiles is not None
    found: dict[tuple[str, str, str], Path] = {}
    for role in ROLES:
        pattern = survey.tiles.pattern(role)
        if pattern is None:
            continue
        plain = _unpacked(pattern)
        expression = _expression(plain, survey.tiles.name, [band.name for band in survey.bands])
        best: dict[tuple[str, str, str], Path] = {}
        for path in sorted(_candidates(folder, plain), key=lambda path: (_order(path), path.as_posix())):
            match = expression.fullmatch(_unpacked(path.relative_to(folder).as_posix()))
            if match is None:
                continue
            parts = match.groupdict()
            key = (role, parts.get("tile") or "", parts.get("band") or "")
            other = best.setdefault(key, path)
            if other.resolve() != path.resolve() and _unpacked(str(other)) != _unpacked(str(path)):
                raise _twice(key, other, path)
        found |= best
    return found


def _order(path: Path) -> int:
    return PACKED.index(path.suffix) + 1 if path.suffix in PACKED else 0


def _candidates(folder: Path, plain: str) -> list[Path]:
    """Absolute paths of what may be meant by a pattern; folders that are links are looked into, too."""
    wide = plain.replace("{tile}", "*").replace("{band}", "*") + "*"
    names = glob.glob(wide, root_dir=folder, recursive=True)  # noqa: PTH207, pathlib does not look into linked folders
    return [path for name in names if (path := folder / name).is_file()]


def _unpacked(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in PACKED if name.endswith(suffix)), name)


def _expression(pattern: str, tile: str, bands: Sequence[str]) -> re.Pattern[str]:
    """Regular expression of a glob pattern with ``{tile}`` and ``{band}``; each stands for one text throughout."""
    named = {"{tile}": ("tile", tile), "{band}": ("band", "|".join(re.escape(band) for band in bands))}
    seen: set[str] = set()
    text = ""
    for part in re.split(r"(\*\*/|\*|\?|\{tile\}|\{band\})", pattern):
        if part in named:
            name, inner = named[part]
            text += f"(?P={name})" if name in seen else f"(?P<{name}>{inner})"
            seen.add(name)
        else:
            text += {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(text)


def _lacking(name: str, found: Mapping[tuple[str, str, str], Path], survey: Survey) -> str | None:
    """What a tile lacks, None when it is complete."""
    assert survey.tiles is not None
    lost = [band.name for band in survey.bands if ("image", name, band.name) not in found]
    if not lost:
        return None
    wanted = survey.tiles.image.replace("{tile}", name).replace("{band}", lost[0])
    return f"band {', '.join(lost)} is missing (looked for {wanted})"


def _twice(key: tuple[str, str, str], one: Path, other: Path) -> InputError:
    role, tile, band = key
    what = " ".join(item for item in (role, f"of tile {tile}" if tile else "of the whole survey", band) if item)
    return InputError(
        f"two files would be the {what}: {one} and {other}; give a folder with one of them, or a narrower "
        f"survey.tiles.{role}."
    )
