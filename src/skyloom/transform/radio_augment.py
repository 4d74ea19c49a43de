"""Random views of radio images for self-supervised training, drawn for each image of a batch at once."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from skyloom.errors import ConfigError, unknown_choice
from skyloom.transform.beam import blurred, noisy
from skyloom.transform.draw import Draw
from skyloom.transform.geometry import PADDINGS, ROTATIONS, disc, turned
from skyloom.transform.tone import CURVES, jittered, restretched

GLOBAL_CROPS = 2
NOISE_RMS = ("image", "background")


class RadioAugment(nn.Module):
    """Crop, turn, flip, blur, restretch and add noise to images of 0-1, as :meth:`Preprocess.scale` gives them.

    The order follows the sky and the telescope: geometry, blur, stretch, channels, noise. Hue, greyscale and solarising
    of natural images have no meaning here. All random numbers come from the generator that the caller passes, drawn
    on its device; the result does not depend on, and does not change, the global random state.

    Parameters
    ----------
    crop_area_min
        Smallest share of the image area that a global view keeps, 0-1; the share is uniform from it to 1.
    crop_aspect_max
        Largest ratio of the sides of a crop, 1 or more; log-uniform, so that both directions are equally likely.
    local_crops, local_size_px, local_area
        Number of local views that follow the two global ones, their side, and least and largest share of the area.
    rotation, padding, flip_probability
        As in :func:`skyloom.transform.geometry.turned`; with rotation one axis is enough to reach every orientation.
    blur_probability, blur_sigma_px, blur_axis_ratio_max
        As in :func:`skyloom.transform.beam.blurred`; pixels of the view.
    stretch_probability, gamma_max, contrast_max, stretch_curves
        As in :func:`skyloom.transform.tone.restretched`. Values are cut to 0-1.
    channel_jitter_probability, channel_brightness_max, channel_contrast_max
        As in :func:`skyloom.transform.tone.jittered`.
    noise_fraction_max, noise_rms_of, noise_beam_px
        As in :func:`skyloom.transform.beam.noisy`.

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
        local_crops: int = 0,
        local_size_px: int = 98,
        local_area: tuple[float, float] = (0.1, 0.4),
        rotation: str = "any",
        padding: str = "reflection",
        flip_probability: float = 0.5,
        blur_probability: float = 0.25,
        blur_sigma_px: tuple[float, float] = (0.1, 2.0),
        blur_axis_ratio_max: float = 1.0,
        stretch_probability: float = 0.5,
        gamma_max: float = 1.5,
        contrast_max: float = 0.4,
        stretch_curves: Sequence[str] = ("gamma",),
        channel_jitter_probability: float = 0.0,
        channel_brightness_max: float = 0.1,
        channel_contrast_max: float = 0.2,
        noise_fraction_max: float = 0.1,
        noise_rms_of: str = "image",
        noise_beam_px: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("rotation", rotation, ROTATIONS),
            ("padding", padding, PADDINGS),
            ("noise_rms_of", noise_rms_of, NOISE_RMS),
            *(("stretch_curves", curve, CURVES) for curve in stretch_curves),
        ):
            if value not in choices:
                raise unknown_choice(name, value, choices)
        if not stretch_curves:
            raise ConfigError(f"stretch_curves is empty: expected some of {', '.join(CURVES)}")
        sigma_low, sigma_high = blur_sigma_px
        area_low, area_high = local_area
        for name, number, low, high in (
            ("crop_area_min", crop_area_min, 0.01, 1.0),
            ("crop_aspect_max", crop_aspect_max, 1.0, 10.0),
            ("local_crops", local_crops, 0, 100),
            ("local_size_px", local_size_px, 2, 10_000),
            ("local_area[0]", area_low, 0.001, area_high),
            ("local_area[1]", area_high, area_low, 1.0),
            ("flip_probability", flip_probability, 0.0, 1.0),
            ("blur_probability", blur_probability, 0.0, 1.0),
            ("blur_sigma_px[0]", sigma_low, 0.0, sigma_high),
            ("blur_sigma_px[1]", sigma_high, sigma_low, 100.0),
            ("blur_axis_ratio_max", blur_axis_ratio_max, 1.0, 10.0),
            ("stretch_probability", stretch_probability, 0.0, 1.0),
            ("gamma_max", gamma_max, 1.0, 10.0),
            ("contrast_max", contrast_max, 0.0, 1.0),
            ("channel_jitter_probability", channel_jitter_probability, 0.0, 1.0),
            ("channel_brightness_max", channel_brightness_max, 0.0, 1.0),
            ("channel_contrast_max", channel_contrast_max, 0.0, 1.0),
            ("noise_fraction_max", noise_fraction_max, 0.0, 10.0),
            ("noise_beam_px", noise_beam_px, 0.0, 100.0),
        ):
            if not low <= number <= high:
                raise ConfigError(f"{name}={number}: expected {low} to {high}")
        self.crop_area_min = crop_area_min
        self.local_crops, self.local_size_px = local_crops, local_size_px
        self.local_area = (float(area_low), float(area_high))
        self.padding = padding
        self._turned = partial(
            turned, aspect_max=crop_aspect_max, rotation=rotation, flip_probability=flip_probability, padding=padding
        )
        self._changes: tuple[Callable[[Tensor, Draw], Tensor], ...] = (
            partial(
                blurred, probability=blur_probability, sigma_px=(sigma_low, sigma_high),
                axis_ratio_max=blur_axis_ratio_max,
            ),
            partial(
                restretched, probability=stretch_probability, gamma_max=gamma_max, contrast_max=contrast_max,
                curves=tuple(stretch_curves),
            ),
            partial(
                jittered, probability=channel_jitter_probability, brightness_max=channel_brightness_max,
                contrast_max=channel_contrast_max,
            ),
            partial(noisy, fraction_max=noise_fraction_max, rms_of=noise_rms_of, beam_px=noise_beam_px),
        )  # fmt: skip

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw views of square images (B, C, S, S): two global ones of that shape, then the smaller local ones."""
        views = [self.view(images, generator) for _ in range(GLOBAL_CROPS)]
        return views + [self.local_view(images, generator) for _ in range(self.local_crops)]

    @torch.no_grad()
    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one global view of square images (B, C, S, S), of the same shape."""
        return self._view(images, generator, (self.crop_area_min, 1.0), images.shape[-1])

    @torch.no_grad()
    def local_view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one local view of square images (B, C, S, S): (B, C, local_size_px, local_size_px)."""
        return self._view(images, generator, self.local_area, self.local_size_px)

    def _view(self, images: Tensor, generator: torch.Generator, area: tuple[float, float], size_px: int) -> Tensor:
        draw = Draw(images, generator)
        with torch.autocast(images.device.type, enabled=False):  # half precision would round faint pixels
            views = self._turned(images, draw, area=area, size_px=size_px)
            for change in self._changes:
                views = change(views, draw)
        return views * disc(views) if self.padding == "circle" else views
