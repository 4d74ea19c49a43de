"""Every validation image is seen by exactly one process, and all processes see the same number of batches."""

import pytest
from torch.utils.data import DataLoader

from skyloom.errors import ConfigError
from skyloom.trainer.validation import ValidationLoader


def loaders(size, batch, processes, workers=0):
    whole = DataLoader(range(size), batch_size=batch, num_workers=workers, collate_fn=list)
    return [ValidationLoader(whole, rank, processes) for rank in range(processes)]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("size", [4, 5, 17, 31])
def test_nothing_is_dropped_or_repeated(size, batch, processes):
    seen = [list(loader) for loader in loaders(size, batch, processes)]
    assert sorted(i for batches in seen for images in batches for i in images) == list(range(size))
    assert len({len(batches) for batches in seen}) == 1
    assert all(images for batches in seen for images in batches)
    assert max(len(images) for batches in seen for images in batches) <= max(batch, 2 if processes > 1 else 1)
    assert [len(loader) for loader in loaders(size, batch, processes)] == [len(batches) for batches in seen]


def test_each_epoch_sees_the_same():
    (loader,) = loaders(7, 3, 1)
    assert list(loader) == list(loader) == [[0, 1, 2], [3, 4], [5, 6]]


def test_fewer_images_than_processes():
    with pytest.raises(ConfigError, match=r"trainer.devices=3: the validation part has 2 image"):
        loaders(2, 8, 3)
