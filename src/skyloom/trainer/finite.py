"""A loss or a gradient that is no number: ends the fit and names the batch, or leaves the step out and counts it."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.tensor import DTensor

from skyloom.errors import InputError
from skyloom.trainer.distributed.agree import gather

MAX_IDS = 12  # ids named in a message
MAX_KEPT = 20  # ids kept for the manifest
log = logging.getLogger("skyloom")


class FiniteLoss(Callback):
    """Looks at the loss and at the norm of the gradient of each optimiser step, over all processes.

    With ``stop`` they are looked at one step later, when the device has long computed them, so that nothing waits; and
    before each checkpoint, so that none holds what came of it. With ``skip`` each step waits for its own gradient: if
    that is not finite the weights stay, and statistics that the forward pass has spoiled are put back.

    Parameters
    ----------
    skip
        Leave such steps out instead of stopping.
    max_fraction
        Largest share of all steps of the fit that may be left out.
    file
        Where the ids of the batch are written when the fit stops.

    Attributes
    ----------
    grad_norm : Tensor or None
        Euclidean norm of the gradient of the last step before clipping.
    images : int
        Images of the steps that were left out, over all attempts.
    ids : list of int
        Some of those whose batch had a loss that is not finite.
    """

    def __init__(self, *, skip: bool, max_fraction: float, file: Path) -> None:
        self.skip, self.max_fraction, self.file = skip, max_fraction, file
        self.grad_norm: torch.Tensor | None = None
        self.steps = self.images = 0
        self.ids: list[int] = []
        self._batches: list[tuple[torch.Tensor, Any]] = []  # losses and ids of the step under way
        self._last: tuple[torch.Tensor, int, int, list[tuple[torch.Tensor, Any]]] | None = None
        self._ids: Any = None
        self._buffers: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the ids, and what a forward pass could spoil."""
        self._ids = batch["id"]
        if self.skip and not self._batches:
            self._buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Keep the loss."""
        self._batches.append((loss.detach(), self._ids))

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Judge the step before, or with ``skip`` this one."""
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self.grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # FSDP: each has its part
        fine = torch.stack([torch.isfinite(loss) for loss, _ in self._batches]).all()
        if trainer.precision != "16-mixed":  # whose scaler leaves steps with infinite gradients out by itself
            fine = fine & torch.isfinite(self.grad_norm)
        bad = (~fine).to(torch.int32)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        self.check(trainer)
        self._last = (bad, trainer.current_epoch, trainer.global_step, self._batches)
        self._batches = []
        if self.skip and bool(bad):
            self._leave_out(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before anything is predicted with the weights."""
        self.check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before the state is saved."""
        self.check(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What was left out so far."""
        return {"steps": self.steps, "images": self.images, "ids": list(self.ids)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.steps, self.images, self.ids = (state_dict[key] for key in ("steps", "images", "ids"))

    def check(self, trainer: Trainer) -> None:
        """Raise when the last step that was kept is not finite.

        Raises
        ------
        InputError
            Names epoch, step, ids and the file with all of them.
        """
        if self._last is not None and bool(self._last[0]):
            self._stop(trainer, "")
        self._last = None

    def _leave_out(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the step do nothing: optimisers pass over weights without a gradient."""
        culprits, number = self._culprits(trainer)
        self.steps += 1
        self.images += number
        self.ids += culprits[: MAX_KEPT - len(self.ids)]
        total = float(trainer.estimated_stepping_batches)
        if self.steps > self.max_fraction * total:
            self._stop(trainer, f"{self.steps} of {total:.0f} steps were to be left out, more than allowed; ")
        if trainer.is_global_zero:
            where = f"step {trainer.global_step} of epoch {trainer.current_epoch}"
            log.warning("left out %s: loss or gradient is not finite, ids %s", where, _some(culprits))
        self._last = None
        for parameter in pl_module.parameters():
            parameter.grad = None
        with torch.no_grad():
            for name, buffer in pl_module.named_buffers():
                buffer.copy_(self._buffers[name])

    def _culprits(self, trainer: Trainer) -> tuple[list[int], int]:
        """Ids of the batches, of all processes, whose loss is not finite, or of all of the step; and its images."""
        assert self._last is not None
        mine = [(bool(torch.isfinite(loss)), [int(i) for i in ids]) for loss, ids in self._last[3]]
        batches = [batch for part in gather(trainer, mine) for batch in part]
        bad = [ids for fine, ids in batches if not fine] or [ids for _, ids in batches]
        return [i for ids in bad for i in ids], sum(len(ids) for _, ids in batches)

    def _stop(self, trainer: Trainer, why: str) -> None:
        assert self._last is not None
        _, epoch, step, batches = self._last
        loss = next((float(loss) for loss, _ in batches if not torch.isfinite(loss)), None)
        loss = next((value for value in gather(trainer, loss) if value is not None), None)
        culprits, _ = self._culprits(trainer)
        if trainer.is_global_zero:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            said = {"epoch": epoch, "step": step, "loss": str(loss), "ids": culprits}
            self.file.write_text(json.dumps(said) + "\n")
        what = "the gradient became infinite or nan" if loss is None else f"the loss became {loss}"
        raise InputError(
            f"{what} in epoch {epoch}, step {step}, on the images with the ids {_some(culprits)} (all in {self.file}); "
            f"{why}lower task.learning_rate, set trainer.gradient_clip_val, look at these images, or set "
            "trainer.on_nan=skip"
        )


def _some(ids: list[int]) -> str:
    return ", ".join(str(i) for i in ids[:MAX_IDS]) + (", …" if len(ids) > MAX_IDS else "")
