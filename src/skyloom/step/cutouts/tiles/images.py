"""The images of a tile, one per band: opened together, checked to show the same pixels, and listed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from skyloom.errors import InputError
from skyloom.sky.files.image import Image, open_image
from skyloom.sky.geometry.wcs_cards import cards_of, same_grid
from skyloom.sky.survey.facts import Survey


@contextmanager
def open_bands(name: str, files: Mapping[str, Path]) -> Iterator[dict[str, Image]]:
    """Open the images of a tile and close them again.

    Parameters
    ----------
    name
        Of the tile, for messages.
    files
        By band.

    Raises
    ------
    InputError
        An image cannot be used, has no WCS, or is not on the pixels of the first band.
    """
    with ExitStack() as stack:
        images = {band: stack.enter_context(open_image(path)) for band, path in files.items()}
        first_band, first = next(iter(images.items()))
        for band, image in images.items():
            if image.wcs is None:
                raise InputError(f"{image.path}: band {band} of tile {name} has no celestial WCS; add its cards.")
            assert first.wcs is not None
            if image.shape != first.shape:
                raise InputError(
                    f"{image.path}: band {band} of tile {name} has {image.shape[0]} x {image.shape[1]} px, band "
                    f"{first_band} {first.shape[0]} x {first.shape[1]} px; all bands must have the same pixels."
                )
            if image is not first and not same_grid(first.wcs, image.wcs, first.shape):
                raise InputError(
                    f"{image.path}: the WCS of band {band} of tile {name} puts pixels elsewhere than that of band "
                    f"{first_band} ({first.path}); resample all bands to the same pixels."
                )
        yield images


def band_rows(
    name: str,
    images: Mapping[str, Image],
    fingerprints: Mapping[str, str],
    recorded: Mapping[str, tuple[str | None, str]],
    survey: Survey,
) -> list[dict[str, Any]]:
    """Rows of ``images.parquet`` for one tile.

    Parameters
    ----------
    name
        Of the tile or patch.
    images
        By band, from `open_bands`.
    fingerprints
        By band.
    recorded
        By band how the index refers to the file: id of an artifact or None, and path.
    survey
        Facts of the survey.
    """
    rows = []
    for band, image in images.items():
        assert image.wcs is not None
        rows.append(
            {
                "image": name,
                "band": band,
                "artifact": recorded[band][0],
                "path": recorded[band][1],
                "fingerprint": fingerprints[band],
                "height_px": image.shape[0],
                "width_px": image.shape[1],
                "dtype": image.dtype.str,
                "unit": image.unit or survey.unit,
                "pixel_scale_arcsec": image.pixel_scale_arcsec,
                "zero_point_mag": survey.band(band).zero_point_mag,
                "fits_header": cards_of(image.wcs),
            }
        )
    return rows
