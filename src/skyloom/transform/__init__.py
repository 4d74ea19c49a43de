"""Float tensor transforms of image batches, on the device where the batch is."""

from skyloom.transform.preprocess import Preprocess
from skyloom.transform.radio_augment import RadioAugment

__all__ = ["Preprocess", "RadioAugment"]
