"""Measures of a fit that need no labels: gradient, learning rate, and how much of its space the representation uses."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from skyloom.metric.representation import collapse, collapse_std, moments, rankme
from skyloom.trainer.finite import FiniteLoss
from skyloom.trainer.options import MonitorOptions

WAIT_EPOCHS = 2  # an encoder may look collapsed for a while at the start
log = logging.getLogger("skyloom")


class Ring:
    """The most recent vectors, on their device.

    Parameters
    ----------
    size
        Vectors kept.
    """

    def __init__(self, size: int) -> None:
        self.size, self.place, self.full = size, 0, False
        self.rows: torch.Tensor | None = None

    def add(self, vectors: torch.Tensor) -> None:
        """Take vectors (B, D) in the place of the oldest ones."""
        vectors = vectors.detach().float()[-self.size :]
        if self.rows is None or self.rows.shape[1] != vectors.shape[1]:
            self.rows = vectors.new_zeros(self.size, vectors.shape[1])
        self.rows = self.rows.to(vectors.device)
        places = (self.place + torch.arange(len(vectors), device=vectors.device)) % self.size
        self.rows[places] = vectors
        self.full = self.full or self.place + len(vectors) >= self.size
        self.place = (self.place + len(vectors)) % self.size

    def finite(self) -> torch.Tensor:
        """Return the vectors without those of a step that went wrong, on the CPU."""
        assert self.rows is not None
        return self.rows[torch.isfinite(self.rows).all(dim=1)].cpu()

    def state_dict(self) -> dict[str, Any]:
        """Everything, in plain types."""
        return {"rows": None if self.rows is None else self.rows.cpu().clone(), "place": self.place, "full": self.full}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""
        self.rows, self.place, self.full = state["rows"], state["place"], state["full"]


class Monitor(Callback):
    """Logs ``monitor/…`` beside the losses, in the same rows, and warns of a collapsed encoder.

    ``grad_norm`` is the norm before clipping, ``learning_rate`` that of the first group of weights. ``rankme`` and
    ``collapse_std`` are of the task's embedding (``last_embedding``), ``rankme_backbone`` of what the backbone gives;
    each over the most recent images of rank 0, once there are enough, and repeated until they are measured again. What
    is kept for them is part of the checkpoint, so that a resumed fit logs the same.

    Parameters
    ----------
    finite
        Knows the norm of the gradient.
    options
        How many images, how often.
    log_every
        Optimiser steps between two rows of the record.
    steps, batches
        Of an epoch: optimiser steps, and batches, which are more where gradients are accumulated.

    Attributes
    ----------
    collapsed : str or None
        What the last measurement found wrong.
    """

    def __init__(
        self, finite: FiniteLoss, options: MonitorOptions, *, log_every: int, steps: int, batches: int
    ) -> None:
        self._finite, self._images = finite, options.images
        self._log_every = log_every
        self._every_rows = max(1, min(options.every_n_steps, steps) // log_every)
        self._batches = batches
        self._stepped = False
        self._embedding, self._features = Ring(options.images), Ring(options.images)
        self._seen: torch.Tensor | None = None
        self._hook: Any = None
        self.collapsed: str | None = None
        self._values: dict[str, float] = {}  # of the last measurement
        self._epochs = 0  # in a row that ended collapsed

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the backbone."""
        backbone = getattr(pl_module, "backbone", None)
        if self._images and trainer.is_global_zero and isinstance(backbone, torch.nn.Module):
            self._hook = backbone.register_forward_hook(self._listen)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop listening."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forget what the backbone gave before; keep no more than an epoch has."""
        self._seen = None
        if self._embedding.rows is None and self._images:
            size = min(self._images, self._batches * len(batch["id"]))
            self._embedding.size = self._features.size = size

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the gradient and the learning rate."""
        assert self._finite.grad_norm is not None
        self._stepped = True
        pl_module.log("monitor/grad_norm", self._finite.grad_norm)
        pl_module.log("monitor/learning_rate", float(optimizer.param_groups[0]["lr"]))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the vectors of the batch, and measure when it is time."""
        if not self._images or not trainer.is_global_zero:
            return
        embedding = getattr(pl_module, "last_embedding", None)
        if embedding is not None:
            self._embedding.add(embedding)
        if self._seen is not None:
            self._features.add(self._seen[: len(batch["id"])])
            self._seen = None
        if not self._stepped:
            return  # gradients are still being accumulated
        self._stepped = False
        rows, rest = divmod(trainer.global_step, self._log_every)
        if rest == 0 and rows % self._every_rows == 0:
            self._measure()
        if rest == 0:
            for name, value in self._values.items():
                pl_module.log(name, value, rank_zero_only=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn when the encoder has been collapsed for some epochs, or is so at the end."""
        self._epochs = self._epochs + 1 if self.collapsed else 0
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.is_global_zero and (self._epochs == WAIT_EPOCHS or (self._epochs and last)):
            log.warning(
                "the encoder has collapsed in epoch %d: %s Try a lower task.learning_rate, a longer warm-up, a larger "
                "batch, or stronger views (transform.augment)", trainer.current_epoch, self.collapsed,
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What the next measurement needs."""
        return {
            "embedding": self._embedding.state_dict(),
            "features": self._features.state_dict(),
            "size": self._embedding.size,
            "values": dict(self._values),
            "collapsed": self.collapsed,
            "epochs": self._epochs,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as if nothing had happened."""
        self._embedding.load_state_dict(state_dict["embedding"])
        self._features.load_state_dict(state_dict["features"])
        self._embedding.size = self._features.size = state_dict["size"]
        self._values = dict(state_dict["values"])
        self.collapsed, self._epochs = state_dict["collapsed"], state_dict["epochs"]

    def _listen(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Keep the first vectors that the backbone gives in a step."""
        if self._seen is None and isinstance(output, torch.Tensor) and output.dim() == 2 and module.training:
            self._seen = output.detach()

    def _measure(self) -> None:
        if self._embedding.full:
            found = moments([self._embedding.finite()])
            self._values["monitor/rankme"] = rankme(found.spectrum())
            self._values["monitor/collapse_std"] = collapse_std(found)
            self.collapsed = collapse(found)
        if self._features.full:
            self._values["monitor/rankme_backbone"] = rankme(moments([self._features.finite()]).spectrum())
