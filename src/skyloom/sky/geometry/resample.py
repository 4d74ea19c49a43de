"""Brings images and masks onto the pixels of another image: interpolated by a map, resized, or padded."""

from functools import lru_cache

import cv2
import numpy as np

from skyloom.errors import InputError, unknown_choice
from skyloom.sky.geometry.pixel_map import PixelMap

INTERPOLATIONS = {"lanczos": cv2.INTER_LANCZOS4, "cubic": cv2.INTER_CUBIC, "linear": cv2.INTER_LINEAR}
COARSER = 0.1  # pixels so much wider than those of the source are still taken by a single sample


def resample(
    image: np.ndarray, to_source: PixelMap, *, interpolation: str = "lanczos", conserve_flux: bool = False
) -> np.ndarray:
    """Interpolate an image at the pixels of another grid.

    OpenCV rounds positions to 1/32 px of the source; Lanczos has 8 x 8 pixels (Lanczos 1956; Duchon 1979, J. Appl.
    Meteor. 18, 1016, sec. 2). On a grid coarser than the source a pixel is the mean of as many equal parts of it as it
    takes for them to be as fine: so no source falls between two samples, and noise becomes less as it does in a sum.

    Parameters
    ----------
    image
        float32 (C, h, w); NaN where blank.
    to_source
        Where the pixels of the grid, of shape (H, W), lie in the image.
    interpolation
        ``lanczos``, ``cubic`` or ``linear``.
    conserve_flux
        False: values are interpolated, so that a surface brightness stays what it is. True: they are multiplied by the
        area that a pixel of the grid covers in the image, so that a source keeps its sum.

    Returns
    -------
    ndarray
        float32 (C, H, W); NaN outside the image and where its nearest pixel is blank. Of a pixel in parts these parts
        are left out, and it is NaN where they are more than half of it.

    Raises
    ------
    ConfigError
        Unknown interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown_choice("interpolation", interpolation, INTERPOLATIONS)
    times = parts_per_side(to_source.step_px())
    x_px, y_px = to_source.positions(times)
    finite = np.isfinite(image)
    whole = bool(finite.all())
    filled = image if whole else np.where(finite, image, 0.0)
    kind = INTERPOLATIONS[interpolation]
    made = np.stack([cv2.remap(np.ascontiguousarray(plane, np.float32), x_px, y_px, kind) for plane in filled])
    height, width = image.shape[1:]
    made[:, (x_px < -0.5) | (x_px >= width - 0.5) | (y_px < -0.5) | (y_px >= height - 0.5)] = np.nan
    if not whole:
        for plane, good in zip(made, finite, strict=True):
            if not good.all():
                plane[cv2.remap(good.astype(np.uint8), x_px, y_px, cv2.INTER_NEAREST) == 0] = np.nan
    made = made if times == 1 else _mean_of_parts(made, times)
    return made * to_source.area().astype(np.float32) if conserve_flux else made


@lru_cache
def noise_kept(interpolation: str) -> float:
    """Standard deviation of interpolated white noise over that of the noise, a mean over all places between pixels.

    It is the root of the kernel's squared sum, which is read off from what OpenCV makes of a single bright pixel.
    """
    half, steps = 8, 32
    single = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    single[half, half] = 1.0
    places = np.arange(2 * half * steps, dtype=np.float32) / steps
    made = cv2.remap(single, *np.meshgrid(places, places), INTERPOLATIONS[interpolation])
    return float(np.sqrt((made.astype(np.float64) ** 2).sum()) / steps)


def parts_per_side(step_px: float) -> int:
    """Parts per side of a pixel that is ``step_px`` pixels of the source wide; 1 up to a tenth more than one."""
    return max(1, int(np.ceil(step_px - COARSER)))


def _mean_of_parts(image: np.ndarray, times: int) -> np.ndarray:
    """Mean of the parts that are not NaN, (C, H, W) of (C, H times, W times); NaN where fewer than half are left."""
    parts = image.reshape(len(image), image.shape[1] // times, times, -1, times)
    good = np.isfinite(parts)
    number = good.sum(axis=(2, 4))
    total = np.where(good, parts, 0.0).sum(axis=(2, 4), dtype=np.float64)
    found = np.full(number.shape, np.nan, np.float32)
    np.divide(total, number, out=found, where=2 * number >= times**2, casting="same_kind")
    return found


def resample_masks(masks: np.ndarray, to_source: PixelMap) -> np.ndarray:
    """Take for each pixel of another grid the nearest pixel of masks.

    Parameters
    ----------
    masks
        bool (n, h, w).
    to_source
        Where the pixels of the grid, of shape (H, W), lie in the masks.

    Returns
    -------
    ndarray
        bool (n, H, W); False outside.
    """
    height, width = masks.shape[1:]
    made = np.zeros((len(masks), *to_source.shape), bool)
    if not len(masks):
        return made
    cols, rows = (np.floor(p + 0.5).astype(np.int64) for p in to_source.positions())
    inside = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
    flat = np.where(inside, rows * width + cols, height * width)  # one more pixel, which is always False
    for one, out in zip(masks, made, strict=True):
        np.take(np.append(one.ravel(), False), flat, out=out)
    return made


def coverage(to_source: PixelMap, shape: tuple[int, int]) -> float:
    """Share of the pixels of a grid that lie within an image of a shape (height, width)."""
    x_px, y_px = to_source.positions()
    inside = (x_px >= -0.5) & (x_px < shape[1] - 0.5) & (y_px >= -0.5) & (y_px < shape[0] - 0.5)
    return float(inside.mean())


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Stretch an image (C, h, w) to a shape (H, W), edge upon edge; NaN where it was blank.

    Cubic interpolation; of a shape that is coarser in both directions a pixel is the mean of what lies under it.
    """
    finite = np.isfinite(image)
    size = shape[1], shape[0]
    coarser = min(old / new for old, new in zip(image.shape[1:], shape, strict=True)) > 1 + COARSER
    kind = cv2.INTER_AREA if coarser else cv2.INTER_CUBIC
    made = np.stack([cv2.resize(p, size, interpolation=kind) for p in np.where(finite, image, 0.0)])
    for plane, good in zip(made, finite, strict=True):
        if not good.all():
            plane[cv2.resize(good.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) == 0] = np.nan
    return made.astype(np.float32, copy=False)


def pad(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Put an image or masks (C, h, w) in the middle of zeros of a shape (H, W), as they are.

    Raises
    ------
    InputError
        The image is larger.
    """
    row0, col0 = padding(image.shape[1:], shape)
    made = np.zeros((len(image), *shape), image.dtype)
    made[:, row0 : row0 + image.shape[1], col0 : col0 + image.shape[2]] = image
    return made


def padding(own: tuple[int, ...], shape: tuple[int, int]) -> tuple[int, int]:
    """Row and column at which an image of a shape comes to lie in the middle of a larger one.

    Raises
    ------
    InputError
        It is not larger.
    """
    row0, col0 = ((large - small) // 2 for large, small in zip(shape, own, strict=True))
    if own[0] > shape[0] or own[1] > shape[1]:
        raise InputError(
            f"an image of {own[0]}x{own[1]} px cannot be padded to {shape[0]}x{shape[1]} px; "
            "take datamodule.combine=wcs or resize"
        )
    return row0, col0
