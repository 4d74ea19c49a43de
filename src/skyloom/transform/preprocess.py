"""Turn raw cutouts in physical units, blanked pixels included, into what a network can use."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from skyloom.errors import ConfigError, InputError, unknown_choice

VERSION = 1  # part of the digest: raise it when the same options give other pixels
STRETCHES = ("linear", "minmax", "asinh", "sqrt", "log", "none")
LOG_SCALE = 1000.0  # the a of astropy's LogStretch, log(1 + a u) / log(1 + a)
NOISE_SAMPLES = 1024  # pixels per image for its median and sigma; a beam covers several pixels, so more add little
FLAT_SOFTENING = 1e-3  # of the clipped range, where more than a third of the pixels are equal and sigma is 0


class Preprocess(nn.Module):
    """Clip, stretch to 0-1 and resize each image of a batch by itself.

    Each image is clipped at its own percentiles ``low`` and ``high``, mapped to u = (x - low) / (high - low), then
    stretched by a function that keeps 0 and 1 in place:

    - ``linear``: u. ``sqrt``: the square root of u. ``log``: log(1 + 1000 u) / log(1001).
    - ``minmax``: as ``linear``, from the lowest to the highest pixel, whatever the percentiles say.
    - ``asinh``: asinh((x - median) / (softening_sigma * sigma)), shifted and scaled to 0-1. Linear at the noise and
      logarithmic for bright sources: Lupton, Gunn & Szalay (1999), AJ 118, 1406, with the softening in units of
      the image's own noise. sigma is the median minus the 15.87th percentile, one standard deviation of Gaussian
      noise on the side without sources; both come from a regular grid of about 1024 pixels of the image.
    - ``none``: raw values, for images that are already scaled.

    Pixels that are NaN or infinite count as blanked: they take no part in the percentiles and become the low end, 0
    (the lowest finite value with ``none``). A constant or wholly blank image becomes zeros.

    Parameters
    ----------
    stretch
        One of the names above.
    clip_low_percentile, clip_high_percentile
        Percent of the finite pixels; exact, with linear interpolation as in ``numpy.percentile``.
    softening_sigma
        Noise sigmas at which ``asinh`` turns from linear to logarithmic.
    image_size_px
        Side of the square output (bilinear, antialiased); None keeps the size of the input.
    channels
        The one channel is repeated so many times.
    mean, std
        Applied last, to the 0-1 values: (y - mean) / std, one number for all channels or one for each. None: not.

    Raises
    ------
    ConfigError
        An option is out of range, or mean and std would meet raw values.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        *,
        stretch: str = "asinh",
        clip_low_percentile: float = 1.0,
        clip_high_percentile: float = 100.0,
        softening_sigma: float = 3.0,
        image_size_px: int | None = None,
        channels: int = 1,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if stretch not in STRETCHES:
            raise unknown_choice("stretch", stretch, STRETCHES)
        if not 0 <= clip_low_percentile < clip_high_percentile <= 100:
            raise ConfigError(
                "expected 0 <= clip_low_percentile < clip_high_percentile <= 100, "
                f"found {clip_low_percentile} and {clip_high_percentile}"
            )
        if not softening_sigma > 0:
            raise ConfigError(f"softening_sigma={softening_sigma}: expected more than 0")
        if channels < 1 or (image_size_px is not None and image_size_px < 1):
            raise ConfigError(f"channels={channels}, image_size_px={image_size_px}: expected at least 1")
        means, stds = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
        if (means is None) != (stds is None):
            raise ConfigError(f"mean={mean} and std={std}: give both or neither")
        if stds is not None and min(stds) <= 0:
            raise ConfigError(f"std={std}: expected more than 0")
        if means is not None and stretch == "none":
            raise ConfigError(
                f"mean={mean} and std={std} belong to values of 0-1, but stretch=none passes raw values on, and "
                "1e-4 Jy/beam would become a constant; choose a stretch such as asinh, or leave mean and std out"
            )
        self.stretch = stretch
        self.low, self.high = (0.0, 100.0) if stretch == "minmax" else (clip_low_percentile, clip_high_percentile)
        self.softening_sigma = softening_sigma
        self.image_size_px = image_size_px
        self.channels = channels
        for key, values in (("mean", means), ("std", stds)):
            tensor = None if values is None else torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(key, tensor, persistent=False)
        self.config: dict[str, Any] = {
            "stretch": stretch,
            "clip_low_percentile": float(clip_low_percentile),
            "clip_high_percentile": float(clip_high_percentile),
            "softening_sigma": float(softening_sigma),
            "image_size_px": image_size_px,
            "channels": channels,
            "mean": means,
            "std": stds,
        }

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the options as canonical JSON: equal digests give equal pixels."""
        text = json.dumps({"version": VERSION, **self.config}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @torch.no_grad()
    def forward(self, raw: Tensor) -> Tensor:
        """Map raw images (B, 1, H, W) float to (B, channels, S, S) float32; repeated channels share memory."""
        return self.normalise(self.scale(raw))

    @torch.no_grad()
    def scale(self, raw: Tensor) -> Tensor:
        """Stretch and resize raw images (B, 1, H, W) to (B, 1, S, S) float32, 0-1: where augmentation belongs."""
        if raw.ndim != 4 or raw.shape[1] != 1 or 0 in raw.shape:
            raise InputError(f"expected raw images (batch, 1, height, width), found {tuple(raw.shape)}")
        image = raw.float().nan_to_num(math.nan, math.nan, math.nan)
        if self.stretch == "none":
            low = _percentiles(image, 0.0, 100.0)[0]
            image = torch.where(image.isnan(), low, image)
        else:
            image = self._stretched(image)
        size = self.image_size_px
        if size is not None and image.shape[-2:] != (size, size):
            image = tv.resize(image, [size, size], interpolation=tv.InterpolationMode.BILINEAR, antialias=True)
        return image

    @torch.no_grad()
    def normalise(self, image: Tensor) -> Tensor:
        """Repeat the channel of (B, 1, S, S) to (B, channels, S, S) and apply mean and std."""
        image = image.expand(-1, self.channels, -1, -1)
        return image if self.mean is None or self.std is None else (image - self.mean) / self.std

    def _stretched(self, image: Tensor) -> Tensor:
        low, high = _percentiles(image, self.low, self.high)
        median, sigma = _noise(image) if self.stretch == "asinh" else (low, low)
        span = torch.where(high > low, high - low, torch.ones_like(low))
        unit = image.sub_(low).div_(span).nan_to_num_(0.0).clamp_(0.0, 1.0)  # in place: memory traffic is the cost
        if self.stretch == "sqrt":
            return unit.sqrt_()
        if self.stretch == "log":
            return unit.mul_(LOG_SCALE).log1p_().div_(math.log1p(LOG_SCALE))
        if self.stretch != "asinh":
            return unit
        softening = torch.where(sigma > 0, self.softening_sigma * sigma / span, FLAT_SOFTENING)
        centre = ((median - low) / span).nan_to_num(0.0).clamp(0.0, 1.0)
        bottom, top = _asinh(-centre / softening), _asinh((1 - centre) / softening)
        # The clamp takes off what rounding puts outside.
        return _asinh(unit.sub_(centre).div_(softening)).sub_(bottom).div_(top - bottom).clamp_(0.0, 1.0)


def _asinh(value: Tensor) -> Tensor:
    """Equal to torch.asinh to single precision, at a quarter of its time on a CPU, where that is not vectorised."""
    size = value.abs()
    return (size * size).add_(1.0).sqrt_().add_(size).log_().copysign_(value)


def _percentiles(image: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return two percentiles of the finite pixels, each (B, 1, 1, 1); 0 for an image without any.

    Only the two tails are sorted: for the usual percentiles some thirty times faster than sorting all pixels.
    """
    flat = image.flatten(1)  # blanked pixels are NaN, which sort after everything else
    count = flat.shape[1] - flat.isnan().sum(1, keepdim=True)
    ends = []
    for sign, tail in ((1, low), (-1, 100.0 - high)):
        signed = flat if sign == 1 else -flat
        rank = (count - 1).clamp(min=0) * (tail / 100.0)
        if tail == 0:
            value = signed.nan_to_num(math.inf).amin(1, keepdim=True)
        else:
            depth = min(flat.shape[1], math.floor((flat.shape[1] - 1) * tail / 100.0) + 2)
            ordered = signed.topk(depth, dim=1, largest=False).values
            before = ordered.gather(1, rank.floor().long())
            after = ordered.gather(1, rank.ceil().long().clamp(max=depth - 1))
            value = before + (after - before) * (rank - rank.floor()).to(ordered.dtype)
        ends.append(torch.where(count > 0, sign * value, 0.0).view(-1, 1, 1, 1))
    return ends[0], ends[1]


def _noise(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and sigma (median minus 15.87th percentile) of a grid of pixels, each (B, 1, 1, 1)."""
    step = max(1, math.isqrt(image.shape[-2] * image.shape[-1] // NOISE_SAMPLES))
    ordered = image[:, 0, step // 2 :: step, step // 2 :: step].flatten(1).sort(1).values  # NaN sorts last
    last = (ordered.isfinite().sum(1, keepdim=True) - 1).clamp(min=0)
    median = ordered.gather(1, (last * 0.5).round().long())
    below = ordered.gather(1, (last * 0.1587).round().long())
    return median.view(-1, 1, 1, 1), (median - below).nan_to_num(0.0).view(-1, 1, 1, 1)


def _per_channel(key: str, value: float | Sequence[float] | None, channels: int) -> list[float] | None:
    if value is None:
        return None
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if len(values) not in (1, channels):
        raise ConfigError(f"{key} has {len(values)} numbers, expected 1 or one for each of {channels} channels")
    return values
