"""Which images a detector sees and with which weights: facts that travel to worker processes, opened there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from skyloom.detector.base import Detector
from skyloom.errors import ConfigError, InputError
from skyloom.product.detection_channels import Channels
from skyloom.product.detection_source import CutoutSource, Source
from skyloom.sky.survey.bands import CLASSES
from skyloom.store import Artifact, Store

WITHOUT_WEIGHTS = ("sep",)
MODEL_FACTS = "model.json"


@dataclass(frozen=True)
class ImageChoice:
    """Which images.

    Attributes
    ----------
    cutouts
        By survey; None: those behind the data set.
    dataset, part
        The images of a data set, or of a part of it; None: all cutouts.
    channels
        How surveys make the channels; None with `files`.
    files
        Whole images, as :func:`open_images` opened them; None: cutouts.
    mosaic
        How they are read, options of :class:`skyloom.product.mosaic_source.MosaicSource`.
    bands
        Survey and band of each channel that a model wants of them; None takes them as they are.
    image_roots
        Folders in which images that have moved are looked for.
    """

    cutouts: Mapping[str, Artifact | None]
    dataset: Artifact | None
    part: str | None
    channels: Channels | None
    files: Any
    mosaic: Mapping[str, Any]
    bands: tuple[tuple[str, str], ...] | None
    image_roots: str | None

    def open(self) -> Source:
        """Open the source."""
        if self.files is not None:
            from skyloom.product.mosaic_source import MosaicSource

            return MosaicSource(self.files, bands=self.bands, **self.mosaic)
        assert self.channels is not None
        return CutoutSource(
            self.cutouts, self.channels, dataset=self.dataset, part=self.part, image_roots=self.image_roots
        )


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector: that of a trained model, or one without weights by its options."""

    model: Artifact | None
    options: Mapping[str, Any] | None

    @property
    def facts(self) -> dict[str, Any]:
        """``model.json``; empty without a model."""
        return {} if self.model is None else json.loads(self.model.file(MODEL_FACTS).read_text())

    @property
    def name(self) -> str:
        """Of the detector."""
        options = self.facts["detector"] if self.options is None else self.options
        return str(options["name"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return CLASSES if self.model is None else tuple(self.facts["classes"])

    def build(self, in_chans: int) -> Detector:
        """Build the detector, in evaluation mode.

        Raises
        ------
        InputError
            It was trained on another number of channels.
        """
        if self.model is None:
            from skyloom.detector.build import build_detector

            assert self.options is not None
            detector = build_detector(self.options, backbone=None, in_chans=in_chans, classes=len(self.classes), seed=0)
        else:
            from skyloom.detector.load import load_detector

            detector = load_detector(self.model)
            if detector.in_chans != in_chans:
                raise InputError(
                    f"model {self.model.id} was trained on {detector.in_chans} channels, the images have {in_chans}; "
                    "give the bands that its model.json lists"
                )
        return detector.eval() if isinstance(detector, nn.Module) else detector


def choose_detector(model: Artifact | None, options: Mapping[str, Any] | None) -> DetectorChoice:
    """Check what was asked for before any work.

    Raises
    ------
    ConfigError
        Neither a model nor a detector that needs none, or both.
    InputError
        The model is no detector.
    """
    if model is None:
        name = None if options is None else options.get("name")
        if name not in WITHOUT_WEIGHTS:
            said = f"detector={name} has weights" if name else "nothing says what detects"
            raise ConfigError(f"{said}: give a trained one, model=ID, or detector={'|'.join(WITHOUT_WEIGHTS)}")
    elif options is not None:
        raise ConfigError(f"model={model.id} brings its detector; leave detector={options.get('name')} out")
    elif MODEL_FACTS not in model.manifest["files"] or "detector" not in DetectorChoice(model, None).facts:
        raise InputError(f"model {model.id} is no detector; expected one made by train.py task=detect")
    return DetectorChoice(model, options)


def check_bands(source: Source, facts: Mapping[str, Any], model_id: str) -> None:
    """Refuse images whose channels mean something else than those that a model was trained on.

    Raises
    ------
    InputError
        Another number of channels; of cutouts also other bands, units or zero points.
    """
    if len(source.bands) != len(facts["bands"]):
        raise InputError(
            f"model {model_id} was trained on {len(facts['bands'])} channels ({_listed(facts['bands'])}), the images "
            f"have {len(source.bands)} ({_listed(source.bands)}); give images of those bands, in that order"
        )
    if source.images["cutout_id"].null_count():
        return  # whole images name their bands as their owner likes
    for key, found in (("bands", source.bands), ("units", source.units), ("zero_point_mag", source.zero_point_mag)):
        wanted = facts.get(key)
        if wanted is not None and _plain(wanted) != _plain(found):
            raise InputError(
                f"model {model_id} was trained on {key} {_plain(wanted)}, the cutouts have {_plain(found)}; give "
                "cutouts of the same survey"
            )


def open_images(value: Any, parameters: Mapping[str, Any], store: Store) -> Any:
    """Resolver of the input ``images``: FITS files by band; None stays None."""
    if value is None:
        return None
    from skyloom.product.mosaic_files import open_mosaics

    return open_mosaics(value, parameters, store)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _listed(bands: Any) -> str:
    return ", ".join(" ".join(map(str, band)) for band in bands)
