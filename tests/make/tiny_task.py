"""What it takes to try a self-supervised task within a second: 32 images of 16 px, a small network, a quiet trainer."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from skyloom.transform import Preprocess, RadioAugment


class Sky(Dataset):
    """Thirty-two noise images with one or two sources, as the data modules give them."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(5)
        self.images = 1e-4 * torch.randn(32, 1, 16, 16, generator=draw)
        for i in range(32):
            for row, col in torch.randint(1, 14, (1 + i % 2, 2), generator=draw):
                self.images[i, 0, row : row + 2, col : col + 2] += 0.01 * (1 + i)
        self.images[0, 0, :3] = torch.nan

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "id": index}


class TinyBackbone(nn.Sequential):
    """Two convolutions; with group normalisation an image does not depend on the others of its batch."""

    num_features = 12

    def __init__(self, dropout: float = 0.0, channels: int = 1, batch_norm: bool = True) -> None:
        super().__init__(
            nn.Conv2d(channels, 8, 3, stride=2), nn.BatchNorm2d(8) if batch_norm else nn.GroupNorm(2, 8), nn.ReLU(),
            nn.Dropout(dropout), nn.Conv2d(8, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip


def make_task(kind: type, *, dropout: float = 0.0, channels: int = 1, batch_norm: bool = True, **options: object):
    """A task of a kind on a small network, with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = TinyBackbone(dropout, channels, batch_norm)
    return kind(backbone, RadioAugment(), Preprocess(image_size_px=16, channels=channels), **options)


def make_trainer(folder: Path, epochs: int = 1, **options: object) -> Trainer:
    defaults: dict = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    defaults |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    return Trainer(max_epochs=epochs, **(defaults | options))


def loader(batch: int = 8) -> DataLoader:
    return DataLoader(Sky(), batch_size=batch)


def keep_logged(task) -> list[dict[str, float]]:
    """What the task logs from now on, one entry per step."""
    kept: list[dict[str, float]] = []
    task.log_dict = lambda values, **_: kept.append({key: float(value) for key, value in values.items()})
    return kept


def weights(task, *parts: str) -> dict[str, Tensor]:
    """Copies of the weights and buffers of some of its modules."""
    return {k: v.detach().clone() for k, v in task.state_dict().items() if k.split(".")[0] in parts}
