"""Ends a fit after a given batch, as a kill would, and what must be the same afterwards."""

from lightning.pytorch import Callback

from skyloom.trainer import fit as fitting

SAME = ("model.safetensors", "metrics.csv", "model.json")


class Kill(Exception):
    """Stands for the end of the process."""


class KillAt(Callback):
    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Kill


class KillInValidation(KillAt):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def kill_at(monkeypatch, epoch, batch, kind=KillAt):
    """Let fits end after a batch; returns what ``fitting.progress_callbacks`` was, to put back."""
    usual = fitting.progress_callbacks
    monkeypatch.setattr(fitting, "progress_callbacks", lambda loggers: [*usual(loggers), kind(epoch, batch)])
    return usual


def contents(artifact):
    return {name: artifact.file(name).read_bytes() for name in SAME}
