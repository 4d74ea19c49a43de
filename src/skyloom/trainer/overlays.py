"""Pictures of truth and prediction for a few validation images, now and then."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from skyloom.task.detect_eval import images_of
from skyloom.trainer.tracking.loggers import log_picture

FOLDER = "overlays"
SIDE_PX = 256  # least side of an image in the picture, so that single pixels are seen
GAP_PX = 4
ALPHA = 0.35  # of a mask
COLOURS = ("#4cc9f0", "#ffd166", "#ef476f", "#06d6a0", "#b388eb", "#f78c6b")  # by class; told apart by the colour-blind
NOISE = 3.0  # standard deviations of the sky at which the brightness changes from linear to logarithmic


class Overlays(Callback):
    """Draws ``overlays/epoch-0000.png``: a row per image; as it is, with the true objects, with those that were found.

    Takes what ``validation_step`` returns as ``found``: for each image :class:`skyloom.detector.candidates.Candidates`.

    Parameters
    ----------
    every_n_epochs
        Epochs between two pictures.
    images
        Images in a picture: the first ones of the validation part.
    write
        Opens a temporary path in the artifact.
    folder
        Of the artifact.
    loggers
        Told the pictures too.
    """

    def __init__(
        self,
        *,
        every_n_epochs: int,
        images: int,
        write: Callable[[str], AbstractContextManager[Path]],
        folder: Path,
        loggers: Sequence[Logger],
    ) -> None:
        self._every_n_epochs, self._images = every_n_epochs, images
        self._write, self._folder, self._loggers = write, folder, loggers
        self._rows: list[Tensor] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a picture."""
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw images until there are enough."""
        if (trainer.current_epoch + 1) % self._every_n_epochs:
            return
        for image, target, found in zip(images_of(batch), batch["targets"], outputs["found"], strict=True):
            if len(self._rows) < self._images:
                truth = (target["boxes"], target["labels"], target.get("masks"))
                self._rows.append(row(image, truth, (found.boxes, found.labels, found.pasted())))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture."""
        if not self._rows:
            return
        name = f"{FOLDER}/epoch-{trainer.current_epoch:04d}.png"
        width = max(row.shape[2] for row in self._rows)
        sheet = torch.cat([_padded(row, width - row.shape[2], GAP_PX) for row in self._rows], dim=1)
        with self._write(name) as path:
            Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy()).save(path, format="png")
        self._rows = []
        for logger in self._loggers:
            log_picture(logger, FOLDER, self._folder / name, trainer.global_step)


Objects = tuple[Tensor, Tensor, Tensor | None]
"""Boxes (n, 4) XYXY px, labels (n,) from 0, and masks bool (n, H, W) or None."""


def row(image: Tensor, truth: Objects, found: Objects) -> Tensor:
    """Draw an image (C, H, W) three times, side by side; uint8 (3, height, width)."""
    plain = display(image)
    panels = [_enlarged(plain), _drawn(plain, truth), _drawn(plain, found)]
    return torch.cat([_padded(panel, GAP_PX, 0) for panel in panels], dim=2)


def display(image: Tensor) -> Tensor:
    """Make an image (C, H, W) visible: arcsinh above the sky of each band, uint8 (3, H, W).

    Of more than three bands the last third is red and the first blue: bands are listed by wavelength. The stretch is
    that of Lupton et al. (2004, PASP 116, 133), by band.
    """
    image = image.detach().float().cpu()
    finite = torch.isfinite(image)
    flat = torch.where(finite, image, torch.nan).flatten(1)
    sky = torch.nan_to_num(flat.nanmedian(dim=1, keepdim=True).values)
    noise = 1.4826 * torch.nan_to_num((flat - sky).abs().nanmedian(dim=1, keepdim=True).values)
    scaled = torch.asinh(torch.nan_to_num(flat - sky) / (NOISE * noise.clamp(min=1e-30)))
    scaled = (scaled / scaled.amax(dim=1, keepdim=True).clamp(min=1e-30)).clamp(0, 1).view_as(image)
    bands = torch.tensor_split(scaled, 3) if len(scaled) >= 3 else [scaled] * 3
    return (torch.stack([part.mean(dim=0) for part in reversed(bands)]) * 255).round().to(torch.uint8)


def _drawn(picture: Tensor, objects: Objects) -> Tensor:
    """Masks and boxes over a picture, which is enlarged before the boxes so that these hide little."""
    boxes, labels, masks = (None if part is None else part.detach().cpu() for part in objects)
    assert boxes is not None
    assert labels is not None
    colours = [COLOURS[label % len(COLOURS)] for label in labels.tolist()]
    if masks is not None and len(masks):
        picture = draw_segmentation_masks(picture, masks.bool(), alpha=ALPHA, colors=colours)
    factor = _factor(picture)
    picture = _enlarged(picture)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if kept.any():
        shown = [colour for colour, keep in zip(colours, kept.tolist(), strict=True) if keep]
        picture = draw_bounding_boxes(picture, boxes[kept].float() * factor, colors=shown)
    return picture


def _factor(picture: Tensor) -> int:
    return max(1, -(-SIDE_PX // min(picture.shape[-2:])))


def _enlarged(picture: Tensor) -> Tensor:
    factor = _factor(picture)
    return picture.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def _padded(picture: Tensor, right_px: int, below_px: int) -> Tensor:
    return torch.nn.functional.pad(picture, (0, right_px, 0, below_px), value=255)
