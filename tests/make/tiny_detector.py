"""What it takes to try task=detect within a second: images of one bright square, a detector of a few weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from skyloom.detector.base import Detector, Target
from skyloom.detector.candidates import Candidates
from skyloom.task.detect import DetectTask

SIDE_PX = 24
CONF = Path(__file__).parents[2] / "conf" / "task" / "detect.yaml"


class TinyDetector(Detector):
    """Finds one square in each image: by the centre of mass of a map, and two classes by brightness.

    Parameters
    ----------
    random
        Whether the loss of the mask looks at a random half of the pixels, as real detectors choose samples.
    dropout
        Of the features.
    batch_norm
        Batch normalisation in the backbone, else group normalisation.
    """

    def __init__(self, *, random: bool = True, dropout: float = 0.0, batch_norm: bool = True) -> None:
        super().__init__()
        self.in_chans, self.classes, self.random = 2, 2, random
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.backbone = nn.Sequential(
                nn.Conv2d(2, 8, 3, padding=1),
                nn.BatchNorm2d(8) if batch_norm else nn.GroupNorm(2, 8),
                nn.ReLU(),
                nn.Dropout(dropout),
            )
            self.heads = nn.ModuleDict(
                {"mask": nn.Conv2d(8, 1, 1), "classes": nn.Linear(8, 2), "size": nn.Linear(8, 1)}
            )
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("std", torch.ones(2))

    def parts(self) -> dict[str, Sequence[nn.Module]]:
        return {"backbone": [self.backbone], "heads": [self.heads]}

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        boxes, logits, masks = self._seen(torch.stack(list(images)))
        zero = logits.sum() * 0
        parts = {"loss_cls": zero, "loss_box_reg": zero, "loss_mask": zero}
        for box, logit, mask, target in zip(boxes, logits, masks, targets, strict=True):
            truth = target["masks"].any(0).float()
            error = functional.binary_cross_entropy_with_logits(mask, truth, reduction="none").flatten()
            chosen = torch.randperm(len(error))[: len(error) // 2] if self.random else torch.arange(len(error))
            parts["loss_mask"] = parts["loss_mask"] + error[chosen].mean() / len(images)
            if len(target["boxes"]):
                off = functional.l1_loss(box / SIDE_PX, target["boxes"][0] / SIDE_PX)
                parts["loss_box_reg"] = parts["loss_box_reg"] + 4 * off / len(images)
                wrong = functional.cross_entropy(logit[None], target["labels"][:1])
                parts["loss_cls"] = parts["loss_cls"] + wrong / len(images)
        return parts

    @torch.no_grad()
    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        found = []
        for image in images:
            box, logits, _ = (values[0] for values in self._seen(image[None]))
            box = box.clamp(0, SIDE_PX).expand(2, 4)
            size = (int(image.shape[-2]), int(image.shape[-1]))
            scores, labels = logits.softmax(0), torch.arange(2, device=image.device)
            found.append(Candidates(size, box, scores, labels, torch.ones(2, 14, 14, device=image.device), box))
        return found

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone((images - self.mean[:, None, None]) / self.std[:, None, None])
        masks = self.heads["mask"](features)[:, 0].float()
        share = masks.flatten(1).softmax(1).reshape(masks.shape)
        pooled = (features * share[:, None]).sum((2, 3))
        height, width = masks.shape[1:]
        y = (share.sum(2) * (torch.arange(height, device=images.device) + 0.5)).sum(1)
        x = (share.sum(1) * (torch.arange(width, device=images.device) + 0.5)).sum(1)
        half = 4 * self.heads["size"](pooled)[:, 0].float().sigmoid() + 2
        boxes = torch.stack([x - half, y - half, x + half, y + half], 1)
        return boxes, self.heads["classes"](pooled).float(), masks


class Squares(Dataset):
    """Images of two channels with a square of 8 px, in the second channel too if it is of class 1."""

    def __init__(self, number: int = 12, seed: int = 1, empty: bool = False) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.images = 0.1 * torch.randn(number, 2, SIDE_PX, SIDE_PX, generator=draw)
        self.corners = torch.randint(0, SIDE_PX - 8, (number, 2), generator=draw)
        self.empty = empty
        for i, (row, col) in enumerate(self.corners.tolist()):
            self.images[i, : 1 + i % 2, row : row + 8, col : col + 8] += 2.0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        row, col = self.corners[i].tolist()
        masks = torch.zeros(1, SIDE_PX, SIDE_PX, dtype=torch.bool)
        masks[0, row : row + 8, col : col + 8] = True
        boxes = torch.tensor([[col, row, col + 8, row + 8]], dtype=torch.float32)
        target = {"boxes": boxes, "labels": torch.tensor([i % 2]), "masks": masks}
        if self.empty and i % 3 == 0:
            target = {key: value[:0] for key, value in target.items()}
        return {"image": self.images[i], "id": 100 + i, "target": target}


def batch_of(samples: Sequence[dict]) -> dict:
    return {
        "image": torch.stack([sample["image"] for sample in samples]),
        "id": torch.tensor([sample["id"] for sample in samples]),
        "size_px": torch.tensor([sample["image"].shape[-2:] for sample in samples]),
        "targets": [sample["target"] for sample in samples],
    }


def squares(number: int = 12, batch: int = 4, seed: int = 1, **options: object) -> DataLoader:
    return DataLoader(Squares(number, seed, **options), batch_size=batch, collate_fn=batch_of)


def options(**changed: object) -> dict:
    """The options of conf/task/detect.yaml with a constant rate at which the tiny detector learns."""
    values = {key: value for key, value in yaml.safe_load(CONF.read_text()).items() if key not in ("name", "defaults")}
    small = {"seed": 3, "schedule": "constant", "warmup_steps": 0, "learning_rate": 0.03, "weight_decay": 0.0}
    return values | small | {"classes": ["galaxy", "star"]} | changed


def detect_task(network: Detector | None = None, **changed: object) -> DetectTask:
    return DetectTask(TinyDetector() if network is None else network, **options(**changed))
