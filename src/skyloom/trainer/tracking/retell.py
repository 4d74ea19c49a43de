"""Tells loggers again what the record of a fit has: metrics row by row, and pictures at the steps of their epochs."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger

from skyloom.trainer.record import LEADING, CsvRecord
from skyloom.trainer.tracking.loggers import log_picture

PICTURE = re.compile(r"epoch-(\d+)\.png")


class Retell(Callback):
    """Begins a new offline segment of W&B with all that came before, once the record is cut back to the checkpoint.

    Segments that overlap or leave gaps could not be put together at the server; so the newest one is the whole run.

    Parameters
    ----------
    record
        What came before.
    loggers
        Those that are not offline runs of W&B remember by themselves.
    """

    def __init__(self, record: CsvRecord, loggers: Sequence[Logger]) -> None:
        self._record = record
        self._loggers = [item for item in loggers if isinstance(item, WandbLogger) and item.experiment.offline]
        self._told = not self._loggers

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell, now that the checkpoint is read."""
        if not self._told:
            retell(self._record, self._loggers)
            self._told = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what an attempt left that had nothing more to train."""
        self.on_train_start(trainer, pl_module)


def retell(record: CsvRecord, loggers: Sequence[Logger]) -> int:
    """Tell loggers every row of a record, and the pictures that lie in folders beside it.

    Parameters
    ----------
    record
        Of a fit; pictures are files ``<key>/epoch-<number>.png`` beside it.
    loggers
        Who is told.

    Returns
    -------
    int
        The last step; 0 when there is no row.
    """
    step, epochs = 0, dict[int, int]()
    pictures = sorted(_pictures(record.path.parent))
    for row in record.history():
        step, epoch = int(row["step"]), int(row.get("epoch", 0))
        for logger in loggers:
            logger.log_metrics({key: value for key, value in row.items() if key not in LEADING}, step=step)
        epochs[epoch] = step
    for epoch, key, path in pictures:
        if epoch in epochs:  # those after the checkpoint will be drawn again
            for logger in loggers:
                log_picture(logger, key, path, epochs[epoch])
    return step


def _pictures(folder: Path) -> Iterator[tuple[int, str, Path]]:
    for path in folder.glob("*/epoch-*.png"):
        if found := PICTURE.fullmatch(path.name):
            yield int(found[1]), path.parent.name, path
