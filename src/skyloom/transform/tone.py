"""Change the brightness scale of the images of a batch, all channels alike or each by itself."""

import torch
from torch import Tensor

from skyloom.transform.draw import Draw

CURVES = ("gamma", "asinh", "sinh", "log")
CURVE_MAX = {"asinh": 10.0, "sinh": 3.0, "log": 1000.0}  # strongest bend; astropy's a of 0.1, 1/3 and 1000


def restretched(
    images: Tensor, draw: Draw, *, probability: float, gamma_max: float, contrast_max: float, curves: tuple[str, ...]
) -> Tensor:
    """Bend the scale of images (B, C, H, W) by a curve that keeps 0 and 1 in place, then change the contrast.

    Parameters
    ----------
    images, draw
        Images of 0-1, and random numbers.
    probability
        Chance of a change.
    gamma_max
        For ``gamma``: y**g with log-uniform g in [1/gamma_max, gamma_max].
    contrast_max
        The distance to the image mean is multiplied by 1 +/- up to this, uniform.
    curves
        One of these is drawn for each image: ``gamma``; ``asinh``, ``sinh`` and ``log`` are asinh(k y) / asinh(k) and
        the like, with k log-uniform from 0.1 (almost straight) to 10, 3 and 1000.
    """
    chosen = draw.chosen(probability)
    gamma = draw.log_uniform(gamma_max) ** chosen
    contrast = 1.0 + chosen * draw.uniform(-contrast_max, contrast_max)
    if probability == 0 or (gamma_max == 1 and contrast_max == 0 and curves == ("gamma",)):
        return images
    cut = images.clamp(0.0, 1.0)
    bent = cut**gamma
    if curves != ("gamma",):
        which = (draw.uniform(0.0, 1.0) * len(curves)).floor().clamp(max=len(curves) - 1)
        strength = draw.uniform(0.0, 1.0)
        for number, curve in enumerate(curves):
            if curve != "gamma":
                bent = torch.where((which == number) & (chosen > 0), _curve(cut, curve, strength), bent)
    mean = bent.mean(dim=(1, 2, 3), keepdim=True)
    return ((bent - mean) * contrast + mean).clamp_(0.0, 1.0)


def jittered(images: Tensor, draw: Draw, *, probability: float, brightness_max: float, contrast_max: float) -> Tensor:
    """Change brightness and contrast of each channel of images (B, C, H, W) by itself.

    Parameters
    ----------
    images, draw
        Images of 0-1, and random numbers.
    probability
        Chance that the channels of an image are changed; 0 draws nothing.
    brightness_max
        Up to this is added or taken away; values are cut to 0-1.
    contrast_max
        The distance to the channel's mean is multiplied by 1 +/- up to this.
    """
    if probability == 0 or (brightness_max == 0 and contrast_max == 0):
        return images
    chosen, channels = draw.chosen(probability), images.shape[1]
    contrast = 1.0 + chosen * draw.uniform(-contrast_max, contrast_max, channels)
    brightness = chosen * draw.uniform(-brightness_max, brightness_max, channels)
    mean = images.mean(dim=(2, 3), keepdim=True)
    return torch.where(chosen > 0, ((images - mean) * contrast + mean + brightness).clamp(0.0, 1.0), images)


def _curve(images: Tensor, curve: str, strength: Tensor) -> Tensor:
    """Bend by a named curve; strength 0-1 is the place of k between 0.1 and its largest, in logarithms."""
    k = 0.1 * (CURVE_MAX[curve] / 0.1) ** strength
    if curve == "log":
        return (k * images).log1p() / k.log1p()
    bend = torch.asinh if curve == "asinh" else torch.sinh
    return bend(k * images) / bend(k)
