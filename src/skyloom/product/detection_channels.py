"""Which surveys make the channels of a detector's images, and what is known of their bands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skyloom.datamodule.band_index import survey_facts
from skyloom.errors import ConfigError
from skyloom.sky.survey.bands import Band, read_bands
from skyloom.store import Artifact


@dataclass(frozen=True)
class Channels:
    """Which surveys make the channels and how they come onto one grid; see ``conf/datamodule/roman_lsst.yaml``."""

    surveys: tuple[str, ...]
    combine: str
    interpolation: str
    conserve_flux: bool
    blank_value: float | None

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> "Channels":
        """Take them from the options of a datamodule, which may have others.

        Raises
        ------
        ConfigError
            One is missing.
        """
        if lost := [name for name in cls.__dataclass_fields__ if name not in options]:
            raise ConfigError(f"channels: no {', '.join(lost)}; expected the options of datamodule=roman_lsst")
        return cls(
            surveys=tuple(options["surveys"]),
            combine=str(options["combine"]),
            interpolation=str(options["interpolation"]),
            conserve_flux=bool(options["conserve_flux"]),
            blank_value=options["blank_value"],
        )


def band_facts(cutouts: Artifact) -> dict[str, Band]:
    """What the survey's file said of each band when the cutouts were made, by name; empty where it was not asked."""
    return {band.name: band for band in read_bands(survey_facts(cutouts).get("bands") or [])}
