"""What is known of the channels of a data set of several surveys: their statistics, and how bands are changed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from skyloom.datamodule.band_index import BandIndex, survey_facts
from skyloom.errors import ConfigError, InputError
from skyloom.store import Artifact
from skyloom.transform.detection_augment import DetectionAugment


def mean_std(
    stats: Mapping[str, Artifact | None], indexes: Mapping[str, BandIndex], area: Mapping[str, float]
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation of each channel, (C,); None where a survey has no statistics."""
    means: list[float] = []
    stds: list[float] = []
    for survey, index in indexes.items():
        artifact = stats[survey]
        if artifact is None:
            return None, None
        mean, std = channel_stats(artifact, index.bands)
        means += [area[survey] * value for value in mean]
        stds += [area[survey] * value for value in std]
    return torch.tensor(means), torch.tensor(stds)


def augmentation(
    options: Mapping[str, Any], indexes: Mapping[str, BandIndex], bands: Sequence[str]
) -> DetectionAugment:
    """Random changes of these bands; what the surveys' files say of them is filled in."""
    if "pool" not in options:
        raise ConfigError(
            "datamodule.augment has no key 'pool', so it is not made for a detector; add transform=detection, or "
            "switch changes off: datamodule.augment=null"
        )
    own = dict(options)
    for key in ("extinction", "wavelength_nm"):
        facts: dict[str, float] = {}
        for index in indexes.values():
            facts |= band_facts(index.artifact, key)
        own[key] = facts | dict(options.get(key) or {})
    try:
        return DetectionAugment(bands, **own)
    except TypeError as error:
        raise ConfigError(
            f"datamodule.augment: {error}; conf/transform/detection.yaml lists what is understood"
        ) from error


def channel_stats(stats: Artifact, bands: Sequence[str]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the raw pixels of each band, in the unit of the cutouts, by the method they chose.

    Raises
    ------
    InputError
        The statistics lack a band.
    """
    path = stats.file("stats.json")
    facts = json.loads(path.read_text())
    found = {
        band: (float(mean), float(std))
        for band, mean, std in zip(facts.get("bands", []), facts.get("mean", []), facts.get("std", []), strict=True)
    }
    if lacking := [band for band in bands if band not in found]:
        raise InputError(f"{path} has no statistics of {', '.join(lacking)}; run step=stats on the cutouts again")
    return [found[band][0] for band in bands], [found[band][1] for band in bands]


def band_facts(cutouts: Artifact, key: str) -> dict[str, float]:
    """What the survey's file said of each band when the cutouts were made, such as ``wavelength_nm``; no nulls."""
    bands = survey_facts(cutouts).get("bands")
    return {band["name"]: float(band[key]) for band in bands or () if band.get(key) is not None}
