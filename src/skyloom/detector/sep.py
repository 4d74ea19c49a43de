"""SExtractor as a detector: no weights and nothing to learn, the baseline that a trained one has to beat."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import sep
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from skyloom.detector.base import Detector, Target
from skyloom.detector.candidates import Candidates
from skyloom.detector.pixel_masks import pixel_masks
from skyloom.errors import ConfigError, InputError

MOST_SUB_OBJECTS = 65_536  # into which one area may fall apart; SExtractor's 1024 is too few for crowded images
PIXEL_BUFFER = 300_000  # detected pixels that SExtractor holds by default


class Sep(Detector):
    """Source extraction by thresholds and deblending (Bertin & Arnouts 1996, A&AS 117, 393; Barbary 2016, JOSS 1, 58).

    The detection image is the mean of the bands, each less its background and divided by its noise: so units and zero
    points do not matter, and a source of equal signal to noise in B bands gains a factor sqrt(B). The score is
    s / (1 + s) with the signal to noise s of the pixels of an object, which only orders the objects. Every object
    belongs to the one class that is chosen: SExtractor as `sep` tells no stars from galaxies.

    Parameters
    ----------
    in_chans, classes
        Of the images.
    threshold_sigma
        Least height above the background, in units of the noise of the detection image.
    min_area_px
        Least number of pixels above it.
    filter
        Whether the detection image is smoothed by SExtractor's 3 x 3 pyramid first.
    deblend_levels, deblend_contrast
        Number of levels, and least share of the flux, at which parts of an object are objects of their own.
    clean
        Efficiency of the removal of false detections by neighbours; 0 removes none.
    background_px, background_filter
        Side of the cells of the background map, and cells along a side of its median filter.
    label
        Class of all objects.
    top_k
        Most candidates of an image, the best.
    """

    needs_backbone: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_chans: int,
        classes: int,
        threshold_sigma: PositiveFloat,
        min_area_px: PositiveInt,
        filter: bool,
        deblend_levels: PositiveInt,
        deblend_contrast: Annotated[float, Field(ge=0, le=1)],
        clean: NonNegativeFloat,
        background_px: Annotated[int, Field(ge=4)],
        background_filter: PositiveInt,
        label: Annotated[int, Field(ge=0)],
        top_k: PositiveInt,
    ) -> None:
        super().__init__()
        if label >= classes:
            raise ConfigError(f"detector.label={label}: expected a class from 0 to {classes - 1}")
        self.in_chans, self.classes, self.label, self.top_k = in_chans, classes, label, top_k
        self.threshold_sigma = threshold_sigma
        self.background = {"bw": background_px, "bh": background_px, "fw": background_filter, "fh": background_filter}
        self.options: dict[str, Any] = {
            "minarea": min_area_px,
            "deblend_nthresh": deblend_levels,
            "deblend_cont": deblend_contrast,
            "clean": clean > 0,
            "clean_param": clean or 1.0,
            **({} if filter else {"filter_kernel": None}),
        }
        self.register_buffer("mean", torch.zeros(in_chans))
        self.register_buffer("std", torch.ones(in_chans))

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Refuse: there is nothing to learn."""
        raise ConfigError("detector=sep has no weights to train; run it with extract.py product=catalog detector=sep")

    def parts(self) -> Mapping[str, Sequence[nn.Module]]:  # type: ignore[override]
        """No module on either side."""
        return {"backbone": [], "heads": []}

    @torch.no_grad()
    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Extract the objects of each image, the one of the highest score first; see `Detector.raw`.

        Raises
        ------
        InputError
            Another number of channels, or an image that SExtractor gives up.
        """
        found = []
        for image in images:
            if image.ndim != 3 or image.shape[0] != self.in_chans:
                raise InputError(
                    f"detector=sep was built for {self.in_chans} channel(s), found an image of the shape "
                    f"{tuple(image.shape)}; give images (channels, height, width)"
                )
            found.append(self._extract(image.detach().cpu().numpy()).to(image.device))
        return found

    def _extract(self, image: np.ndarray) -> Candidates:
        pixels, blank = detection_image(image, self.background)
        noise = sep.Background(pixels, mask=blank, **self.background).globalrms if not blank.all() else 0.0
        if not noise > 0:
            return self._candidates(image.shape[1:], np.zeros(0), np.zeros(image.shape[1:], int), np.zeros((0, 2)))
        sep.set_extract_pixstack(max(PIXEL_BUFFER, pixels.size))
        sep.set_sub_object_limit(MOST_SUB_OBJECTS)
        try:
            objects, segments = sep.extract(
                pixels, self.threshold_sigma, err=noise, mask=blank, segmentation_map=True, **self.options
            )
        except Exception as error:  # sep raises nothing more special
            raise InputError(f"SExtractor gave an image of {pixels.shape} px up: {error}") from error
        inside = np.bincount(segments.ravel(), pixels.ravel(), minlength=len(objects) + 1)[1:]
        number = np.bincount(segments.ravel(), minlength=len(objects) + 1)[1:]
        snr = np.maximum(inside, 0) / (noise * np.sqrt(np.maximum(number, 1)))
        return self._candidates(pixels.shape, snr / (1 + snr), segments, np.stack([objects["x"], objects["y"]], axis=1))

    def _candidates(
        self, size_px: Sequence[int], score: np.ndarray, segments: np.ndarray, centroids: np.ndarray
    ) -> Candidates:
        """Objects of which a pixel is left, the best first."""
        boxes, masks, mask_boxes = pixel_masks(segments, len(score))
        there = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
        best = there[np.argsort(-score[there], kind="stable")][: self.top_k]
        return Candidates(
            size_px=(int(size_px[0]), int(size_px[1])),
            boxes=torch.from_numpy(boxes[best].astype(np.float32)),
            scores=torch.from_numpy(score[best].astype(np.float32)),
            labels=torch.full((len(best),), self.label, dtype=torch.int64),
            masks=torch.from_numpy(masks[best].astype(np.float16)),
            mask_boxes=torch.from_numpy(mask_boxes[best].astype(np.float32)),
            centroids=torch.from_numpy(centroids[best].astype(np.float32)),
        )


def detection_image(image: np.ndarray, background: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the bands in units of their noise over the root of their number: white noise has a width of 1.

    Parameters
    ----------
    image
        float32 (C, H, W), any units; what is not finite is blank.
    background
        ``bw``, ``bh``, ``fw``, ``fh`` of ``sep.Background``.

    Returns
    -------
    pixels : ndarray
        float64 (H, W), 0 where blank.
    blank : ndarray
        bool (H, W): no band has a value there. A band without noise, as a constant, counts as blank.
    """
    total, number = np.zeros(image.shape[1:]), np.zeros(image.shape[1:], dtype=np.int64)
    for band in image:
        lost = ~np.isfinite(band)
        if lost.all():
            continue
        values = np.where(lost, 0, band).astype(np.float64)
        level = sep.Background(values, mask=lost, **background)
        if level.globalrms > 0:
            total += np.where(lost, 0, (values - level.back()) / level.globalrms)
            number += ~lost
    return total / np.sqrt(np.maximum(number, 1)), number == 0
