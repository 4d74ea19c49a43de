"""Images as a network takes them: normalised, without gaps, padded to one size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from skyloom.errors import InputError
from skyloom.transform.limits import noise


@dataclass(frozen=True)
class Images:
    """A batch.

    Attributes
    ----------
    pixels
        float32 (B, C, H, W), normalised; zeros at the right and the bottom of smaller images. Enlarged if asked for.
    sizes
        Height and width of each image, px.
    sizes_px
        The same, float32 (B, 2), beside the pixels.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    sizes_px: Tensor

    def __len__(self) -> int:
        return len(self.sizes)


def normalised(
    images: Sequence[Tensor] | Tensor,
    *,
    mean: Tensor,
    std: Tensor,
    multiple_px: int,
    pad_to_px: int | None,
    softening_sigma: float | None = None,
    enlarge: int = 1,
) -> Images:
    """Put images together as (x - mean) / std, pixels that are not finite set to the mean.

    With ``softening_sigma``, each band of each image becomes asinh((x - median) / (softening_sigma * noise)) instead,
    median and noise being its own (:func:`skyloom.transform.limits.noise`): linear for faint sources, logarithmic for
    bright ones (Lupton, Gunn & Szalay 1999, AJ 118, 1406). The standard deviation of deep images is that of their few
    brightest sources, a hundred times the noise, and would leave the faint ones next to nothing.

    Parameters
    ----------
    images
        float (C, H, W) each, or one tensor (B, C, H, W).
    mean, std
        float32 (C,), in the unit of the images.
    multiple_px
        The sides become multiples of this number.
    pad_to_px
        Least side of the squares that images are padded to; None pads no further than needed.
    softening_sigma
        In units of the noise; None: mean and std.
    enlarge
        Factor by which the pixels are interpolated in the end (bilinear); the sizes stay those of the images.

    Raises
    ------
    InputError
        There is no image, or one of another number of channels or of no size.
    """
    if not len(images):
        raise InputError("expected at least one image, found none; check the batch")
    channels = len(mean)
    for image in [images] if isinstance(images, Tensor) else images:
        shape = tuple(image.shape)
        if image.ndim != (4 if isinstance(images, Tensor) else 3) or shape[-3] != channels or 0 in shape:
            raise InputError(
                f"the detector was built for {channels} channel(s), found images of the shape {shape}; "
                "give images (channels, height, width) of the bands that it was trained with"
            )
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    sides = [max(size[axis] for size in sizes) for axis in (0, 1)]
    if pad_to_px is not None:
        sides = [max(*sides, pad_to_px)] * 2
    height, width = (math.ceil(side / multiple_px) * multiple_px for side in sides)
    if isinstance(images, Tensor) and (height, width) == sizes[0]:
        pixels = _scaled(images, mean, std, softening_sigma)
    else:
        pixels = images[0].new_zeros((len(images), channels, height, width), dtype=torch.float32)
        for place, image in zip(pixels, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = _scaled(image, mean, std, softening_sigma)
    if enlarge > 1:
        pixels = functional.interpolate(pixels, scale_factor=enlarge, mode="bilinear", align_corners=False)
    return Images(pixels, sizes, torch.tensor(sizes, dtype=torch.float32, device=pixels.device))


def _scaled(image: Tensor, mean: Tensor, std: Tensor, softening_sigma: float | None) -> Tensor:
    if softening_sigma is None:
        scaled = (image.float() - mean[:, None, None]) / std[:, None, None]
    else:
        planes = image.float().flatten(0, -3)[:, None].nan_to_num(math.nan, math.nan, math.nan)
        median, sigma = noise(planes)
        spread = std.repeat(len(planes) // len(std)).view_as(sigma)
        sigma = torch.where(sigma > 0, sigma, spread)  # more than half of the band is constant
        scaled = torch.asinh((planes - median) / (softening_sigma * sigma)).view_as(image)
    return torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
