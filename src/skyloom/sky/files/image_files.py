"""Finds the image files of a survey in files, folders and globs, under stable and unique names."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from skyloom.errors import InputError
from skyloom.sky.files.image import SUFFIXES
from skyloom.sky.survey.facts import Survey


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
        if not str(place).strip():  # else the working directory
            raise InputError("an empty text is no place to look for images; did the command fail that should fill it?")
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
