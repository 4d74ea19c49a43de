"""Swin's shifted windows on maps of any size, as its authors' detectors and detectron2 compute them."""

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor
from torch.nn import functional

from skyloom.backbone import Backbone


class WholeWindowBlock(SwinTransformerBlock):
    """A block that fills up a map to whole windows before it shifts them."""

    def _attn(self, x: Tensor) -> Tensor:
        """Attention within windows of maps (B, H, W, C) (Liu et al. 2021, arXiv:2103.14030, section 3.2)."""
        height, width, channels = x.shape[1:]
        rows, columns = self.window_size
        filled = functional.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        size, (up, left) = filled.shape[1:3], self.shift_size
        moved = torch.roll(filled, (-up, -left), dims=(1, 2)) if up or left else filled
        windows = window_partition(moved, self.window_size).view(-1, rows * columns, channels)
        seen = self.attn(windows, mask=self.get_attn_mask(moved)).view(-1, rows, columns, channels)
        back = window_reverse(seen, self.window_size, *size)
        back = torch.roll(back, (up, left), dims=(1, 2)) if up or left else back
        return back[:, :height, :width].contiguous()


def shift_whole_windows(backbone: Backbone) -> None:
    """Let a Swin fill up a map to whole windows before it shifts them, and shift them in every second block.

    timm 1.0 shifts first and fills up then, but masks as if it had done the reverse: where a map is no multiple of the
    window, the last rows and columns see the first ones. It also leaves the last stage unshifted where the size that
    the network was built for fits one window. Weights trained in detectron2 expect neither. On maps of whole windows
    the features of all but the last stage stay those of timm. Other networks are left alone.

    Parameters
    ----------
    backbone
        Is changed; its weights are not.
    """
    for stage in getattr(backbone.model, "layers", ()):
        blocks = [block for block in getattr(stage, "blocks", ()) if type(block) is SwinTransformerBlock]
        for number, block in enumerate(blocks):
            inner: Any = block
            inner.__class__ = WholeWindowBlock
            inner.shift_size = tuple(side // 2 if number % 2 else 0 for side in inner.window_size)
            inner.dynamic_mask = True
