"""Turn raw cutouts in physical units, blanked pixels included, into what a network can use."""

import hashlib
import inspect
import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tv

from skyloom.errors import ConfigError, InputError
from skyloom.store.arguments import check_arguments
from skyloom.transform.limits import Limits
from skyloom.transform.stretch import Stretch

VERSION = 1  # part of the digest: raise it when the same options give other pixels
FIRST_KEYS = {  # the options of the first release; newer ones enter the digest where they differ from their default
    "stretch", "clip_low_percentile", "clip_high_percentile", "softening_sigma", "image_size_px", "channels", "mean",
    "std",
}  # fmt: skip
STRETCH_KEYS = tuple(field.name for field in fields(Stretch))

Channel = dict[str, Any]
"""Options of :class:`Stretch` for one channel; those left out are taken from the whole."""


class Preprocess(nn.Module):
    """Clip, stretch to 0-1 and resize each image of a batch by itself.

    Each image is clipped at its own limits ``low`` and ``high``, mapped to u = (x - low) / (high - low), then
    stretched by a function that keeps 0 and 1 in place:

    - ``linear``: u. ``sqrt``: the square root of u. ``power``: u**power. ``log``: log(1 + a u) / log(1 + a) with
      a = ``log_scale``. ``sinh``: sinh(s u) / sinh(s) with s = ``sinh_scale``. Names and formulas of
      ``astropy.visualization``, whose SinhStretch takes 1 / s.
    - ``minmax``: as ``linear``, from the lowest to the highest pixel, whatever ``clip`` says.
    - ``asinh``: asinh((x - median) / (softening_sigma * sigma)), shifted and scaled to 0-1. Linear at the noise and
      logarithmic for bright sources: Lupton, Gunn & Szalay (1999), AJ 118, 1406, with the softening in units of
      the image's own noise. sigma is the median minus the 15.87th percentile, one standard deviation of Gaussian
      noise on the side without sources; both come from a regular grid of about 1024 pixels of the image.
    - ``none``: raw values, not clipped, for images that are already scaled or are to be scaled by ``mean`` and
      ``std`` of raw pixels.

    Pixels that are NaN or infinite count as blanked: they take no part in the limits and become the low end, 0
    (the lowest finite value with ``none``). A constant or wholly blank image becomes zeros.

    Parameters
    ----------
    stretch
        One of the names above.
    clip
        Where the limits come from. ``percentile``: the two percentiles. ``sigma``: median - clip_low_sigma * sigma
        and median + clip_high_sigma * sigma after kappa-sigma clipping, no wider than the image's range.
        ``zscale``: the algorithm of IRAF. ``none``: the lowest and the highest pixel.
    clip_low_percentile, clip_high_percentile
        Percent of the finite pixels; exact, with linear interpolation as in ``numpy.percentile``.
    clip_low_sigma, clip_high_sigma
        Noise sigmas below and above the median.
    zscale_contrast
        Of zscale, 0-1: a smaller number widens the limits.
    softening_sigma
        Noise sigmas at which ``asinh`` turns from linear to logarithmic.
    log_scale, power, sinh_scale
        Shapes of ``log``, ``power`` and ``sinh``.
    image_size_px
        Side of the square output (bilinear, antialiased); None keeps the size of the input.
    channels
        A number: the one channel is repeated so many times. A list: one channel for each entry, an image stretched
        by the options of the entry; options that an entry leaves out are those of the whole.
    mean, std
        Applied last: (y - mean) / std, one number for all channels or one for each. None: not.
    mean_std_of
        What mean and std were measured on. ``scaled``: the 0-1 values. ``raw``: pixels in their physical unit, for
        ``stretch=none`` only.

    Raises
    ------
    ConfigError
        An option is out of range, or mean and std would meet values of another kind than they were measured on.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        *,
        stretch: str = "asinh",
        clip: str = "percentile",
        clip_low_percentile: float = 1.0,
        clip_high_percentile: float = 100.0,
        clip_low_sigma: float = 5.0,
        clip_high_sigma: float = 30.0,
        zscale_contrast: float = 0.25,
        softening_sigma: float = 3.0,
        log_scale: float = 1000.0,
        power: float = 2.0,
        sinh_scale: float = 3.0,
        image_size_px: int | None = None,
        channels: int | list[Channel] = 1,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        mean_std_of: Literal["scaled", "raw"] = "scaled",
    ) -> None:
        super().__init__()
        whole = Stretch(
            stretch=stretch,
            clip=clip,
            clip_low_percentile=float(clip_low_percentile),
            clip_high_percentile=float(clip_high_percentile),
            clip_low_sigma=float(clip_low_sigma),
            clip_high_sigma=float(clip_high_sigma),
            zscale_contrast=float(zscale_contrast),
            softening_sigma=float(softening_sigma),
            log_scale=float(log_scale),
            power=float(power),
            sinh_scale=float(sinh_scale),
        )
        own = None if isinstance(channels, int) else [_checked_channel(i, entry) for i, entry in enumerate(channels)]
        self.stretches = [whole] if own is None else [Stretch(**{**asdict(whole), **entry}) for entry in own]
        number = channels if isinstance(channels, int) else len(self.stretches)
        if number < 1 or (image_size_px is not None and image_size_px < 1):
            raise ConfigError(f"channels={channels}, image_size_px={image_size_px}: expected at least 1")
        means, stds = _per_channel("mean", mean, number), _per_channel("std", std, number)
        if (means is None) != (stds is None):
            raise ConfigError(f"mean={mean} and std={std}: give both or neither")
        if stds is not None and not min(stds) > 0:
            raise ConfigError(f"std={std}: expected more than 0")
        if means is not None:
            _refuse_other_scale(self.stretches, mean_std_of, mean, std)
        self.image_size_px = image_size_px
        self.channels = number
        for key, values in (("mean", means), ("std", stds)):
            tensor = None if values is None else torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(key, tensor, persistent=False)
        self.config: dict[str, Any] = {
            **asdict(whole),
            "image_size_px": image_size_px,
            "channels": number if own is None else own,
            "mean": means,
            "std": stds,
            "mean_std_of": mean_std_of,
        }

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str = "transform.preprocess") -> "Preprocess":
        """Build from a mapping as configurations hold it; an unknown or ill-typed option is a ConfigError."""
        signature = inspect.signature(cls)
        hints = typing.get_type_hints(cls.__init__)
        return cls(**check_arguments(where, signature, hints, options, unchecked=set()))

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the options as canonical JSON: equal digests give equal pixels."""
        told = {k: v for k, v in self.config.items() if k in FIRST_KEYS or v != _DEFAULTS[k]}
        text = json.dumps({"version": VERSION, **told}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @torch.no_grad()
    def forward(self, raw: Tensor) -> Tensor:
        """Map raw images (B, 1, H, W) float to (B, channels, S, S) float32; repeated channels share memory."""
        return self.normalise(self.scale(raw))

    @torch.no_grad()
    def scale(self, raw: Tensor) -> Tensor:
        """Stretch and resize raw images (B, 1, H, W) to 0-1, where augmentation belongs.

        The result is (B, 1, S, S) float32, or (B, channels, S, S) where each channel has its own stretch.
        """
        if raw.ndim != 4 or raw.shape[1] != 1 or 0 in raw.shape:
            raise InputError(f"expected raw images (batch, 1, height, width), found {tuple(raw.shape)}")
        blanked = raw.float().nan_to_num(math.nan, math.nan, math.nan)
        limits: dict[tuple[Any, ...], Limits | None] = {(): None}
        made = []
        for stretch in self.stretches:
            key = stretch.limits_key
            if key not in limits:
                limits[key] = stretch.limits(blanked)
            made.append(stretch(blanked, limits[key], reuse=len(self.stretches) == 1))
        image = made[0] if len(made) == 1 else torch.cat(made, 1)
        size = self.image_size_px
        if size is not None and image.shape[-2:] != (size, size):
            image = tv.resize(image, [size, size], interpolation=tv.InterpolationMode.BILINEAR, antialias=True)
        return image

    @torch.no_grad()
    def normalise(self, image: Tensor) -> Tensor:
        """Repeat the one channel of (B, 1, S, S) to (B, channels, S, S) and apply mean and std."""
        image = image.expand(-1, self.channels, -1, -1)
        return image if self.mean is None or self.std is None else (image - self.mean) / self.std


_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(Preprocess).parameters.items()}


