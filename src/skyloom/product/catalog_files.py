"""A catalogue in the files that astronomers open: FITS and VOTable tables, and regions for DS9."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from skyloom.errors import unknown_choice
from skyloom.store import Build

FORMATS = ("fits", "votable", "ds9")
PARQUET_ONLY = ("rle",)  # text of any length, which FITS would pad to the longest
SYSTEM = "ICRS"  # of all positions on the sky
COLOURS = ("green", "cyan", "magenta", "yellow", "red", "blue", "orange")  # of the classes, in turn
ABOUT: tuple[tuple[str, str | None, str | None, str], ...] = (
    (r"id", None, "meta.id;meta.main", "Number of the detection, row of catalog.parquet"),
    (r"cutout_id", None, "meta.id.part", "Cutout in which it was found; none for whole images"),
    (r"image", None, "meta.id;obs.image", "Image in which it was found"),
    (r"ra_deg", "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS, of the keypoint or the middle of the box"),
    (r"dec_deg", "deg", "pos.eq.dec;meta.main", "Declination, ICRS, of the keypoint or the middle of the box"),
    (r"ra_box_deg", "deg", "pos.eq.ra", "Right ascension, ICRS, of the middle of the box"),
    (r"dec_box_deg", "deg", "pos.eq.dec", "Declination, ICRS, of the middle of the box"),
    (r"ra_psf_deg", "deg", "pos.eq.ra", "Right ascension, ICRS, at which the PSFs were fitted"),
    (r"dec_psf_deg", "deg", "pos.eq.dec", "Declination, ICRS, at which the PSFs were fitted"),
    (
        r"x(_box|_psf)?_px",
        "pix",
        "pos.cartesian.x;instr.det",
        "Column in the image; 0 is the centre of the first pixel",
    ),
    (r"y(_box|_psf)?_px", "pix", "pos.cartesian.y;instr.det", "Row in the image; 0 is the centre of the first pixel"),
    (r"x[01]_px", "pix", "pos.cartesian.x;instr.det", "Edge of the box; pixel i spans i to i + 1"),
    (r"y[01]_px", "pix", "pos.cartesian.y;instr.det", "Edge of the box; pixel i spans i to i + 1"),
    (r"class", None, "src.class", "Number of the class"),
    (r"class_name", None, "src.class", "Name of the class"),
    (r"score", None, "stat.likelihood", "Score of the detector, 0 to 1"),
    (r"area_px", "pix2", "phys.angArea", "Pixels of the mask"),
    (r"rle_\w+", "pix", None, "Window of the image on which the mask in catalog.parquet lies"),
    (
        r"flags",
        None,
        "meta.code",
        "Sum of 1 (edge), 2 (blank pixels), 4 (empty mask), 8 (cut by a tile), 16 (shared mask)",
    ),
    (r"flux_psf_err_\w+_njy", "nJy", "stat.error;phot.flux.density", "Error of the PSF flux from the background"),
    (r"flux_psf_\w+_njy", "nJy", "phot.flux.density", "Flux of a point source fitted at the position"),
    (r"flux_mask_\w+_njy", "nJy", "phot.flux.density", "Sum of the pixels of the mask"),
    (r"flux_\w+", None, "phot.count", "Flux in the unit of the image"),
    (r"mag_\w+", "mag", "phot.mag", "AB magnitude"),
    (r"snr_\w+", None, "stat.snr", "Signal to noise"),
)
"""Pattern of a column's name, unit, UCD of the virtual observatory (IVOA UCD1+ 1.4), and what it is."""


