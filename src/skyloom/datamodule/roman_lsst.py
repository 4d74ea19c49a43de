"""Batches of Rubin and Roman images, each survey by itself or both on one grid, with what a detector learns from."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cv2
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from skyloom.datamodule.band_index import BandIndex
from skyloom.datamodule.coco_dataset import Dataset, categories_of, open_dataset
from skyloom.datamodule.detection_batch import Batch, EpochItems, collated
from skyloom.datamodule.joint_channels import augmentation, mean_std
from skyloom.datamodule.joint_images import JointImages
from skyloom.datamodule.joint_inputs import annotated_cutouts, cutouts_of
from skyloom.datamodule.joint_sample import JointSamples
from skyloom.datamodule.workers import reading_context
from skyloom.errors import ConfigError
from skyloom.store import Artifact

PARTS = ("train", "val", "test")


class RomanLsstDataModule(LightningDataModule):
    """Train, validation and test batches of a data set of annotated cutouts.

    Parameters
    ----------
    data
        Artifacts by role: ``dataset``; the cutouts of each survey under its name (None: those behind the data set);
        ``<survey>_stats``, their statistics, or None.
    surveys
        Whose bands make the channels, in this order: ``lsst``, ``roman``, or both. The last gives the grid.
    combine, interpolation, conserve_flux
        How the others come onto it: :func:`skyloom.datamodule.joint_grid.placement`.
    cache_maps
        Whether to keep what was worked out of two WCS for the next epoch.
    parts
        For ``train``, ``val`` and ``test`` the part of the split or the subset to read; None reads nothing.
    masks, truth, blank_value
        As in :class:`skyloom.datamodule.joint_sample.JointSamples`.
    augment
        Options of :class:`skyloom.transform.detection_augment.DetectionAugment`, for training only; None: none.
    batch_size
        Images per batch. The last batch of an epoch may be smaller.
    stack
        Whether the images of a batch become one tensor, padded to the largest; else they are a list.
    workers
        Worker processes that read; 0 reads in the training process.
    seed
        Start of the streams of order and changes.
    image_roots
        Folders in which images that have moved are looked for.

    Attributes
    ----------
    bands : tuple of (str, str)
        Survey and band of each channel.
    units, zero_point_mag : tuple
        Of each channel: its unit, and the AB magnitude of one such unit.
    mean, std : Tensor or None
        float32 (C,), of raw pixels, as the statistics have them, in the units of the images of the batches; None where
        the statistics of a survey are missing.
    categories : dict
        Names of the labels by number.
    """

    def __init__(
        self,
        data: Mapping[str, Artifact | None],
        *,
        surveys: Sequence[str],
        combine: str,
        interpolation: str,
        conserve_flux: bool,
        cache_maps: bool,
        parts: Mapping[str, str | None],
        masks: bool,
        truth: Sequence[str],
        blank_value: float | None,
        augment: Mapping[str, Any] | None,
        batch_size: int,
        stack: bool,
        workers: int,
        seed: int,
        image_roots: str | None = None,
    ) -> None:
        super().__init__()
        dataset = data.get("dataset")
        if dataset is None or dataset.kind != "dataset":
            raise ConfigError(f"data.dataset={dataset and dataset.id} is not an artifact of kind dataset")
        if not surveys or len(set(surveys)) != len(surveys):
            raise ConfigError(f"datamodule.surveys={list(surveys)}: expected names, each once, as [lsst, roman]")
        if unknown := sorted(set(parts) - set(PARTS)):
            raise ConfigError(f"datamodule.parts.{unknown[0]} is not known; choose one of: {', '.join(PARTS)}")
        if batch_size < 1 or workers < 0:
            raise ConfigError(f"datamodule.batch_size={batch_size}, workers={workers}: expected 1 and 0, or more")
        self.dataset, self.parts = dataset, {part: parts.get(part) for part in PARTS}
        found = {survey: cutouts_of(dataset, survey, data.get(survey)) for survey in surveys}
        indexes = {survey: BandIndex(cutouts, image_roots=image_roots) for survey, cutouts in found.items()}
        annotated = annotated_cutouts(dataset)
        same = [index for index in indexes.values() if index.artifact.id == annotated.id]
        self.images = JointImages(
            indexes,
            surveys,
            same[0] if same else BandIndex(annotated, image_roots=image_roots),
            combine=combine,
            interpolation=interpolation,
            conserve_flux=conserve_flux,
            cache=cache_maps,
        )
        self.bands = self.images.bands
        self.units = tuple(indexes[survey].unit for survey, _ in self.bands)
        self.zero_point_mag = tuple(indexes[survey].zero_point_mag[band] for survey, band in self.bands)
        self.categories = categories_of(dataset)
        area = {
            survey: (self.images.grid.pixel_scale_arcsec / index.pixel_scale_arcsec) ** 2
            if conserve_flux and combine == "wcs"
            else 1.0
            for survey, index in indexes.items()
        }
        stats = {survey: data.get(f"{survey}_stats") for survey in surveys}
        self.mean, self.std = mean_std(stats, indexes, area)
        self._augment = None if augment is None else augmentation(augment, indexes, [band for _, band in self.bands])
        self._sample_options = {"masks": masks, "truth": tuple(truth), "blank_value": blank_value, "seed": seed}
        self.batch_size, self.stack, self.workers, self.seed = batch_size, stack, workers, seed
        self._read: dict[str, Dataset] = {}

    @classmethod
    def from_artifacts(
        cls,
        data: Mapping[str, Artifact | None],
        options: Mapping[str, Any],
        seed: int,
        image_roots: str | None = None,
    ) -> "RomanLsstDataModule":
        """Build from artifacts by role and the options of ``conf/datamodule/roman_lsst.yaml``."""
        return cls(data, seed=seed, image_roots=image_roots, **options)

    def samples(self, part: str) -> JointSamples:
        """The images of ``train``, ``val`` or ``test``; only those of ``train`` are changed at random.

        Raises
        ------
        ConfigError
            The data set has no such part.
        """
        chosen, truth = self.parts[part], self._sample_options["truth"]
        if chosen is None:
            raise ConfigError(f"datamodule.parts.{part} is null; name a part or a subset of dataset {self.dataset.id}")
        if chosen not in self._read:
            self._read[chosen] = open_dataset(self.dataset, columns=truth, part=chosen)  # type: ignore[arg-type]
        augment = self._augment if part == "train" else None
        return JointSamples(self._read[chosen], self.images, augment=augment, **self._sample_options)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of one epoch, in an order and with changes that depend on seed and epoch alone."""
        samples = self.samples("train")
        return self._loader(samples, sampler=EpochItems(len(samples), self.seed))

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """Every image once, in the order of the data set, never changed; nothing where there is no such part."""
        return [] if self.parts["val"] is None else self._loader(self.samples("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every image once, in the order of the data set, never changed."""
        return self._loader(self.samples("test"))

    def _loader(self, samples: JointSamples, **options: Any) -> DataLoader[Batch]:
        return DataLoader(
            samples,
            batch_size=self.batch_size,
            num_workers=self.workers,
            multiprocessing_context=reading_context(self.workers, __name__),
            collate_fn=partial(collated, stacked=self.stack),
            worker_init_fn=_one_thread,
            persistent_workers=self.workers > 0,
            **options,
        )


def _one_thread(_worker: int) -> None:
    """Keep OpenCV from starting as many threads in each worker as there are cores."""
    cv2.setNumThreads(1)
