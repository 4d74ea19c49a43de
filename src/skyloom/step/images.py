"""The input 'images' of a step: files, folders and globs of a survey, or an artifact that holds images."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from skyloom.errors import ConfigError, InputError
from skyloom.progress import say
from skyloom.sky.files.image_files import look_for_images
from skyloom.sky.survey.facts import JointSurvey, Survey
from skyloom.store import Artifact, Store, fingerprint
from skyloom.store.ids import canonical

KIND = "images"

SurveyFacts = Annotated[Survey, BeforeValidator(lambda v: v if isinstance(v, Survey) else Survey.from_mapping(v))]
"""Type of the parameter ``survey`` of a step: the keys of ``conf/survey/<name>.yaml``."""

JointFacts = Annotated[
    JointSurvey, BeforeValidator(lambda v: v if isinstance(v, JointSurvey) else JointSurvey.from_mapping(v))
]
"""Type of the parameter ``survey`` of a step that works on several surveys of one sky: ``survey=roman_lsst``."""


@dataclass(frozen=True)
class ListedImage:
    """One image of a set.

    Attributes
    ----------
    name : str
        Name within the survey (``P123+45``), unique in the set.
    path : Path
        Absolute path.
    fingerprint : str
        Of the file's content, independent of the path.
    mask : Path or None
        Source mask beside the image, when the step uses masks; it may not exist.
    mask_fingerprint : str or None
        Of the mask's content; None without one.
    """

    name: str
    path: Path
    fingerprint: str
    mask: Path | None = None
    mask_fingerprint: str | None = None


@dataclass(frozen=True)
class ImageSet:
    """Images in the order of their names, and the artifact that holds them, if any."""

    images: tuple[ListedImage, ...]
    artifact: Artifact | None

    def identity(self) -> dict[str, Any]:
        """Kind and id of the artifact, or number and digest of the files: the same wherever they lie."""
        if self.artifact:
            return self.artifact.identity()
        listed: list[list[str | None]] = [[image.name, image.fingerprint] for image in self.images]
        if any(image.mask for image in self.images):
            listed = [[*item, image.mask_fingerprint] for item, image in zip(listed, self.images, strict=True)]
        return {"files": len(listed), "digest": hashlib.sha256(canonical(listed)).hexdigest()}

    def recorded_path(self, image: ListedImage) -> tuple[str | None, str]:
        """How an index refers to an image: id of the artifact and path within it, or null and absolute path."""
        if self.artifact:
            return self.artifact.id, image.path.relative_to(self.artifact.path).as_posix()
        return None, str(image.path)


def open_images(value: Any, parameters: Mapping[str, Any], store: Store) -> ImageSet:
    """Resolver of the input ``images``.

    Parameters
    ----------
    value
        A file, a folder, a glob, a list of these, or id, prefix or name of an ``images`` artifact.
    parameters
        The step's other parameters; ``survey`` says how files are laid out. With ``strategy=mask`` the source masks
        beside the images belong to the input.
    store
        Where artifacts are looked up.

    Raises
    ------
    InputError
        When nothing is found.
    ConfigError
        When masks are wanted and the survey has none.
    StoreError
        When the value is no path and stands for no artifact.
    """
    survey: Survey = parameters["survey"]
    artifact = artifact_of(value, store)
    found, left_out = look_for_images(artifact.path if artifact else value, survey)
    if left_out:
        say(
            f"images: {len(left_out)} files are left out by survey.exclude_patterns, the first is {left_out[0]}; "
            "survey.exclude_patterns=null takes them, too"
        )
    if not found:
        raise InputError(f"no images of survey '{survey.name}' in {value}")
    masks: list[Path | None] = [None] * len(found)
    if parameters.get("strategy") == "mask":
        if survey.mask_name is None:
            raise ConfigError(
                f"strategy=mask needs source masks, and survey '{survey.name}' says of none; give "
                "survey.mask_name=FILE, the name of the mask beside each image"
            )
        # patterns such as *.fits find masks as well
        if not (found := [f for f in found if f.path.name != survey.mask_name]):
            raise InputError(f"only masks ({survey.mask_name}) and no images of survey '{survey.name}' in {value}")
        masks = [f.path.with_name(survey.mask_name) for f in found]
    with ThreadPoolExecutor(8) as pool:  # many small reads, each waiting for the disk
        prints = list(pool.map(fingerprint, [image.path for image in found]))
        mask_prints = list(pool.map(lambda mask: fingerprint(mask) if mask and mask.exists() else None, masks))
    images = tuple(
        ListedImage(f.name, f.path, digest, mask, mask_digest)
        for f, digest, mask, mask_digest in zip(found, prints, masks, mask_prints, strict=True)
    )
    return ImageSet(images, artifact)


def artifact_of(value: Any, store: Store) -> Artifact | None:
    """The ``images`` artifact that a value stands for; None when it is a path, a glob or a list of these.

    Raises
    ------
    StoreError
        The value is no path and stands for no artifact.
    """
    is_text = isinstance(value, str)
    if isinstance(value, Artifact) or (is_text and (store.names.get(value) or not _looks_like_path(value))):
        return store.open(value, KIND)
    if isinstance(value, str | Path) and (Path(value) / "manifest.json").exists():
        return store.open(str(Path(value).absolute()), KIND)
    return None


def _looks_like_path(text: str) -> bool:
    return bool(text) and (
        os.sep in text or any(c in text for c in "*?[~") or Path(text).exists() or "." in Path(text).suffix
    )
