"""Facts about a survey and how its image files are found and named."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from skyloom.errors import ConfigError, InputError, unknown_choice
from skyloom.sky.image import SUFFIXES

_IMAGE_NAMES = ("folder", "path")


@dataclass(frozen=True)
class Survey:
    """What is known of a survey before a file is opened; the values come from ``conf/survey/<name>.yaml``.

    Attributes
    ----------
    name
        Short name, written into every index row.
    unit
        Unit of the pixel values in skyloom's spelling (``Jy/beam``); None: as each header says.
    pixel_scale_arcsec
        Side of a pixel; None: as each header says.
    beam_arcsec
        Major and minor axis (FWHM) of the beam; None: as each header says.
    image_patterns
        Glob patterns, relative to the folder that the user names, under which images lie.
    exclude_patterns
        Names of files in such folders that are no images, masks for instance; ``*`` and ``?`` stand for any text and
        any character, capitals and small letters alike.
    image_name
        ``folder``: an image is called after the folder that holds it; ``path``: after its path without the suffix.
    mask_name
        File name of the source mask beside each image; None: the survey ships none.
    base_url
        Address under which ``<image>/<file>`` can be downloaded; None: nobody has said.
    image_list
        Text file with the names of all images, one per line: its path, or a file of ``skyloom/data``; None: there
        is none.
    """

    name: str
    unit: str | None
    pixel_scale_arcsec: float | None
    beam_arcsec: tuple[float, float] | None
    image_patterns: tuple[str, ...]
    exclude_patterns: tuple[str, ...]
    image_name: str
    mask_name: str | None
    base_url: str | None
    image_list: str | None

    def parameter(self) -> dict[str, Any]:
        """What enters the id of a result: what pixels mean, not where files lie or how they are found."""
        beam = None if self.beam_arcsec is None else list(self.beam_arcsec)
        return {
            "name": self.name,
            "unit": self.unit,
            "pixel_scale_arcsec": self.pixel_scale_arcsec,
            "beam_arcsec": beam,
        }

    @classmethod
    def from_mapping(cls, facts: Mapping[str, Any]) -> Self:
        """Build a survey from the keys of its YAML file.

        Raises
        ------
        ConfigError
            A key is missing or unknown, or a value is of the wrong kind; the message names the key.
        """
        known = [field.name for field in fields(cls)]
        for key in facts:
            if key not in known:
                raise unknown_choice("survey key", key, known)
        for key in known:
            if key not in facts:
                raise ConfigError(f"survey.{key} is missing; write null where the survey does not say.")
        scale = facts["pixel_scale_arcsec"]
        return cls(
            name=_text("name", facts["name"]),
            unit=None if facts["unit"] is None else _text("unit", facts["unit"]),
            pixel_scale_arcsec=None if scale is None else _positive("pixel_scale_arcsec", scale),
            beam_arcsec=_beam(facts["beam_arcsec"]),
            image_patterns=_patterns(facts["image_patterns"]),
            exclude_patterns=_names(facts["exclude_patterns"]),
            image_name=_one_of("image_name", facts["image_name"], _IMAGE_NAMES),
            mask_name=None if facts["mask_name"] is None else _text("mask_name", facts["mask_name"]),
            base_url=None if facts["base_url"] is None else _text("base_url", facts["base_url"]),
            image_list=None if facts["image_list"] is None else _text("image_list", facts["image_list"]),
        )


@dataclass(frozen=True)
class FoundImage:
    """An image of a survey: the name it goes by in the index, and its absolute path."""

    name: str
    path: Path


def find_images(where: str | Path | Sequence[str | Path], survey: Survey) -> list[FoundImage]:
    """Find a survey's images.

    Parameters
    ----------
    where
        A file, a folder, a glob (``mosaics/P1*``) or a list of these. Folders are searched for the survey's
        `image_patterns`, less what `exclude_patterns` name; files are taken as they are.
    survey
        The survey, which says where images lie in a folder and how they are named.

    Returns
    -------
    list of FoundImage
        Sorted by name, the same on every machine; names are unique, paths absolute. A file that is found twice is
        listed once.

    Raises
    ------
    InputError
        A place does not exist, holds no image, or two different files would go by the same name.
    """
    return look_for_images(where, survey)[0]


def look_for_images(where: str | Path | Sequence[str | Path], survey: Survey) -> tuple[list[FoundImage], list[Path]]:
    """As `find_images`, and the files besides that `exclude_patterns` left out, sorted."""
    places = [where] if isinstance(where, str | Path) else list(where)
    if not places:
        raise InputError("no place to look for images was given; give a file, a folder, a glob or a list of these.")
    found: dict[str, Path] = {}
    left_out: set[Path] = set()
    for place in places:
        images = [image for base, start in _expand(place) for image in _images_at(base, start, survey, left_out)]
        if not images:
            less = f", less {', '.join(survey.exclude_patterns)}" if survey.exclude_patterns else ""
            raise InputError(
                f"{place}: no image of survey '{survey.name}' found; looked for {', '.join(survey.image_patterns)}"
                f"{less}. Check the path, or choose another survey."
            )
        for image in images:
            other = found.setdefault(image.name, image.path)
            if other != image.path:
                raise InputError(
                    f"two images would both be called '{image.name}': {other} and {image.path}; "
                    "give the folder above both, or index them one at a time."
                )
    return [FoundImage(name, found[name]) for name in sorted(found)], sorted(left_out - set(found.values()))


def _expand(place: str | Path) -> Iterator[tuple[Path, Path]]:
    """Yield (folder that names are relative to, file or folder) for a place that may be a glob."""
    path = Path(place).expanduser().absolute()
    if path.exists():
        yield (path if path.is_dir() and path.suffix != ".zarr" else path.parent), path
        return
    if not glob.has_magic(str(place)):
        raise InputError(f"{path}: no such file or folder; check the path.")
    base = path
    while glob.has_magic(str(base)):
        base = base.parent
    for match in sorted(base.glob(path.relative_to(base).as_posix())):
        yield base, match


def _images_at(base: Path, start: Path, survey: Survey, left_out: set[Path]) -> Iterator[FoundImage]:
    if start.is_dir() and start.suffix != ".zarr":
        paths = {path for pattern in survey.image_patterns for path in start.glob(pattern)}
        excluded = {path for path in paths if _excluded(path, survey)}
        left_out |= excluded
        paths -= excluded
    else:
        paths = {start}
    for path in sorted(paths):
        yield FoundImage(_name(base, path, survey), path)


def _excluded(path: Path, survey: Survey) -> bool:
    return any(fnmatchcase(path.name.lower(), pattern.lower()) for pattern in survey.exclude_patterns)


def _name(base: Path, path: Path, survey: Survey) -> str:
    if survey.image_name == "folder":
        return path.parent.name
    name = path.relative_to(base).as_posix()
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default="")
    return name[: len(name) - len(suffix)]


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"survey.{key}={value!r}: expected a text that is not empty.")
    return value


def _positive(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"survey.{key}={value!r}: expected a number above 0, or null.")
    return float(value)


def _beam(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"survey.beam_arcsec={value!r}: expected [major, minor] in arcsec, or null.")
    return _positive("beam_arcsec", value[0]), _positive("beam_arcsec", value[1])


def _patterns(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(f"survey.image_patterns={value!r}: expected a list of glob patterns.")
    patterns = tuple(_text("image_patterns", pattern) for pattern in value)
    for pattern in patterns:
        if Path(pattern).is_absolute():
            raise ConfigError(f"survey.image_patterns={pattern!r}: expected a pattern relative to the named folder.")
    return patterns


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"survey.exclude_patterns={value!r}: expected a list of patterns of file names, or null.")
    patterns = tuple(_text("exclude_patterns", pattern) for pattern in value)
    for pattern in patterns:
        if "/" in pattern:
            raise ConfigError(f"survey.exclude_patterns={pattern!r}: expected the name of a file, without folders.")
    return patterns


def _one_of(key: str, value: object, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise unknown_choice(f"survey.{key}", value, choices)
    return str(value)
