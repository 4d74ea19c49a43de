"""Samples for a detector: an image of several bands with its boxes, masks, labels, centroids and truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors

from skyloom.datamodule.coco_dataset import Dataset
from skyloom.datamodule.joint_grid import Placement
from skyloom.datamodule.joint_images import JointImages
from skyloom.datamodule.joint_objects import JointObjects
from skyloom.errors import InputError
from skyloom.transform.detection_augment import DetectionAugment

Sample = dict[str, Any]
Item = int | tuple[int, int]
AUGMENT_STREAM = 0x61756721  # keeps the streams of the augmentations apart from that of the order


class JointSamples(TorchDataset[Sample]):
    """The images of a part of a data set; those without objects are kept.

    Parameters
    ----------
    dataset
        The images and their annotations.
    images
        Where the pixels come from.
    masks
        Whether to decode masks.
    truth
        Columns of the annotations that are passed on, one value per object.
    blank_value
        What blank pixels become, in the unit of the image; None leaves NaN.
    augment
        Random changes; None: none.
    seed
        Start of the streams of the changes: one for each epoch and image, whatever the number of workers.
    """

    def __init__(
        self,
        dataset: Dataset,
        images: JointImages,
        *,
        masks: bool,
        truth: Sequence[str],
        blank_value: float | None,
        augment: DetectionAugment | None = None,
        seed: int = 0,
    ) -> None:
        self.cutout_id = dataset.cutout_id
        self._objects = JointObjects(dataset, truth)
        self._dataset_id = dataset.artifact.id
        self.images, self.augment, self.seed = images, augment, seed
        self._masks, self._blank_value = masks, blank_value

    def __len__(self) -> int:
        return len(self.cutout_id)

    def __getitem__(self, item: Item) -> Sample:
        """Read one sample by its number, or by its number and the epoch whose random changes it shall have.

        Returns
        -------
        dict
            ``image`` float32 (C, H, W), raw; ``id`` int; of n objects ``boxes`` (XYXY, float32), ``masks`` (bool,
            if wanted), ``labels`` int64, ``centroids`` (``KeyPoints``, float32), all in pixels of the image;
            ``truth``, by column a float64 or int64 tensor or a list of strings; ``off_image``, the number of objects
            that do not reach into the image and are left out.
        """
        number, epoch = item if isinstance(item, tuple) else (item, 0)
        cutout_id = int(self.cutout_id[number])
        pixels, place = self.images.read(cutout_id)
        if self._blank_value is not None:
            np.nan_to_num(pixels, copy=False, nan=self._blank_value, posinf=self._blank_value, neginf=self._blank_value)
        sample: Sample = {"image": torch.from_numpy(pixels), "id": cutout_id}
        sample |= self._placed(number, cutout_id, place, pixels.shape[1:])
        if self.augment is None:
            return sample
        entropy = np.random.SeedSequence([self.seed, AUGMENT_STREAM], spawn_key=(epoch, number))
        generator = torch.Generator().manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> 1))
        return self.augment(sample, generator)

    def _placed(self, number: int, cutout_id: int, place: Placement, shape: tuple[int, ...]) -> Sample:
        """The objects of an image on its grid."""
        own = self.images.annotated_shape(cutout_id)
        if own != self._objects.shape(number):
            raise InputError(
                f"cutout {cutout_id} has {own[0]}x{own[1]} px in cutouts {self.images.annotated.artifact.id}, "
                f"{'x'.join(map(str, self._objects.shape(number)))} px in dataset {self._dataset_id}; "
                "give the cutouts that the data set was made from"
            )
        height, width = shape
        boxes = moved_boxes(self._objects.boxes(number), place)
        boxes[:, 0::2], boxes[:, 1::2] = boxes[:, 0::2].clip(0, width), boxes[:, 1::2].clip(0, height)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found: Sample = {}
        if self._masks:
            masks = place.masks(self._objects.masks(number))
            kept &= masks.any(axis=(1, 2))
            found["masks"] = tv_tensors.Mask(torch.from_numpy(masks[kept]))
        centroids = np.stack(place.points(*self._objects.centroids(number)[kept].T), axis=-1)
        canvas = (int(height), int(width))
        found["boxes"] = tv_tensors.BoundingBoxes(
            torch.from_numpy(boxes[kept].astype(np.float32)), format="XYXY", canvas_size=canvas
        )
        found["centroids"] = tv_tensors.KeyPoints(torch.from_numpy(centroids.astype(np.float32)), canvas_size=canvas)
        found["labels"] = torch.from_numpy(self._objects.labels(number)[kept])
        found["truth"] = self._objects.truth(number, kept)
        found["off_image"] = int((~kept).sum())
        return found


def moved_boxes(boxes: np.ndarray, place: Placement) -> np.ndarray:
    """Smallest upright boxes around the corners of boxes brought onto a grid.

    Parameters
    ----------
    boxes
        float64 (n, 4), x0, y0, x1, y1; pixel i spans i to i + 1.
    place
        The way there.

    Returns
    -------
    ndarray
        float64 (n, 4).
    """
    x, y = boxes[:, [0, 2, 0, 2]] - 0.5, boxes[:, [1, 1, 3, 3]] - 0.5
    x, y = (np.reshape(values, (-1, 4)) + 0.5 for values in place.points(x.ravel(), y.ravel()))
    return np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
