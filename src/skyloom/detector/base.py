"""The contract of all detectors: losses for training, candidates for everything else."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skyloom.detector.candidates import Candidates

Target = Mapping[str, Tensor]
"""Of one image with n objects: ``boxes`` float32 (n, 4) XYXY px, ``labels`` int64 (n,) from 0, ``masks`` bool
(n, H, W), ``centroids`` float32 (n, 2) px; other keys are not read."""


class Detector(nn.Module):
    """Finds objects in images: boxes, classes, masks and, where it can, centroids.

    A detector normalises images itself, (x - mean) / std by channel in the unit of the data, sets pixels that are not
    finite to the mean, and pads images to the sizes that its network wants. It works on the weights alone: `losses` and
    `raw` give the same in training and in evaluation mode, but for drop-out and the random choice of training samples,
    which follow the global random stream of torch.

    Attributes
    ----------
    in_chans, classes : int
        Channels of an image and number of classes, none of them the background.
    mean, std : Tensor
        float32 (in_chans,), buffers, saved with the weights.
    """

    in_chans: int
    classes: int
    mean: Tensor
    std: Tensor

    def losses(self, images: Sequence[Tensor] | Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return the parts of the loss by name, weighted: their sum is minimised.

        Parameters
        ----------
        images
            float32 (C, H, W) each, or one tensor (B, C, H, W).
        targets
            Of each image; an image may have no object.

        Raises
        ------
        InputError
            Another number of channels, a label out of range, a box outside the image or without area, a mask of another
            size.
        """
        raise NotImplementedError

    def raw(self, images: Sequence[Tensor] | Tensor) -> list[Candidates]:
        """Return the candidates of each image, without gradient, before thresholds but the detector's lowest score."""
        raise NotImplementedError

    def parts(self) -> dict[str, Sequence[nn.Module]]:
        """Return ``backbone`` and ``heads``, the modules that are frozen, thawed and given a learning rate together."""
        raise NotImplementedError

    @torch.no_grad()
    def set_normalisation(self, mean: Tensor | None, std: Tensor | None) -> None:
        """Set mean and std (C,) of the channels; None leaves them."""
        if mean is not None:
            self.mean.copy_(mean)
        if std is not None:
            self.std.copy_(std)
