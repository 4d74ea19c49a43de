"""A Swin's windows neither wrap around the edges of a map nor change what whole windows give."""

import torch

from skyloom.backbone import build_backbone
from skyloom.detector.windows import WholeWindowBlock, shift_whole_windows


def swin():
    backbone = build_backbone("swin_tiny_patch4_window7_224", in_chans=1).eval()
    backbone.accept_any_size()
    return backbone


def test_the_first_rows_do_not_see_the_last_ones():
    images = torch.zeros(1, 1, 128, 32)
    changed = images.clone()
    changed[..., -4:, :] = 5.0  # the last row of the first map, whose 32 rows are no multiple of 7
    for whole, wanted in ((False, True), (True, False)):
        backbone = swin()
        if whole:
            shift_whole_windows(backbone)
        with torch.no_grad():
            one, two = (backbone.model.layers[0](backbone.model.patch_embed(values)) for values in (images, changed))
        seen = (one - two)[:, 0].abs().max() > 1e-5  # (batch, row, column, channel)
        assert bool(seen) == wanted, "" if whole else "timm has mended this; skyloom.detector.windows may go"


def test_maps_of_whole_windows_stay_but_for_the_last_stage():
    images = torch.randn(1, 1, 224, 224)
    backbone = swin()
    with torch.no_grad():
        before = backbone.forward_maps(images)
        shift_whole_windows(backbone)
        after = backbone.forward_maps(images)
    for one, two in zip(before[:3], after[:3], strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before[3], after[3])


def test_other_networks_are_left_alone():
    backbone = build_backbone("resnet18", in_chans=1)
    shift_whole_windows(backbone)
    assert not any(isinstance(module, WholeWindowBlock) for module in backbone.modules())
