"""Features inside boxes, read from the map that suits the size of each box."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from skyloom.detector.options import RoiOptions

CANONICAL_MAP = 2  # the third map, of stride 16 in the usual pyramid, serves boxes of the canonical size
MAPS = 4  # maps that are read; the coarser ones of a pyramid only propose


class RoiPool:
    """RoIAlign (He et al. 2017, arXiv:1703.06870, section 3) over a pyramid (Lin et al. 2017, arXiv:1612.03144, eq. 1).

    Parameters
    ----------
    strides
        Image pixels per pixel of each map, fine to coarse.
    options
        How to read.
    """

    def __init__(self, strides: Sequence[float], options: RoiOptions) -> None:
        self.strides = list(strides[:MAPS])
        self._options = options

    def levels(self, boxes: Tensor) -> Tensor:
        """Number of the map that each box (n, 4) is read from, int64 (n,)."""
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        octave = torch.log2(area.sqrt() / self._options.canonical_size_px + 1e-8)
        return torch.floor(CANONICAL_MAP + octave).clamp(0, len(self.strides) - 1).long()

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor, image: Tensor, resolution: int) -> Tensor:
        """Read features.

        Parameters
        ----------
        maps
            float (B, channels, H/stride, W/stride) each.
        boxes
            float32 (n, 4), px of the image.
        image
            Number of each box's image in the batch, int64 (n,).
        resolution
            Cells along a side of the result.

        Returns
        -------
        Tensor
            float (n, channels, resolution, resolution).
        """
        regions = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
        levels = self.levels(boxes)
        numbers = torch.bincount(levels, minlength=len(self.strides)).tolist()
        used = [level for level, number in enumerate(numbers) if number]
        if len(used) <= 1:
            return self._align(maps, used[0] if used else 0, regions, resolution)
        order = levels.argsort(stable=True)
        parts = regions[order].split(numbers)
        read = torch.cat([self._align(maps, level, parts[level], resolution) for level in used])
        return read[order.argsort()]

    def _align(self, maps: Sequence[Tensor], level: int, regions: Tensor, resolution: int) -> Tensor:
        return roi_align(
            maps[level],
            regions.to(maps[level].dtype),
            output_size=resolution,
            spatial_scale=1 / self.strides[level],
            sampling_ratio=self._options.sampling_ratio,
            aligned=self._options.aligned,
        )
