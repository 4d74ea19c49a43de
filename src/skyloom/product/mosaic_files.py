"""The input 'images' of a product: whole images and mosaics of any size, one file each or one file per band."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyloom.errors import ConfigError, InputError
from skyloom.progress import say
from skyloom.sky.files.image import SUFFIXES
from skyloom.sky.files.image_files import look_for_images
from skyloom.sky.survey.facts import Survey
from skyloom.store import Artifact, Store, fingerprint
from skyloom.store.ids import canonical

KIND = "images"
ANY = Survey(
    name=KIND,
    unit=None,
    pixel_scale_arcsec=None,
    beam_arcsec=None,
    image_patterns=tuple(f"**/*{suffix}" for suffix in SUFFIXES),
    exclude_patterns=("*mask.*", "*weights.*", "*weight.*"),
    image_name="path",
    mask_name=None,
    base_url=None,
    image_list=None,
)
"""Images of any survey; masks and weights in a folder are no images."""


@dataclass(frozen=True)
class Mosaic:
    """One piece of sky: a name, unique in its set, and the files of its channels in their order."""

    name: str
    files: tuple[Path, ...]
    fingerprints: tuple[str, ...]


@dataclass(frozen=True)
class MosaicSet:
    """Images to run over.

    Attributes
    ----------
    bands
        Of each channel the name it was given; empty when a single file is all there is of an image.
    mosaics
        Sorted by name.
    artifact
        That holds them, if any.
    """

    bands: tuple[str, ...]
    mosaics: tuple[Mosaic, ...]
    artifact: Artifact | None = None

    def identity(self) -> dict[str, Any]:
        """Kind and id of the artifact, or number and digest of the files: the same wherever they lie."""
        if self.artifact:
            return self.artifact.identity()
        listed = [[mosaic.name, list(mosaic.fingerprints)] for mosaic in self.mosaics]
        digest = hashlib.sha256(canonical([list(self.bands), listed])).hexdigest()
        return {"files": sum(len(mosaic.files) for mosaic in self.mosaics), "digest": digest}


def open_mosaics(value: Any, _parameters: Mapping[str, Any], store: Store) -> MosaicSet | None:
    """Resolver of the input ``images``.

    Parameters
    ----------
    value
        A file, a folder, a glob, a list of these, or id, prefix or name of an ``images`` artifact: images of one band,
        each by itself. By band name (``{g: img_g.fits, r: img_r.fits}``) what holds that band: as many files for each
        band, which are put together in the order of their names. None stays None.
    store
        Where artifacts are looked up.

    Raises
    ------
    InputError
        Nothing is found, or another number of files for one band than for another.
    ConfigError
        The value is of another kind.
    StoreError
        The value is no path and stands for no artifact.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        artifact = _artifact(value, store)
        found = _found(artifact.path if artifact else value)
        return MosaicSet((), _printed([(name, (path,)) for name, path in found]), artifact)
    if not value or not all(isinstance(band, str) and band for band in value):
        raise ConfigError("images: expected files by the name of their band, as images={g: img_g.fits, r: img_r.fits}")
    by_band = {band: _found(where) for band, where in value.items()}
    numbers = {band: len(found) for band, found in by_band.items()}
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"{number} of band {band}" for band, number in numbers.items())
        raise InputError(
            f"images: expected as many files of each band, found {told}; name the files that belong together"
        )
    together = list(zip(*by_band.values(), strict=True))
    names = [_common([name for name, _ in files]) for files in together]
    if len(set(names)) < len(names):
        names = [files[0][0] for files in together]
    listed = [(name, tuple(path for _, path in files)) for name, files in zip(names, together, strict=True)]
    return MosaicSet(tuple(by_band), _printed(listed))


def _found(where: Any) -> list[tuple[str, Path]]:
    if not isinstance(where, str | Path | Sequence):
        raise ConfigError(f"images={where!r}: expected a file, a folder, a glob, or a list of these")
    found, left_out = look_for_images(where, ANY)
    if left_out:
        say(f"images: {len(left_out)} masks or weights are left out, the first is {left_out[0]}; name it to take it")
    return [(image.name, image.path) for image in found]


def _printed(listed: Sequence[tuple[str, tuple[Path, ...]]]) -> tuple[Mosaic, ...]:
    with ThreadPoolExecutor(8) as pool:  # many small reads, each waiting for the disk
        prints = list(pool.map(lambda item: tuple(fingerprint(path) for path in item[1]), listed))
    return tuple(Mosaic(name, files, found) for (name, files), found in zip(listed, prints, strict=True))


def _common(names: Sequence[str]) -> str:
    """What the names of the bands of one image have in common; img of img_g, img_r."""
    start, end = _same_start(names), _same_start([name[::-1] for name in names])[::-1]
    if len(start) + len(end) > min(len(name) for name in names):
        end = ""
    return (start.rstrip("_-. ") + end).strip("_-. /") or names[0]


def _same_start(names: Sequence[str]) -> str:
    alike = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return names[0][: alike.index(False) if False in alike else len(alike)]


def _artifact(value: Any, store: Store) -> Artifact | None:
    if isinstance(value, Artifact):
        return value
    if isinstance(value, str) and (store.names.get(value) or not _like_path(value)):
        return store.open(value, (KIND,))
    if isinstance(value, str | Path) and (Path(value) / "manifest.json").exists():
        return store.open(str(Path(value).absolute()), (KIND,))
    return None


def _like_path(text: str) -> bool:
    return os.sep in text or any(c in text for c in "*?[~") or Path(text).exists() or "." in Path(text).suffix
