"""The values between which an image is stretched: percentiles, sigmas about the background, zscale, or all of it."""

import math

import torch
from torch import Tensor

NOISE_SAMPLES = 1024  # pixels per image for its median and sigma; a beam covers several pixels, so more add little
SIGMA_ITERATIONS = 5  # of the clipping, as in astropy.stats.sigma_clip
ZSCALE_SAMPLES = 1000  # this and the next five: the constants of IRAF and of astropy.visualization.ZScaleInterval
ZSCALE_REJECT_MAX = 0.5
ZSCALE_PIXELS_MIN = 5
ZSCALE_SIGMAS = 2.5
ZSCALE_ITERATIONS = 5
ZSCALE_GROW = 0.01

Limits = tuple[Tensor, Tensor]
"""Low and high, each (B, 1, 1, 1); equal (0) for an image without finite pixels."""


def percentile_limits(image: Tensor, low: float, high: float) -> Limits:
    """Return two percentiles of the finite pixels of each image (B, 1, H, W), as ``numpy.percentile`` defines them.

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


def noise(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and sigma (median minus 15.87th percentile) of a grid of pixels, each (B, 1, 1, 1)."""
    ordered = _grid(image)
    last = (ordered.isfinite().sum(1, keepdim=True) - 1).clamp(min=0)
    median = ordered.gather(1, (last * 0.5).round().long())
    below = ordered.gather(1, (last * 0.1587).round().long())
    return median.view(-1, 1, 1, 1), (median - below).nan_to_num(0.0).view(-1, 1, 1, 1)


