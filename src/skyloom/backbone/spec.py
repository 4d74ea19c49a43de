"""A backbone as configurations name it, and where its weights come from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skyloom.backbone.build import Backbone, build_backbone
from skyloom.errors import InputError
from skyloom.store import Artifact, Store, fingerprint

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class BackboneSpec:
    """What ``conf/backbone`` says; see :func:`skyloom.backbone.build_backbone`.

    Attributes
    ----------
    model
        timm name.
    in_chans
        Input channels.
    image_size_px
        Side to which images are resized; None keeps the cutouts' size.
    weights
        None (random), ``timm``, a path, or id, prefix or name of a ``model`` artifact.
    allow_missing
        Accept weights that lack more than the input layer.
    """

    model: str
    in_chans: int
    image_size_px: int | None
    weights: str | None
    allow_missing: bool

    def parameter(self) -> dict[str, Any]:
        """What enters an id: all but ``weights``, which enter as an input with the fingerprint of their content."""
        return {key: value for key, value in asdict(self).items() if key != "weights"}


@dataclass(frozen=True)
class Weights:
    """Opened weights.

    Attributes
    ----------
    source
        None (random), ``"timm"``, a path, or a ``model`` artifact.
    """

    source: str | Path | Artifact | None

    def identity(self) -> Any:
        """Null, the word timm, the fingerprint of a file, or kind and id of an artifact."""
        if isinstance(self.source, Artifact):
            return self.source.identity()
        if isinstance(self.source, Path):
            return {"file": self.source.name, "fingerprint": fingerprint(self.source)}
        return self.source

    def build(self, spec: BackboneSpec, seed: int) -> Backbone:
        """Build the backbone with these weights; random ones are drawn from ``seed``."""
        source = self.source.file(WEIGHTS_FILE) if isinstance(self.source, Artifact) else self.source
        return build_backbone(
            spec.model,
            in_chans=spec.in_chans,
            image_size_px=spec.image_size_px,
            weights=source,
            seed=seed,
            allow_missing=spec.allow_missing,
        )


def open_weights(value: Any, parameters: Mapping[str, Any], store: Store) -> Weights:
    """Resolver of the input ``weights``: what ``backbone.weights`` names."""
    if value is None or value == "timm" or isinstance(value, Artifact):
        return Weights(store.open(value, "model") if isinstance(value, Artifact) else value)
    path = Path(str(value)).expanduser()
    if (path / "manifest.json").exists():
        return Weights(store.open(str(path.absolute()), "model"))
    if path.exists():
        return Weights(path.absolute())
    if "/" in str(value) or path.suffix:
        raise InputError(f"backbone.weights={value}: no such file; give a path, an id of a model, timm or null")
    return Weights(store.open(str(value), "model"))
