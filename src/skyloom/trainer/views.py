"""Pictures of what the network is shown: the augmented views of some images, now and then."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from PIL import Image

from skyloom.trainer.tracking.loggers import log_picture

GAP_PX = 2  # between tiles
FOLDER = "views"


class ViewPictures(Callback):
    """Draws the views of the first batch of an epoch: a row per view, a column per image, channels as red, green, blue.

    Parameters
    ----------
    every_n_epochs
        Epochs between two pictures.
    write
        Opens a temporary path in the artifact for ``views/epoch-0000.png``.
    folder
        Of the artifact.
    loggers
        Told the pictures too.
    """

    def __init__(
        self,
        every_n_epochs: int,
        write: Callable[[str], AbstractContextManager[Path]],
        folder: Path,
        loggers: Sequence[Logger],
    ) -> None:
        self._every_n_epochs, self._write, self._folder, self._loggers = every_n_epochs, write, folder, loggers

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw after the first batch."""
        views = getattr(pl_module, "last_views", None)
        if batch_idx or trainer.current_epoch % self._every_n_epochs or not views:
            return
        name = f"{FOLDER}/epoch-{trainer.current_epoch:04d}.png"
        with self._write(name) as path:
            Image.fromarray(sheet(views).numpy()).save(path, format="png")
        for logger in self._loggers:
            log_picture(logger, FOLDER, self._folder / name, trainer.global_step)


def sheet(views: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put views in rows.

    Parameters
    ----------
    views
        Each (n, C, S, S) with values of 0-1; sizes may differ. One channel is drawn grey, of more the first three.

    Returns
    -------
    Tensor
        uint8 (height, width, 3).
    """
    side = max(view.shape[-1] for view in views)
    rows = []
    for view in views:
        image = torch.nan_to_num(view.detach().float().cpu()).clamp(0, 1)
        image = image[:, :3] if image.shape[1] >= 3 else image[:, :1].expand(-1, 3, -1, -1)
        margin = side - image.shape[-1] + GAP_PX  # smaller views at the upper left of their place
        rows.append(torch.cat([*torch.nn.functional.pad(image, (0, margin, 0, margin), value=1.0)], dim=2))
    width = max(row.shape[2] for row in rows)
    rows = [torch.nn.functional.pad(row, (0, width - row.shape[2]), value=1.0) for row in rows]
    return (torch.cat(rows, dim=1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
