import pytest
import torch

from skyloom.transform.block_mask import block_mask


def mask_of(seed: int = 0, **options) -> torch.Tensor:
    given = {"batch": 64, "rows": 16, "columns": 16, "probability": 0.5, "share": (0.1, 0.5)} | options
    return block_mask(**given, generator=torch.Generator().manual_seed(seed))


def test_half_of_the_images_are_masked_by_the_shares_asked_for():
    share = mask_of().float().mean((1, 2))
    assert (share > 0).sum() == 32
    masked = share[share > 0].sort().values
    assert masked.min() >= 0.1 - 1 / 256
    assert masked.max() <= 0.5
    # Spread evenly: one image in each of 32 equal parts of the range.
    low = torch.linspace(0.1, 0.5, 33)[:-1]
    assert ((masked - low) > -1 / 256).all()
    assert ((masked - low) < 0.4 / 32 + 1e-6).all()


def test_masks_are_blocks_and_reach_every_patch():
    mask = mask_of(batch=400, probability=1.0)
    beside = (mask[:, 1:] == mask[:, :-1]).float().mean()
    shuffled = mask.flatten(1)[:, torch.randperm(256, generator=torch.Generator().manual_seed(1))].view_as(mask)
    assert beside > (shuffled[:, 1:] == shuffled[:, :-1]).float().mean() + 0.15
    often = mask.float().mean(0)
    assert often.min() > 0.01  # corners are in fewer blocks
    assert often.max() < 0.6


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 2), (3, 5)])
def test_small_grids_hide_something_in_some_image(rows, columns):
    for seed in range(20):
        mask = mask_of(seed, batch=3, rows=rows, columns=columns)
        hidden = mask.sum((1, 2))
        assert (hidden > 0).sum() == 1
        assert hidden.max() <= max(1, rows * columns // 2)


def test_masks_follow_the_generator_alone():
    state = torch.get_rng_state()
    assert torch.equal(mask_of(3), mask_of(3))
    assert not torch.equal(mask_of(3), mask_of(4))
    assert torch.equal(state, torch.get_rng_state())
