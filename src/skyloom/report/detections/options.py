"""Options of the report on detections: bins, limits in magnitude, and what is counted about blends."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from skyloom.errors import ConfigError
from skyloom.metric.depth import GOLD_MAG_I, coadd_depth, turn_off
from skyloom.report.detections.tables import Sources

Linking = PositiveFloat | dict[PositiveFloat, Annotated[int, Field(ge=1)] | None]
Limit = Literal["gold", "nominal", "turn_off"] | float


class Options(BaseModel):
    """A mapping of options in a YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def parameter(self) -> dict[str, Any]:
        """For the request of a report."""
        return self.model_dump()


class Steps(Options):
    """Bins of one width, as many as lie between two ends."""

    low: FiniteFloat
    high: FiniteFloat
    step: PositiveFloat

    @property
    def number(self) -> int:
        """How many bins."""
        return round((self.high - self.low) / self.step)

    @property
    def whole(self) -> bool:
        """Whether the last one ends where it should."""
        return abs(self.low + self.number * self.step - self.high) <= 1e-6 * self.step


Edges = Steps | list[float] | None


class Bins(Options):
    """Edges of the bins by quantity; None leaves a quantity out."""

    mag: Edges
    snr: Edges
    size: Edges
    separation: Edges
    colour: Edges

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in type(self).model_fields:
            chosen, edges = getattr(self, name), self.edges(name)
            if isinstance(chosen, Steps) and chosen.low < chosen.high and not chosen.whole:
                raise ValueError(
                    f"bins.{name}: {chosen.low:g} to {chosen.high:g} is not a whole number of steps of {chosen.step:g}"
                )
            if edges is not None and (len(edges) < 2 or not (np.diff(edges) > 0).all()):
                raise ValueError(f"bins.{name}: expected two or more rising numbers, or low below high")
        return self

    def edges(self, quantity: str) -> np.ndarray | None:
        """Edges of the bins of a quantity, shape (B + 1,)."""
        chosen: Edges = getattr(self, quantity)
        if isinstance(chosen, Steps):
            return chosen.low + chosen.step * np.arange(chosen.number + 1)
        return None if chosen is None else np.asarray(chosen, dtype=np.float64)


class Nominal(Options):
    """Depth of a coadd after part of a survey."""

    full_depth_mag: float
    years: PositiveFloat
    full_years: PositiveFloat


class TurnOff(Options):
    """Where the counts of a catalogue fall below a power law."""

    catalog: str | None
    fit_range_mag: tuple[float, float]
    bins: PositiveInt
    share: Annotated[float, Field(gt=0, lt=1)]


class Neighbours(Options):
    """Unrecognised blends by counting neighbours."""

    radius_arcsec: PositiveFloat
    window_mag: NonNegativeFloat | None


class Density(Options):
    """Number of truths around, by which blends are binned."""

    radius_arcsec: PositiveFloat
    bins: PositiveInt


def limits_in_mag(
    limits: list[Limit], nominal: Nominal, turn_off_options: TurnOff, catalogs: Mapping[str, Sources]
) -> dict[str, float | None]:
    """Magnitude by name of each limit; ``all`` cuts nothing.

    Raises
    ------
    ConfigError
        ``turn_off`` names no catalogue, or that catalogue's counts never turn off.
    """
    result: dict[str, float | None] = {"all": None}
    for limit in limits:
        if limit == "gold":
            result["gold"] = GOLD_MAG_I
        elif limit == "nominal":
            depth = nominal.full_depth_mag
            result["nominal"] = coadd_depth(depth, years=nominal.years, full_years=nominal.full_years)
        elif limit == "turn_off":
            result["turn_off"] = _turn_off(turn_off_options, catalogs)
        else:
            result[f"{float(limit):g}"] = float(limit)
    return result


def _turn_off(options: TurnOff, catalogs: Mapping[str, Sources]) -> float:
    name = options.catalog or next(iter(catalogs))
    if name not in catalogs:
        raise ConfigError(f"turn_off.catalog={name} is not one of {', '.join(catalogs)}")
    mag = catalogs[name].values("mag")
    found = turn_off(mag, fit_range_mag=options.fit_range_mag, bins=options.bins, share=options.share)
    if not np.isfinite(found):
        raise ConfigError(
            f"the counts of {name} follow their power law to the end, so there is no turn-off; give a number in "
            "limits, or another turn_off.fit_range_mag"
        )
    return found


def linking_names(linking: list[Linking]) -> dict[str, Linking]:
    """Choices of linking lengths by a name of their own: ``1``, or ``2(3)+1`` for 2 arcsec up to 3 members, then 1."""
    result: dict[str, Linking] = {}
    for lengths in linking:
        steps = lengths if isinstance(lengths, dict) else {lengths: None}
        words = [f"{key:g}" + (f"({steps[key]})" if steps[key] else "") for key in sorted(steps, reverse=True)]
        result["+".join(words)] = lengths
    return result
