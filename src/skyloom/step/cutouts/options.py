"""Options of step=cutouts that belong to one strategy, and the catalogue as an input."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from skyloom.errors import ConfigError
from skyloom.sky.window.mask import SizeRule
from skyloom.store import Store, fingerprint


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def parameter(self) -> dict[str, Any]:
        """What enters the id."""
        return self.model_dump()


def _window_size(value: Any) -> Any:
    if isinstance(value, str) and value.endswith("x"):
        try:
            if float(value[:-1]) > 0:
                return value
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise ValueError(f"a size of {value!r} is neither a number of pixels (256) nor a factor (1.5x)")


class SizeRuleOptions(_Options):
    """One entry of ``mask.sizes``; see :class:`skyloom.sky.window.mask.SizeRule`."""

    up_to_px: PositiveInt | None
    windows: Annotated[list[Annotated[int | str, BeforeValidator(_window_size)]], Field(min_length=1)]


class MaskOptions(_Options):
    """Options of ``strategy=mask``."""

    join_px: NonNegativeInt
    sizes: Annotated[list[SizeRuleOptions], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        limits = [rule.up_to_px for rule in self.sizes]
        below = [limit for limit in limits[:-1] if limit is not None]
        if limits[-1] is not None or len(below) < len(limits) - 1 or sorted(set(below)) != below:
            raise ValueError(f"sizes: up_to_px must ascend and end with null (any extent), found {limits}")
        for rule in self.sizes:
            if len(set(rule.windows)) < len(rule.windows):
                raise ValueError(f"sizes: {rule.windows} names a size twice")
        return self

    def rules(self) -> list[SizeRule]:
        """The rules in the form that the geometry takes."""
        return [SizeRule(rule.up_to_px, tuple(rule.windows)) for rule in self.sizes]


class SourceOptions(_Options):
    """Options of ``strategy=catalog``: columns of the catalogue, and what is made of them."""

    ra: str | None
    dec: str | None
    id: str | None
    size: str | None
    size_unit: Literal["arcsec", "arcmin", "deg", "px"] | None
    size_factor: Annotated[float, Field(gt=0)]
    min_window_px: PositiveInt
    images_per_source: Literal["all", "best"]


@dataclass(frozen=True)
class CatalogFile:
    """The catalogue of ``strategy=catalog``."""

    path: Path
    fingerprint: str

    def identity(self) -> dict[str, Any]:
        """Digest of the file, wherever it lies."""
        return {"files": 1, "digest": self.fingerprint}


def open_catalog(value: Any, parameters: Mapping[str, Any], store: Store) -> CatalogFile | None:
    """Resolver of the input ``catalog``: a file with ``strategy=catalog``, None otherwise."""
    strategy = parameters["strategy"]
    if strategy != "catalog":
        if value is not None:
            raise ConfigError(f"catalog={value} is not read with strategy={strategy}; add strategy=catalog")
        return None
    if value is None:
        raise ConfigError(
            "strategy=catalog needs catalog=FILE, a table with the positions (FITS, VOTable, Parquet, CSV)"
        )
    path = Path(str(value)).expanduser().absolute()
    return CatalogFile(path, fingerprint(path))


def unused_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Options of step=cutouts that the strategy and the NaN policy do not read, and that cannot change its result."""
    own = {"sliding": ("overlap", "cover_edge"), "mask": ("mask",), "catalog": ("sources",)}
    found = [name for strategy, names in own.items() if strategy != values["strategy"] for name in names]
    if values["strategy"] == "mask" or (values["strategy"] == "catalog" and values["sources"].size is not None):
        found.append("window_px")
    if values["nan_policy"] != "fill":
        found.append("fill_value")
    return tuple(found)


def blank_limit(nan_policy: str, max_nan_frac: float | None) -> float:
    """Largest fraction of blank pixels that a policy accepts.

    Raises
    ------
    ConfigError
        ``reject`` together with a fraction above 0.
    """
    if nan_policy == "reject":
        if max_nan_frac:
            raise ConfigError(
                f"max_nan_frac={max_nan_frac} contradicts nan_policy=reject, which takes no blank pixel; choose "
                "nan_policy=max_fraction or fill"
            )
        return 0.0
    return (1.0 if nan_policy == "fill" else 0.0) if max_nan_frac is None else max_nan_frac
