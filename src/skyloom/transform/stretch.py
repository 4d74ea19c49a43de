"""One stretch: clip an image at two limits, map it to 0-1 and bend it; the building block of Preprocess."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from skyloom.errors import ConfigError, unknown_choice
from skyloom.transform.limits import Limits, noise, percentile_limits, sigma_limits, zscale_limits

STRETCHES = ("linear", "minmax", "asinh", "sinh", "sqrt", "log", "power", "none")
CLIPS = ("percentile", "sigma", "zscale", "none")
FLAT_SOFTENING = 1e-3  # of the clipped range, where more than a third of the pixels are equal and sigma is 0


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Clip and stretch each image of a batch by itself; see :class:`skyloom.transform.Preprocess` for the options."""

    stretch: str = "asinh"
    clip: str = "percentile"
    clip_low_percentile: float = 1.0
    clip_high_percentile: float = 100.0
    clip_low_sigma: float = 5.0
    clip_high_sigma: float = 30.0
    zscale_contrast: float = 0.25
    softening_sigma: float = 3.0
    log_scale: float = 1000.0
    power: float = 2.0
    sinh_scale: float = 3.0

    def __post_init__(self) -> None:
        if self.stretch not in STRETCHES:
            raise unknown_choice("stretch", self.stretch, STRETCHES)
        if self.clip not in CLIPS:
            raise unknown_choice("clip", self.clip, CLIPS)
        if not 0 <= self.clip_low_percentile < self.clip_high_percentile <= 100:
            raise ConfigError(
                "expected 0 <= clip_low_percentile < clip_high_percentile <= 100, "
                f"found {self.clip_low_percentile} and {self.clip_high_percentile}"
            )
        numbers = ("clip_low_sigma", "clip_high_sigma", "softening_sigma", "log_scale", "power", "sinh_scale")
        for name in numbers:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name}={value}: expected more than 0")
        if not 0 < self.zscale_contrast <= 1:
            raise ConfigError(f"zscale_contrast={self.zscale_contrast}: expected more than 0, at most 1")

    @property
    def limits_key(self) -> tuple[Any, ...]:
        """What decides the limits: channels with the same key share them."""
        if self.stretch == "none":
            return ()
        if self.stretch == "minmax" or self.clip == "none":
            return ("percentile", 0.0, 100.0)
        if self.clip == "sigma":
            return ("sigma", float(self.clip_low_sigma), float(self.clip_high_sigma))
        if self.clip == "zscale":
            return ("zscale", float(self.zscale_contrast))
        return ("percentile", float(self.clip_low_percentile), float(self.clip_high_percentile))

    def limits(self, image: Tensor) -> Limits:
        """Return the values between which images (B, 1, H, W), NaN where blank, are stretched."""
        kind, *numbers = self.limits_key
        if kind == "sigma":
            return sigma_limits(image, *numbers)
        return zscale_limits(image, *numbers) if kind == "zscale" else percentile_limits(image, *numbers)

    def __call__(self, image: Tensor, limits: Limits | None = None, *, reuse: bool = False) -> Tensor:
        """Map images (B, 1, H, W), NaN where blank, to 0-1 (raw values with ``none``); ``reuse`` writes into them."""
        if self.stretch == "none":
            return torch.where(image.isnan(), percentile_limits(image, 0.0, 100.0)[0], image)
        low, high = self.limits(image) if limits is None else limits
        median, sigma = noise(image) if self.stretch == "asinh" else (low, low)
        span = torch.where(high > low, high - low, torch.ones_like(low))
        # In place wherever it can be: memory traffic is the cost.
        unit = (image.sub_(low) if reuse else image - low).div_(span).nan_to_num_(0.0).clamp_(0.0, 1.0)
        if self.stretch == "sqrt":
            return unit.sqrt_()
        if self.stretch == "log":
            return unit.mul_(self.log_scale).log1p_().div_(math.log1p(self.log_scale))
        if self.stretch == "power":
            return unit.square_() if self.power == 2 else unit.pow_(self.power)
        if self.stretch == "sinh":
            return unit.mul_(self.sinh_scale).sinh_().div_(math.sinh(self.sinh_scale)).clamp_(0.0, 1.0)
        if self.stretch != "asinh":
            return unit
        softening = torch.where(sigma > 0, self.softening_sigma * sigma / span, FLAT_SOFTENING)
        centre = ((median - low) / span).nan_to_num(0.0).clamp(0.0, 1.0)
        bottom, top = _asinh(-centre / softening), _asinh((1 - centre) / softening)
        # The clamp takes off what rounding puts outside.
        return _asinh(unit.sub_(centre).div_(softening)).sub_(bottom).div_(top - bottom).clamp_(0.0, 1.0)


def changed(stretch: Stretch, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a stretch that differ from ``base``."""
    own = {field.name: getattr(stretch, field.name) for field in fields(stretch)}
    return {key: value for key, value in own.items() if base.get(key) != value}


def _asinh(value: Tensor) -> Tensor:
    """Equal to torch.asinh to single precision, at a quarter of its time on a CPU, where that is not vectorised."""
    size = value.abs()
    return (size * size).add_(1.0).sqrt_().add_(size).log_().copysign_(value)
