"""The inputs and options of a report on segmentation: catalogues by name, what is chosen of candidates, the bins."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from skyloom.datamodule.table_input import TableInput
from skyloom.errors import ConfigError
from skyloom.report.detections.inputs import NAME, TRUTH, Catalogs
from skyloom.store import Store

KINDS = ("catalog", "candidates")
Part = Annotated[float, Field(ge=0, le=1)]


class Selection(BaseModel):
    """What is chosen of candidates, see :func:`skyloom.detector.candidates.select`; ``score`` None: all kept ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    score: Part | None
    nms: Part
    top_k: PositiveInt
    across_classes: bool

    def parameter(self) -> dict[str, Any]:
        """For the request of a report."""
        return self.model_dump()


class TruthBins(BaseModel):
    """Edges of the bins by quantity of the truths; None leaves a quantity out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mag: list[float] | None
    snr: list[float] | None

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, edges in self.edges().items():
            if len(edges) < 2 or not (np.diff(edges) > 0).all():
                raise ValueError(f"bins.{name}: expected two or more rising numbers")
        return self

    def edges(self) -> dict[str, np.ndarray]:
        """Edges (B + 1,) of the bins of each quantity that has some."""
        return {name: np.asarray(own, dtype=np.float64) for name, own in self.model_dump().items() if own is not None}

    def parameter(self) -> dict[str, Any]:
        """For the request of a report."""
        return self.model_dump()


def open_found(value: Any, _parameters: Mapping[str, Any], store: Store) -> Catalogs:
    """Resolver of the input ``catalogs``: artifacts of kind ``catalog`` or ``candidates`` by name.

    Raises
    ------
    ConfigError
        There is none, or a name cannot be used.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"catalogs={value}: expected ids by name, as 'catalogs={{ours: ID, sep: ID}}'")
    for name in value:
        if not NAME.fullmatch(str(name)) or name == TRUTH:
            raise ConfigError(
                f"catalogs: the name '{name}' cannot be used; expected letters, digits, - and _, and not {TRUTH}"
            )
    return Catalogs({str(name): TableInput(None, store.open(one, KINDS), None) for name, one in value.items()})
