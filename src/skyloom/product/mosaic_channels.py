"""Which file of an image is which channel of a model, and what one unit of its pixels is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from skyloom.errors import ConfigError, unknown_choice
from skyloom.progress import say
from skyloom.sky.files.image import Image

ZERO_POINT_MAG = {"nJy": 31.4, "uJy": 23.9, "mJy": 16.4, "Jy": 8.9, "Jy/pixel": 8.9, "AB27": 27.0}
"""AB magnitude of one unit (Oke & Gunn 1983, ApJ 266, 713)."""
OPTIONS = ("tile_px", "overlap_px", "zero_point_mag", "pixel_scale_arcsec")
SCALE_TOLERANCE = 0.01  # relative; images of one run may differ by the distortion of a projection


def mosaic_options(value: object) -> dict[str, Any]:
    """Check the keys and kinds of the mapping ``mosaic`` of conf/product/candidates.yaml.

    Raises
    ------
    ConfigError
        A key is missing or unknown, or a value is of another kind.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"mosaic={value!r}: expected the keys {', '.join(OPTIONS)}")
    for key in value:
        if key not in OPTIONS:
            raise unknown_choice("mosaic key", key, OPTIONS)
    for key in OPTIONS:
        if key not in value:
            raise ConfigError(f"mosaic.{key} is missing; see conf/product/candidates.yaml")
    for key in ("tile_px", "overlap_px"):
        if type(value[key]) is not int or value[key] < 0:
            raise ConfigError(f"mosaic.{key}={value[key]!r}: expected a whole number of pixels")
    points = value["zero_point_mag"]
    numbers = dict(points) if isinstance(points, Mapping) else {"zero_point_mag": points}
    for key, number in {**numbers, "pixel_scale_arcsec": value["pixel_scale_arcsec"]}.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ConfigError(f"mosaic: {key}={number!r}: expected a number")
    return dict(value)


def unit_of(image: Image, scale_arcsec: float) -> tuple[str | None, float | None]:
    """Unit and, where it says so, AB magnitude of one unit; of Jy/beam summed over pixels, the flux is in beams."""
    if image.unit != "Jy/beam":
        return image.unit, ZERO_POINT_MAG.get(image.unit or "")
    if image.beam_arcsec is None or math.isnan(scale_arcsec):
        return image.unit, None
    beam_px = math.pi * image.beam_arcsec[0] * image.beam_arcsec[1] / (4 * math.log(2)) / scale_arcsec**2
    return image.unit, ZERO_POINT_MAG["Jy"] + 2.5 * math.log10(beam_px)


def channels(
    given: tuple[str, ...], wanted: Sequence[tuple[str, str]] | None
) -> tuple[tuple[tuple[str, str], ...], list[int]]:
    """Survey and band of each channel, and which of the given files it is."""
    if wanted is None:
        return tuple(("images", band) for band in given or ("image",)), list(range(max(len(given), 1)))
    names = ", ".join(band for _, band in wanted)
    if not given:
        if len(wanted) > 1:
            raise ConfigError(
                f"the model sees the bands {names}, and images are of one file each; give files by band, as "
                f"images={{{', '.join(f'{band}: FILE' for _, band in wanted)}}}"
            )
        return tuple((s, b) for s, b in wanted), [0]
    order = []
    for survey, band in wanted:
        place = [given.index(name) for name in (f"{survey}.{band}", f"{survey}_{band}", band) if name in given]
        if not place:
            raise ConfigError(f"the model sees the bands {names}, and images has {', '.join(given)}; add {band}: FILE")
        order.append(place[0])
    if unread := [name for place, name in enumerate(given) if place not in order]:
        say(f"images: the model does not see {', '.join(unread)}; left out")
    return tuple((s, b) for s, b in wanted), order


def zero_points_of(
    said: float | Mapping[str, float] | None, bands: Sequence[tuple[str, str]], of_header: Sequence[float | None]
) -> tuple[float | None, ...]:
    """AB magnitude of one unit of each band: as was said, of all or by band, else as the headers have it."""
    if isinstance(said, Mapping):
        if unknown := set(said) - {band for _, band in bands}:
            known = ", ".join(band for _, band in bands)
            raise ConfigError(f"mosaic.zero_point_mag: {', '.join(sorted(unknown))}: expected bands of {known}")
        return tuple(said.get(band, own) for (_, band), own in zip(bands, of_header, strict=True))
    return tuple(of_header) if said is None else (float(said),) * len(bands)


def near(one: float, other: float) -> bool:
    """Whether two pixel scales are those of one survey; NaN is like NaN."""
    return (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=SCALE_TOLERANCE)


def alike(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    """Whether the zero points of two images are the same."""
    return all((a is None) == (b is None) and (a is None or b is None or abs(a - b) < 1e-3)
               for a, b in zip(one, other, strict=True))  # fmt: skip
