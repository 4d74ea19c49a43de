"""Facts about a survey: what its pixels and tables mean, and how its files are found and named."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from skyloom.errors import ConfigError, unknown_choice
from skyloom.sky.files.tile_layout import TileLayout
from skyloom.sky.survey.bands import Band, GridFacts, TableFacts, read_bands
from skyloom.sky.survey.values import axes, file_names, one_of, patterns, positive, text

_IMAGE_NAMES = ("folder", "path")


@dataclass(frozen=True)
class Survey:
    """What is known of a survey before a file is opened; the values come from ``conf/survey/<name>.yaml``.

    Attributes
    ----------
    name
        Short name, written into every index row.
    unit
        Unit of the pixel values in skyloom's spelling (``Jy/beam``); None: as each header says.
    pixel_scale_arcsec
        Side of a pixel; None: as each header says.
    beam_arcsec
        Major and minor axis (FWHM) of the beam; None: as each header says.
    image_patterns
        Glob patterns, relative to the folder that the user names, under which images lie.
    exclude_patterns
        Names of files in such folders that are no images, masks for instance; ``*`` and ``?`` stand for any text and
        any character, capitals and small letters alike.
    image_name
        ``folder``: an image is called after the folder that holds it; ``path``: after its path without the suffix.
    mask_name
        File name of the source mask beside each image; None: the survey ships none.
    base_url
        Address under which ``<image>/<file>`` can be downloaded; None: nobody has said.
    image_list
        Text file with the names of all images, one per line: its path, or a file of ``skyloom/data``; None: there
        is none.
    bands
        Bands in the order of the channels; empty: one image is all there is of a place on the sky.
    tiles
        How the files of a tile are named, for surveys with bands.
    truth, detections
        Columns of the tables of true and of detected objects.
    grid
        Usual grid of cutouts on a tile.
    """

    name: str
    unit: str | None
    pixel_scale_arcsec: float | None
    beam_arcsec: tuple[float, float] | None
    image_patterns: tuple[str, ...]
    exclude_patterns: tuple[str, ...]
    image_name: str
    mask_name: str | None
    base_url: str | None
    image_list: str | None
    bands: tuple[Band, ...] = ()
    tiles: TileLayout | None = None
    truth: TableFacts | None = None
    detections: TableFacts | None = None
    grid: GridFacts | None = None

    def parameter(self) -> dict[str, Any]:
        """What enters the id of a result: what pixels and tables mean, not where files lie or how they are found."""
        beam = None if self.beam_arcsec is None else list(self.beam_arcsec)
        known: dict[str, Any] = {
            "name": self.name,
            "unit": self.unit,
            "pixel_scale_arcsec": self.pixel_scale_arcsec,
            "beam_arcsec": beam,
        }
        if self.bands:
            known["bands"] = [band.parameter() for band in self.bands]
            known["truth"] = self.truth and self.truth.parameter()
            known["detections"] = self.detections and self.detections.parameter()
            known["grid"] = self.grid and vars(self.grid)
        return known

    def band(self, name: str) -> Band:
        """The band of this name.

        Raises
        ------
        ConfigError
            The survey has none of this name.
        """
        for band in self.bands:
            if band.name == name:
                return band
        raise unknown_choice("band", name, [band.name for band in self.bands])

    @classmethod
    def from_mapping(cls, facts: Mapping[str, Any]) -> Self:
        """Build a survey from the keys of its YAML file.

        Raises
        ------
        ConfigError
            A key is missing or unknown, or a value is of the wrong kind; the message names the key.
        """
        known = [field.name for field in fields(cls)]
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        for key in facts:
            if key not in known:
                if isinstance(facts[key], Mapping) and "pixel_scale_arcsec" in facts[key]:
                    raise ConfigError(
                        f"survey={facts.get('name')} stands for several surveys, which this step takes one at a time; "
                        f"choose survey={key}"
                    )
                raise unknown_choice("survey key", key, known)
        for key in needed:
            if key not in facts:
                raise ConfigError(f"survey.{key} is missing; write null where the survey does not say.")
        scale, tiles, grid = facts["pixel_scale_arcsec"], facts.get("tiles"), facts.get("grid")
        bands = read_bands(facts.get("bands") or ())
        if bands and tiles is None:
            raise ConfigError("survey.tiles is missing: a survey with bands says how the files of a tile are named.")
        tables = {key: facts[key] for key in ("truth", "detections") if facts.get(key) is not None}
        return cls(
            name=text("name", facts["name"]),
            unit=None if facts["unit"] is None else text("unit", facts["unit"]),
            pixel_scale_arcsec=None if scale is None else positive("pixel_scale_arcsec", scale),
            beam_arcsec=axes("beam_arcsec", facts["beam_arcsec"]),
            image_patterns=patterns("image_patterns", facts["image_patterns"]),
            exclude_patterns=file_names("exclude_patterns", facts["exclude_patterns"]),
            image_name=one_of("image_name", facts["image_name"], _IMAGE_NAMES),
            mask_name=None if facts["mask_name"] is None else text("mask_name", facts["mask_name"]),
            base_url=None if facts["base_url"] is None else text("base_url", facts["base_url"]),
            image_list=None if facts["image_list"] is None else text("image_list", facts["image_list"]),
            bands=bands,
            tiles=None if tiles is None else TileLayout.from_mapping(tiles),
            grid=None if grid is None else GridFacts.from_mapping(grid),
            **{key: TableFacts.from_mapping(key, value) for key, value in tables.items()},
        )


@dataclass(frozen=True)
class JointSurvey:
    """Several surveys of one sky, for what makes their files together (``survey=roman_lsst``).

    Attributes
    ----------
    name : str
        Short name of the pair.
    surveys : Mapping
        The surveys by the key under which the file lists them.
    """

    name: str
    surveys: Mapping[str, Survey]

    def parameter(self) -> dict[str, Any]:
        """What enters the id of a result."""
        return {"name": self.name} | {key: survey.parameter() for key, survey in self.surveys.items()}

    @classmethod
    def from_mapping(cls, facts: Mapping[str, Any]) -> Self:
        """Build the pair from its file: a name, and the facts of a survey under each other key.

        Raises
        ------
        ConfigError
            There is no name, or what stands under a key is no survey.
        """
        for key, value in facts.items():
            if key != "name" and not isinstance(value, Mapping):
                raise ConfigError(f"survey.{key}={value!r}: expected the facts of a survey, as survey=roman_lsst has.")
        surveys = {key: Survey.from_mapping(value) for key, value in facts.items() if key != "name"}
        return cls(text("name", facts.get("name")), surveys)
