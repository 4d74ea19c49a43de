"""Lightning's logger of MLflow, for which a server that is gone is no reason to stop a fit."""

import logging
from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger("skyloom")


class TolerantLogger(MLFlowLogger):
    """Lightning's logger, for which a server that is gone is no reason to stop a fit of days.

    Attributes
    ----------
    lost : int
        Rows that MLflow was not told, because it did not answer once; the record has them.
    """

    lost = 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log a row, unless an earlier one was lost."""
        from mlflow.exceptions import MlflowException

        if self.lost:
            self.lost += 1
            return
        try:
            super().log_metrics({metric_name(key): value for key, value in metrics.items()}, step)
        except MlflowException as error:
            self.lost = 1
            log.warning("MLflow does not answer, and is told nothing more: %s", short(error))

    @rank_zero_only
    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file, unless a row or a file was lost."""
        from mlflow.exceptions import MlflowException

        if self.lost:
            return
        try:
            self.experiment.log_artifact(str(self.run_id), str(path), artifact_path=folder)
        except (MlflowException, OSError) as error:
            self.lost = 1
            log.warning("MLflow does not take a file, and is told nothing more: %s", short(error))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Leave it to :func:`close_mlflow`: for Lightning a fit that goes on after a pause has failed."""


def metric_name(key: str) -> str:
    """A name of a metric that MLflow takes."""
    return "".join(sign if sign.isalnum() or sign in "_/. -" else "_" for sign in key)


def short(error: BaseException) -> str:
    """An error in one line of 200 characters."""
    return " ".join(str(error).split())[:200]