def sigma_limits(image: Tensor, low: float, high: float) -> Limits:
    """Return median - low * sigma and median + high * sigma after kappa-sigma clipping, within the range of the image.

    Median and standard deviation of a regular grid of about 1024 pixels; those outside the two bounds are left out
    and both are measured again, at most five times, as ``astropy.stats.sigma_clip`` does on all pixels.
    """
    ordered = _grid(image)
    values = ordered.to(_double(image))
    left = ordered.isfinite()
    values = values.nan_to_num(0.0)
    for _ in range(SIGMA_ITERATIONS):
        number = left.sum(1, keepdim=True).clamp(min=1)
        first = left.int().argmax(1, keepdim=True)  # the kept pixels of a sorted row lie side by side
        median = 0.5 * (values.gather(1, first + (number - 1) // 2) + values.gather(1, first + number // 2))
        mean = (values * left).sum(1, keepdim=True) / number
        sigma = ((values - mean).square() * left).sum(1, keepdim=True).div(number).sqrt()
        bottom, top = median - low * sigma, median + high * sigma
        kept = left & (values >= bottom) & (values <= top)
        if bool((kept == left).all()):
            break
        left = kept
    return _within(image, bottom, top)


def zscale_limits(image: Tensor, contrast: float) -> Limits:
    """Return the limits of IRAF's zscale for each image (B, 1, H, W).

    A straight line is fitted to 1000 sorted pixels, of which those beyond 2.5 sigma are left out five times; the
    limits are where the line, steepened by 1 / ``contrast``, ends. Where more than half of the pixels were left out
    they are the lowest and the highest sample. The same numbers as ``astropy.visualization.ZScaleInterval``,
    whose description of the algorithm (Tody 1986, SPIE 627, 733) this follows, for a whole batch at once.
    """
    sample = _sequence(image).to(_double(image)).sort(1).values  # NaN (no such sample) sorts last
    number = sample.isfinite().sum(1, keepdim=True)
    exists = sample.isfinite()
    sample = sample.nan_to_num(0.0)
    place = torch.arange(sample.shape[1], device=image.device).expand_as(sample)
    x = place.to(sample)
    lowest, highest = sample[:, :1], sample.gather(1, (number - 1).clamp(min=0))
    fewest = (number * ZSCALE_REJECT_MAX).floor().clamp(min=ZSCALE_PIXELS_MIN)
    grow = (number * ZSCALE_GROW).floor().clamp(min=1).long()
    ends = (place - grow // 2 - 1, torch.minimum(place + (grow - 1) // 2, (number - 1).clamp(min=0)))
    good, count, before = exists, number, number + 1
    slope = torch.zeros_like(lowest)
    for _ in range(ZSCALE_ITERATIONS):
        busy = (count < before) & (count >= fewest)
        if not bool(busy.any()):
            break
        weight = good.to(sample)
        total = weight.sum(1, keepdim=True).clamp(min=1)
        x_mean, y_mean = (x * weight).sum(1, keepdim=True) / total, (sample * weight).sum(1, keepdim=True) / total
        spread = ((x - x_mean).square() * weight).sum(1, keepdim=True)
        found = ((x - x_mean) * (sample - y_mean) * weight).sum(1, keepdim=True) / spread.clamp(min=1e-30)
        slope = torch.where(busy, found, slope)
        rest = sample - y_mean - slope * (x - x_mean)
        rest_mean = (rest * weight).sum(1, keepdim=True) / total
        sigma = ((rest - rest_mean).square() * weight).sum(1, keepdim=True).div(total).sqrt()
        bad = exists & (~good | (rest.abs() > ZSCALE_SIGMAS * sigma))
        sums = bad.long().cumsum(1)  # a bad pixel also takes its neighbours away
        near = sums.gather(1, ends[1].clamp(min=0)) - torch.where(ends[0] >= 0, sums.gather(1, ends[0].clamp(min=0)), 0)
        good = torch.where(busy, exists & (near <= 0), good)
        count, before = torch.where(busy, good.sum(1, keepdim=True), count), torch.where(busy, count, before)
    centre = (number - 1).clamp(min=0) // 2
    median = 0.5 * (sample.gather(1, centre) + sample.gather(1, (number // 2).clamp(max=sample.shape[1] - 1)))
    steep = slope / contrast
    trusted = count >= fewest
    bottom = torch.where(trusted, torch.maximum(lowest, median - (centre - 1) * steep), lowest)
    top = torch.where(trusted, torch.minimum(highest, median + (number - centre) * steep), highest)
    return bottom.float().view(-1, 1, 1, 1), top.float().view(-1, 1, 1, 1)


def _within(image: Tensor, bottom: Tensor, top: Tensor) -> Limits:
    """Cut limits to the range of each image, so that its clipped pixels span all of it."""
    lowest, highest = percentile_limits(image, 0.0, 100.0)
    low = torch.maximum(bottom.to(image).view(-1, 1, 1, 1), lowest)
    high = torch.minimum(top.to(image).view(-1, 1, 1, 1), highest)
    empty = image.flatten(1).isnan().all(1).view(-1, 1, 1, 1)
    return torch.where(empty, 0.0, low), torch.where(empty, 0.0, high)


def _grid(image: Tensor) -> Tensor:
    """Return about 1024 pixels of each image on a regular grid, (B, M), sorted, NaN last."""
    step = max(1, math.isqrt(image.shape[-2] * image.shape[-1] // NOISE_SAMPLES))
    return image[:, 0, step // 2 :: step, step // 2 :: step].flatten(1).sort(1).values


def _sequence(image: Tensor) -> Tensor:
    """Return every n-th finite pixel of each image, (B, 1000) or fewer; NaN where an image has no more."""
    flat = image.flatten(1)
    blank = flat.isnan()
    if not bool(blank.any()):
        return flat[:, :: max(1, flat.shape[1] // ZSCALE_SAMPLES)][:, :ZSCALE_SAMPLES]
    rank = (~blank).cumsum(1)
    number = rank[:, -1:]
    wanted = torch.arange(min(ZSCALE_SAMPLES, flat.shape[1]), device=flat.device) * (number // ZSCALE_SAMPLES).clamp(
        min=1
    )
    at = torch.searchsorted(rank, wanted + 1).clamp(max=flat.shape[1] - 1)
    return torch.where(wanted < number, flat.gather(1, at), math.nan)


def _double(image: Tensor) -> torch.dtype:
    return torch.float32 if image.device.type == "mps" else torch.float64