def write_catalogs(
    build: Build, table: pl.DataFrame, formats: Sequence[str], *, pixel_scale_arcsec: float | None
) -> None:
    """Write a catalogue beside its Parquet file.

    Parameters
    ----------
    build
        Where to.
    table
        Columns of ``catalog.parquet``. Masks stay there; everything else goes into the tables.
    formats
        ``fits`` (``catalog.fits``), ``votable`` (``catalog.vot``), ``ds9`` (``regions.reg``; of several images without
        a WCS one file each in ``regions/``).

    pixel_scale_arcsec
        Side of a pixel; None or NaN: unknown, which brings DS9 regions to pixels.

    Raises
    ------
    ConfigError
        A format is not known.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_choice("formats", name, FORMATS)
    if {"fits", "votable"} & set(formats):
        made = astropy_table(table)
        if "fits" in formats:
            with build.write("catalog.fits") as path:
                made.write(path, format="fits")
        if "votable" in formats:
            with build.write("catalog.vot") as path:
                _votable(made).to_xml(str(path), tabledata_format="binary2")
    if "ds9" in formats:
        _ds9(build, table, pixel_scale_arcsec)


def astropy_table(table: pl.DataFrame) -> Any:
    """The catalogue as :class:`astropy.table.Table`: missing numbers masked, with units, descriptions and UCDs."""
    from astropy.table import Column, MaskedColumn, Table

    made = Table(meta={"RADESYS": (SYSTEM, "of ra_deg and dec_deg")})
    for column in table.iter_columns():
        if column.name in PARQUET_ONLY:
            continue
        missing, kind = column.is_null().to_numpy(), column.dtype
        if kind.is_float():
            values, missing = column.fill_null(np.nan).to_numpy(), np.zeros(len(column), bool)
        elif kind == pl.String:
            values = np.array(column.fill_null("").to_list(), dtype=str)
        else:
            values = column.fill_null(0).to_numpy()
            values = values.astype(np.int16) if values.dtype == np.int8 else values  # FITS has no signed bytes
        unit, ucd, text = _about(column.name)
        facts = {"unit": unit, "description": text}
        made[column.name] = MaskedColumn(values, mask=missing, **facts) if missing.any() else Column(values, **facts)
        if ucd:
            made[column.name].meta["ucd"] = ucd
    return made


def _votable(table: Any) -> Any:
    """The table as a VOTable whose positions refer to their coordinate system (VOTable 1.4, sec. 3.5)."""
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import CooSys

    made = from_table(table)
    made.resources[0].coordinate_systems.append(CooSys(ID=SYSTEM.lower(), system=SYSTEM))
    for field in made.get_first_table().fields:
        if field.ucd and field.ucd.startswith("pos.eq."):
            field.ref = SYSTEM.lower()
    return made


def write_regions(path: Path, table: pl.DataFrame, *, pixel_scale_arcsec: float | None) -> None:
    """Write DS9 regions: a circle of the area of each mask, coloured by class, with id and score as text.

    Lines are written here, not by the package regions, which takes milliseconds for each; it reads the file.

    Parameters
    ----------
    path
        File to write.
    table
        Columns of the catalogue; of one image, where positions on the sky are missing.
    pixel_scale_arcsec
        Side of a pixel. Without it, or where a detection has no position on the sky, circles lie in pixels of the
        image, of which DS9 counts the first as 1.
    """
    on_sky = _scale(pixel_scale_arcsec) is not None and table["ra_deg"].null_count() == 0
    radius = (pl.col("area_px").clip(lower_bound=1) / np.pi).sqrt() * (pixel_scale_arcsec if on_sky else 1.0)
    places = ("ra_deg", "dec_deg") if on_sky else ("x_px", "y_px")
    shift, unit = (0.0, '"') if on_sky else (1.0, "")
    columns = table.select("id", "score", "class", *places, radius.alias("radius"))
    with path.open("w") as file:
        file.write(f"# Region file format: DS9\n{'icrs' if on_sky else 'image'}\n")
        for id_, score, number, x, y, size in columns.iter_rows():
            colour = COLOURS[number % len(COLOURS)]
            place = f"{x + shift:.8f},{y + shift:.8f},{size:.4f}{unit}"
            file.write(f"circle({place}) # color={colour} text={{{id_} {score:.2f}}}\n")


def _scale(pixel_scale_arcsec: float | None) -> float | None:
    return pixel_scale_arcsec if pixel_scale_arcsec is not None and np.isfinite(pixel_scale_arcsec) else None


def _ds9(build: Build, table: pl.DataFrame, pixel_scale_arcsec: float | None) -> None:
    names = table["image"].unique(maintain_order=True).to_list()
    if len(names) < 2 or (table["ra_deg"].null_count() == 0 and _scale(pixel_scale_arcsec) is not None):
        with build.write("regions.reg") as path:
            write_regions(path, table, pixel_scale_arcsec=pixel_scale_arcsec)
        return
    with build.write("regions") as folder:
        folder.mkdir()
        for name in names:
            part = folder / f"{name.replace('/', '_')}.reg"
            write_regions(part, table.filter(pl.col("image") == name), pixel_scale_arcsec=pixel_scale_arcsec)


def _about(name: str) -> tuple[str | None, str | None, str]:
    """Unit, UCD and description of a column."""
    return next(((unit, ucd, text) for key, unit, ucd, text in ABOUT if re.fullmatch(key, name)), (None, None, name))