def _checked_channel(number: int, entry: Mapping[str, Any]) -> Channel:
    hints = typing.get_type_hints(Stretch)
    signature = inspect.Signature(
        [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None) for key in STRETCH_KEYS]
    )
    values = check_arguments(f"channels[{number}]", signature, hints, entry, unchecked=set())
    return {key: values[key] for key in STRETCH_KEYS if key in entry}


def _refuse_other_scale(stretches: list[Stretch], mean_std_of: str, mean: Any, std: Any) -> None:
    """Refuse a mean and std that were measured on values of another kind than those they would be applied to."""
    raw = [stretch.stretch == "none" for stretch in stretches]
    if mean_std_of == "scaled" and any(raw):
        raise ConfigError(
            f"mean={mean} and std={std} belong to values of 0-1, but stretch=none passes raw values on, and "
            "1e-4 Jy/beam would become a constant; choose a stretch such as asinh, leave mean and std out, or, where "
            "they were measured on raw pixels (step=stats), say so with mean_std_of=raw"
        )
    if mean_std_of == "raw" and not all(raw):
        other = next(stretch.stretch for stretch in stretches if stretch.stretch != "none")
        raise ConfigError(
            f"mean_std_of=raw: mean={mean} and std={std} belong to raw pixels, but stretch={other} makes values of 0-1 "
            "of them first; set stretch=none, or give mean and std of scaled pixels (step=stats with preprocess=…)"
        )


def _per_channel(key: str, value: float | Sequence[float] | None, channels: int) -> list[float] | None:
    if value is None:
        return None
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if len(values) not in (1, channels):
        raise ConfigError(f"{key} has {len(values)} numbers, expected 1 or one for each of {channels} channels")
    return values
