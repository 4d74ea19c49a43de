import torch

from make.tiny_fit import TRAINER
from skyloom.backbone import build_backbone
from skyloom.trainer.options import TrainerOptions

PLAIN, LAST = (TrainerOptions(**{**TRAINER, "channels_last": on}) for on in (False, True))


def test_the_layout_of_weights_enters_an_id_only_where_it_is_chosen():
    assert "channels_last" not in PLAIN.parameter()
    assert LAST.parameter() == {**PLAIN.parameter(), "channels_last": True}


def test_channels_last_changes_the_layout_and_the_result_by_rounding_only():
    network = build_backbone("test_resnet", in_chans=3).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    PLAIN.place(network)
    before = network(images)
    wide = [w for w in network.parameters() if w.ndim == 4 and min(w.shape[1:3]) > 1]
    assert wide
    assert not any(w.is_contiguous(memory_format=torch.channels_last) for w in wide)
    LAST.place(network)
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in wide)
    torch.testing.assert_close(network(images), before, atol=1e-5, rtol=1e-4)
