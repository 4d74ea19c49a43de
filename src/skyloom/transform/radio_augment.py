"""Random views of radio images for self-supervised training, drawn for each image of a batch at once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skyloom.errors import ConfigError, unknown_choice

ROTATIONS = ("any", "quarter", "none")


class RadioAugment(nn.Module):
    """Crop, turn, flip, blur, restretch and add noise to images of 0-1, as :meth:`Preprocess.scale` gives them.

    The order follows the sky and the telescope: geometry, blur, stretch, noise. Colour jitter, greyscale and solarising
    of natural images have no meaning here. All random numbers come from the generator that the caller passes, drawn
    on its device; the result does not depend on, and does not change, the global random state.

    Parameters
    ----------
    crop_area_min
        Smallest share of the image area that a crop keeps, 0-1; the share is uniform from it to 1.
    crop_aspect_max
        Largest ratio of the sides of a crop, 1 or more; log-uniform, so that both directions are equally likely.
    rotation
        ``any`` angle (corners are filled by reflection), ``quarter`` turns (no interpolation) or ``none``.
    flip_probability
        Chance of a mirror image; with rotation one axis is enough to reach every orientation.
    blur_probability, blur_sigma_px
        Chance and range of sigma of a Gaussian blur, in pixels of the resized image.
    stretch_probability, gamma_max, contrast_max
        Chance of y -> y**gamma with log-uniform gamma in [1/gamma_max, gamma_max], then of the distance to the image
        mean times 1 +/- contrast_max. Values are cut to 0-1.
    noise_fraction_max
        White Gaussian noise with a sigma of up to this fraction of the rms of the view about its mean.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    def __init__(
        self,
        *,
        crop_area_min: float = 0.65,
        crop_aspect_max: float = 1.15,
        rotation: str = "any",
        flip_probability: float = 0.5,
        blur_probability: float = 0.25,
        blur_sigma_px: tuple[float, float] = (0.1, 2.0),
        stretch_probability: float = 0.5,
        gamma_max: float = 1.5,
        contrast_max: float = 0.4,
        noise_fraction_max: float = 0.1,
    ) -> None:
        super().__init__()
        if rotation not in ROTATIONS:
            raise unknown_choice("rotation", rotation, ROTATIONS)
        sigma_low, sigma_high = blur_sigma_px
        for name, value, low, high in (
            ("crop_area_min", crop_area_min, 0.01, 1.0),
            ("crop_aspect_max", crop_aspect_max, 1.0, 10.0),
            ("flip_probability", flip_probability, 0.0, 1.0),
            ("blur_probability", blur_probability, 0.0, 1.0),
            ("blur_sigma_px[0]", sigma_low, 0.0, sigma_high),
            ("blur_sigma_px[1]", sigma_high, sigma_low, 100.0),
            ("stretch_probability", stretch_probability, 0.0, 1.0),
            ("gamma_max", gamma_max, 1.0, 10.0),
            ("contrast_max", contrast_max, 0.0, 1.0),
            ("noise_fraction_max", noise_fraction_max, 0.0, 10.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name}={value}: expected {low} to {high}")
        self.crop_area_min = crop_area_min
        self.crop_aspect_max = crop_aspect_max
        self.rotation = rotation
        self.flip_probability = flip_probability
        self.blur_probability = blur_probability
        self.blur_sigma_px = (float(sigma_low), float(sigma_high))
        self.stretch_probability = stretch_probability
        self.gamma_max = gamma_max
        self.contrast_max = contrast_max
        self.noise_fraction_max = noise_fraction_max

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw two views of square images (B, C, S, S), each of the same shape."""
        return self.view(images, generator), self.view(images, generator)

    @torch.no_grad()
    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one view of square images (B, C, S, S), of the same shape, for methods that need more than two."""
        with torch.autocast(images.device.type, enabled=False):  # half precision would round faint pixels
            return self._view(images, _Draw(images, generator))

    def _view(self, images: Tensor, draw: "_Draw") -> Tensor:
        views = self._turned(images, draw)
        views = self._blurred(views, draw)
        views = self._restretched(views, draw)
        sigma = draw.uniform(0.0, self.noise_fraction_max) * views.std(dim=(1, 2, 3), keepdim=True, correction=0)
        return views if self.noise_fraction_max == 0 else views + sigma * draw.normal()

    def _turned(self, images: Tensor, draw: "_Draw") -> Tensor:
        """Crop, rotate and flip in one bilinear sampling; a crop is placed anywhere inside the image."""
        side = draw.uniform(self.crop_area_min, 1.0).sqrt()
        aspect = draw.log_uniform(self.crop_aspect_max).sqrt()
        width, height = (side * aspect).clamp(max=1.0), (side / aspect).clamp(max=1.0)
        shift_x, shift_y = (1 - width) * draw.uniform(-1.0, 1.0), (1 - height) * draw.uniform(-1.0, 1.0)
        angle = draw.uniform(0.0, 2 * math.pi)
        if self.rotation == "quarter":
            angle = (angle / (math.pi / 2)).floor() * (math.pi / 2)
        elif self.rotation == "none":
            angle = torch.zeros_like(angle)
        mirror = 1.0 - 2.0 * draw.chosen(self.flip_probability)
        cos, sin = angle.cos(), angle.sin()
        # Output coordinates (-1 to 1) -> mirrored -> turned -> scaled and shifted to the crop in the input.
        rows = (width * cos * mirror, -width * sin, shift_x, height * sin * mirror, height * cos, shift_y)
        matrix = torch.cat([row.view(-1, 1) for row in rows], 1).view(-1, 2, 3)
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def _blurred(self, images: Tensor, draw: "_Draw") -> Tensor:
        chosen = draw.chosen(self.blur_probability)
        sigma = draw.uniform(*self.blur_sigma_px)
        if self.blur_probability == 0 or self.blur_sigma_px[1] == 0:
            return images
        batch, channels, height, width = images.shape
        radius = min(math.ceil(3 * self.blur_sigma_px[1]), height - 1, width - 1)
        offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        # An image that is not chosen gets a kernel so narrow that it is the identity, which avoids indexing.
        narrow = torch.where(chosen > 0, sigma, 0.0).clamp(min=0.05).view(-1, 1)
        kernel = torch.softmax(-0.5 * (offset / narrow) ** 2, dim=1).repeat_interleave(channels, 0)
        stack = F.pad(images.reshape(1, batch * channels, height, width), (radius,) * 4, mode="reflect")
        stack = F.conv2d(stack, kernel.view(-1, 1, 1, 2 * radius + 1), groups=batch * channels)
        stack = F.conv2d(stack, kernel.view(-1, 1, 2 * radius + 1, 1), groups=batch * channels)
        return stack.view(batch, channels, height, width)

    def _restretched(self, images: Tensor, draw: "_Draw") -> Tensor:
        chosen = draw.chosen(self.stretch_probability)
        gamma = draw.log_uniform(self.gamma_max) ** chosen
        contrast = 1.0 + chosen * draw.uniform(-self.contrast_max, self.contrast_max)
        if self.stretch_probability == 0 or (self.gamma_max == 1 and self.contrast_max == 0):
            return images
        bent = images.clamp(0.0, 1.0) ** gamma
        mean = bent.mean(dim=(1, 2, 3), keepdim=True)
        return ((bent - mean) * contrast + mean).clamp_(0.0, 1.0)


class _Draw:
    """Random numbers, one for each image, as (B, 1, 1, 1) on the images' device."""

    def __init__(self, images: Tensor, generator: torch.Generator) -> None:
        self.images, self.generator = images, generator

    def uniform(self, low: float, high: float) -> Tensor:
        number = torch.rand(len(self.images), generator=self.generator, device=self.generator.device)
        return (low + (high - low) * number).to(self.images).view(-1, 1, 1, 1)

    def log_uniform(self, most: float) -> Tensor:
        return self.uniform(-math.log(most), math.log(most)).exp()

    def chosen(self, probability: float) -> Tensor:
        return (self.uniform(0.0, 1.0) < probability).to(self.images)

    def normal(self) -> Tensor:
        noise = torch.randn(self.images.shape, generator=self.generator, device=self.generator.device)
        return noise.to(self.images)
