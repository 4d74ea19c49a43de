"""What the telescope does to the images of a batch: blur by a beam, and noise."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from skyloom.transform.draw import Draw
from skyloom.transform.limits import noise

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in sigmas
NARROW = 0.05  # px; a Gaussian of this sigma leaves an image as it is


def blurred(
    images: Tensor, draw: Draw, *, probability: float, sigma_px: tuple[float, float], axis_ratio_max: float
) -> Tensor:
    """Convolve images (B, C, H, W) with Gaussian beams; the mean over a blurred source keeps its flux.

    Parameters
    ----------
    images, draw
        Images and random numbers.
    probability
        Chance of a blur.
    sigma_px
        Range of sigma along the major axis; uniform.
    axis_ratio_max
        Largest ratio of the axes, uniform from 1, at any position angle; 1 is a round beam.
    """
    chosen = draw.chosen(probability)
    sigma = draw.uniform(*sigma_px)
    if probability == 0 or sigma_px[1] == 0:
        return images
    # An image that is not chosen gets a kernel so narrow that it is the identity, which avoids indexing.
    sigma = torch.where(chosen > 0, sigma, 0.0).clamp(min=NARROW)
    radius = min(math.ceil(3 * sigma_px[1]), images.shape[-2] - 1, images.shape[-1] - 1)
    if axis_ratio_max == 1:
        return _round(images, sigma.view(-1, 1), radius)
    minor = (sigma / draw.uniform(1.0, axis_ratio_max)).clamp(min=NARROW)
    return _oval(images, sigma, minor, draw.uniform(0.0, math.pi), radius)


def noisy(images: Tensor, draw: Draw, *, fraction_max: float, rms_of: str, beam_px: float) -> Tensor:
    """Add Gaussian noise to images (B, C, H, W).

    Parameters
    ----------
    images, draw
        Images and random numbers.
    fraction_max
        Largest sigma in units of the rms; uniform from 0.
    rms_of
        ``image``: the rms is that of all pixels about their mean, sources included. ``background``: median minus
        15.87th percentile of each channel, the noise between the sources.
    beam_px
        FWHM of the beam with which the noise is correlated; 0 is white noise.
    """
    fraction = draw.uniform(0.0, fraction_max)
    if fraction_max == 0:
        return images
    if rms_of == "image":
        rms = images.std(dim=(1, 2, 3), keepdim=True, correction=0)
    else:
        rms = noise(images.flatten(0, 1).unsqueeze(1))[1].view(*images.shape[:2], 1, 1)
    grain = draw.normal(images.shape)
    if beam_px > 0:
        sigma = torch.full((len(images), 1), beam_px / FWHM).to(images)
        grain = _round(grain, sigma, min(math.ceil(3 * beam_px / FWHM), images.shape[-1] - 1))
        grain = grain / grain.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return images + fraction * rms * grain


def _round(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Convolve with a round Gaussian, (B, 1) sigma in px: one axis after the other."""
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.softmax(-0.5 * (offset / sigma) ** 2, dim=1).repeat_interleave(images.shape[1], 0)
    stack = _stacked(images, radius)
    stack = F.conv2d(stack, kernel.view(-1, 1, 1, 2 * radius + 1), groups=len(kernel))
    stack = F.conv2d(stack, kernel.view(-1, 1, 2 * radius + 1, 1), groups=len(kernel))
    return stack.view_as(images)


def _oval(images: Tensor, major: Tensor, minor: Tensor, angle: Tensor, radius: int) -> Tensor:
    """Convolve with an elliptical Gaussian; sigmas in px and position angle, each (B, 1, 1, 1)."""
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    x, y = offset.view(1, 1, 1, -1), offset.view(1, 1, -1, 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    power = -0.5 * ((along / major) ** 2 + (across / minor) ** 2)
    kernel = torch.softmax(power.flatten(1), dim=1).view_as(power).repeat_interleave(images.shape[1], 0)
    return F.conv2d(_stacked(images, radius), kernel, groups=len(kernel)).view_as(images)


def _stacked(images: Tensor, radius: int) -> Tensor:
    """Lay images and channels side by side as the channels of one, with a reflected rim: each has its own kernel."""
    batch, channels, height, width = images.shape
    return F.pad(images.reshape(1, batch * channels, height, width), (radius,) * 4, mode="reflect")
