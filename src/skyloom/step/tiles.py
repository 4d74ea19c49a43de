"""The input 'images' of a step on a survey with bands: tiles below folders, or an artifact that holds such files."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skyloom.errors import InputError
from skyloom.progress import say
from skyloom.sky.files.tile_files import FoundTiles, TileFiles, find_tiles
from skyloom.sky.survey.facts import Survey
from skyloom.step.images import artifact_of
from skyloom.store import Artifact, Store, fingerprint
from skyloom.store.ids import canonical


@dataclass(frozen=True)
class Tile(TileFiles):
    """One tile with the fingerprints of its files.

    Attributes
    ----------
    fingerprints : Mapping
        Of the content of each band's image, independent of the path.
    """

    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared_files(self) -> tuple[Path | None, Path | None, Path | None]:
        """Segmentation map, detections and truth, which serve all bands."""
        return self.segmentation, self.detections, self.truth


@dataclass(frozen=True)
class TileSet:
    """Tiles of a survey in the order of their names.

    Attributes
    ----------
    tiles : tuple of Tile
        Complete tiles: every band is there.
    survey_detections, survey_truth : Path or None
        Tables that serve the whole survey.
    artifact : Artifact or None
        The artifact that holds the files, if any.
    incomplete : Mapping
        Names of the tiles that were left out with ``on_missing=skip``, and what each lacks.
    prints : Mapping
        Fingerprints of segmentation maps and tables, by path.
    """

    tiles: tuple[Tile, ...]
    survey_detections: Path | None
    survey_truth: Path | None
    artifact: Artifact | None
    incomplete: Mapping[str, str]
    prints: Mapping[Path, str]

    def identity(self) -> dict[str, Any]:
        """Kind and id of the artifact, or number and digest of the files: the same wherever they lie."""
        if self.artifact:
            return self.artifact.identity()
        listed: list[Any] = [
            [tile.name, dict(tile.fingerprints), *(path and self.prints[path] for path in tile.shared_files)]
            for tile in self.tiles
        ]
        listed.append([path and self.prints[path] for path in (self.survey_detections, self.survey_truth)])
        listed.append(sorted(self.incomplete))
        files = sum(len(tile.images) for tile in self.tiles) + len(self.prints)
        return {"tiles": len(self.tiles), "files": files, "digest": hashlib.sha256(canonical(listed)).hexdigest()}

    def recorded_path(self, path: Path) -> tuple[str | None, str]:
        """How an index refers to a file: id of the artifact and path within it, or null and absolute path."""
        if self.artifact:
            return self.artifact.id, path.relative_to(self.artifact.path).as_posix()
        return None, str(path)


def open_tiles(value: Any, parameters: Mapping[str, Any], store: Store) -> TileSet:
    """Resolver of the input ``images`` for surveys with bands.

    Parameters
    ----------
    value
        A folder, a list of folders, or id, prefix or name of an ``images`` artifact. The files lie as
        ``survey.tiles`` says below it, or below its subfolder of the survey's name.
    parameters
        The step's other parameters: ``survey``; and ``on_missing``: with ``skip``, tiles that lack a band are left out
        (`TileSet.incomplete`), otherwise the first one is an error.
    store
        Where artifacts are looked up.

    Raises
    ------
    InputError
        A folder is missing, holds no tile, a tile lacks a band, or a file is there twice.
    StoreError
        The value is no path and stands for no artifact.
    """
    survey: Survey = parameters["survey"]
    artifact = artifact_of(value, store)
    found = find_tiles([artifact.path] if artifact else _folders(value), survey)
    if found.incomplete:
        _tell_incomplete(found, skip=parameters.get("on_missing") == "skip")
    wanted = [path for tile in found.tiles for path in tile.images.values()]
    shared = [
        path
        for group in (*((t.segmentation, t.detections, t.truth) for t in found.tiles),
                      (found.survey_detections, found.survey_truth))
        for path in group
        if path is not None
    ]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:  # many small reads, each waiting for the disk
        prints: dict[Path, str] = dict(zip([*wanted, *shared], pool.map(fingerprint, [*wanted, *shared]), strict=True))
    tiles = tuple(
        Tile(**vars(tile), fingerprints={band: prints[path] for band, path in tile.images.items()})
        for tile in found.tiles
    )
    return TileSet(
        tiles, found.survey_detections, found.survey_truth, artifact, found.incomplete,
        {path: prints[path] for path in shared},
    )  # fmt: skip


def _tell_incomplete(found: FoundTiles, *, skip: bool) -> None:
    name, why = next(iter(found.incomplete.items()))
    count = f"{len(found.incomplete)} of {len(found.tiles) + len(found.incomplete)} tiles lack a file"
    if not skip:
        raise InputError(f"tile {name}: {why}; {count}. Complete them, or leave such tiles out with on_missing=skip.")
    if not found.tiles:
        raise InputError(f"no tile is complete; the first is {name}: {why}.")
    say(f"tiles: {count} and are left out, the first is {name}: {why}")


def _folders(value: Any) -> list[Path]:
    places: Sequence[Any] = [value] if isinstance(value, str | Path) else value
    if (
        not isinstance(places, Sequence)
        or not places
        or not all(isinstance(place, str | Path) and str(place) for place in places)
    ):
        raise InputError(f"images={value!r}: expected a folder, a list of folders, or the id of an images artifact.")
    return list(_unique(Path(place).expanduser().absolute() for place in places))


def _unique(paths: Iterator[Path]) -> Iterator[Path]:
    yield from dict.fromkeys(paths)
