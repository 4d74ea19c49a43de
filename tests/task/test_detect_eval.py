"""Validation of a detector over images and processes."""

import os

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from make.tiny_detector import Squares, TinyDetector, batch_of, detect_task
from make.two_processes import in_two_processes
from skyloom.detector.candidates import Candidates
from skyloom.sky.mask.rle import decode, encode
from skyloom.task.detect_eval import Validation, images_of, masks_of, run_lengths

AREAS = {"tiny": (0.0, 100.0)}


def perfect(target, score=0.9):
    boxes, n = target["boxes"], len(target["boxes"])
    return Candidates((24, 24), boxes, torch.full((n,), score), target["labels"], torch.ones(n, 28, 28), boxes)


def test_perfect_detections_have_an_ap_of_1_and_no_object_no_number():
    judge = Validation(["galaxy", "star"], areas=AREAS, max_detections=10)
    for sample in Squares(5, empty=True):
        found = perfect(sample["target"])
        judge.add(sample["id"], {**sample["target"], "masks": found.pasted()}, found)
        judge.add_losses({"a": torch.tensor(2.0), "b": torch.tensor(float(sample["id"] - 100))})
        if sample["id"] == 104:
            break
    found = judge.reduced()
    assert found["box_ap"] == found["mask_ap"] == found["mask_ap_tiny"] == pytest.approx(1.0)
    assert found["loss"] == pytest.approx(4.0)
    assert (found["a"], found["b"]) == (2.0, 2.0)
    assert found["found_per_image"] == pytest.approx(3 / 5)
    nothing = Validation(["galaxy", "star"], areas=AREAS, max_detections=10).reduced()
    assert nothing == {"found_per_image": 0.0}


def test_masks_are_encoded_as_elsewhere():
    masks = torch.rand(70, 9, 13, generator=torch.Generator().manual_seed(1)) > 0.5
    texts = run_lengths(masks)
    assert texts == [encode(mask.numpy()) for mask in masks]
    assert run_lengths(masks[:0]) == []
    boxes = torch.tensor([[1.0, 2.0, 5.0, 8.0]]).expand(70, 4)
    many = Candidates((9, 13), boxes, torch.ones(70), torch.zeros(70, dtype=torch.int64), torch.ones(70, 4, 4), boxes)
    found = masks_of(many)
    assert len(found) == 70
    assert np.array_equal(decode(found[0], (9, 13)), many[torch.tensor([0])].pasted()[0].numpy())


def test_margins_of_smaller_images_are_cut_off():
    batch = {"image": torch.rand(2, 3, 8, 9), "size_px": torch.tensor([[8, 9], [5, 7]])}
    assert [tuple(image.shape) for image in images_of(batch)] == [(3, 8, 9), (3, 5, 7)]
    batch["size_px"][1] = torch.tensor([8, 9])
    assert images_of(batch) is batch["image"]


def two(rank: int, batch_norm: bool) -> dict:
    """In a process of two: a fit with validation, on every second image."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    return fitted(2, rank, batch_norm)


def fitted(processes: int, rank: int = 0, batch_norm: bool = False) -> dict:
    """Weights and validation of a fit whose backbone thaws, on a share of the images."""
    task = detect_task(
        TinyDetector(random=False, batch_norm=batch_norm), freeze_epochs=1, ema_decay=0.9, optimizer="sgd"
    )

    def share(data: Squares, batch: int) -> torch.utils.data.DataLoader:
        rows = range(rank, len(data), processes)
        return torch.utils.data.DataLoader(data, batch_size=batch, sampler=rows, collate_fn=batch_of)

    train, val = share(Squares(8), 4 // processes), share(Squares(5, 2), 1)  # 3 and 2 images: not as many batches
    strategy = {"strategy": "ddp"} if processes > 1 else {}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=processes, use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        **strategy,
    )  # fmt: skip
    trainer.fit(task, train, val)
    values = {key: value.detach().clone() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    return {"values": values, "weights": {key: value.clone() for key, value in task.state_dict().items()}}


@pytest.mark.filterwarnings("ignore")
def test_two_processes_see_what_one_sees():
    """Weights, also of a backbone that was frozen; validation over a different number of batches each."""
    alone, halves = fitted(1), in_two_processes(two, False)
    for half in halves:
        torch.testing.assert_close(half["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(half["values"], alone["values"], rtol=1e-4, atol=1e-5)
    for key, value in halves[0]["values"].items():
        assert torch.equal(value, halves[1]["values"][key]), key


@pytest.mark.filterwarnings("ignore")
def test_two_processes_judge_the_same_running_statistics():
    first, second = in_two_processes(two, True)
    torch.testing.assert_close(first["values"], second["values"], rtol=0, atol=0)
