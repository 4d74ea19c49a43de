"""Random numbers for the images of a batch, from one generator."""

import math

import torch
from torch import Tensor


class Draw:
    """One random number for each image, as (B, 1, 1, 1) in the type and on the device of the images.

    Parameters
    ----------
    images
        (B, C, H, W).
    generator
        Where all numbers come from, drawn on its own device; the global random state is neither read nor changed.
    """

    def __init__(self, images: Tensor, generator: torch.Generator) -> None:
        self.images, self.generator = images, generator

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        """Draw from low to high; (B, channels, 1, 1)."""
        shape = (len(self.images), channels, 1, 1)
        number = torch.rand(shape, generator=self.generator, device=self.generator.device)
        return (low + (high - low) * number).to(self.images)

    def log_uniform(self, most: float, channels: int = 1) -> Tensor:
        """Draw from 1/most to most, so that both directions are equally likely."""
        return self.uniform(-math.log(most), math.log(most), channels).exp()

    def chosen(self, probability: float) -> Tensor:
        """1 for the images that are chosen, else 0."""
        return (self.uniform(0.0, 1.0) < probability).to(self.images)

    def normal(self, shape: torch.Size) -> Tensor:
        """Draw from the normal distribution with a sigma of 1."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.images)
