"""AP and AR of detections with masks and boxes, gathered image by image and rank by rank, by area, class and column."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from skyloom.errors import ConfigError, InputError
from skyloom.metric.coco import ALL, IOU_THRESHOLDS, KINDS, Curves, Kind, curves
from skyloom.metric.detection_objects import Objects, checked_objects, joined_objects, split_objects


class DetectionScores:
    """Collects truths and detections of images and judges them as COCO does.

    Parameters
    ----------
    classes
        Their names, in the order of the labels.
    areas
        Ranges of the area by name, px^2, both ends included; the area of a truth is that of its mask.
    max_detections
        The best so many of each image and class are judged. COCO's 100 is too few for crowded fields.
    iou_thresholds
        Least intersections over union of a match, over which AP and AR are averaged.

    Raises
    ------
    ConfigError
        No class, a range that does not rise, a name that two things have, no detection allowed.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        areas: Mapping[str, tuple[float, float]],
        max_detections: int,
        iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    ) -> None:
        self.classes, self.max_detections = list(classes), int(max_detections)
        self.areas = {name: (float(low), float(high)) for name, (low, high) in areas.items()}
        self.iou_thresholds = [float(value) for value in iou_thresholds]
        names = [*self.classes, *self.areas]
        if not self.classes or len(set(names)) < len(names):
            raise ConfigError(f"expected names of classes and areas that differ, found {', '.join(names) or 'none'}")
        if wrong := [name for name, (low, high) in self.areas.items() if not low < high]:
            raise ConfigError(f"areas: expected low below high in px^2, found otherwise for {', '.join(wrong)}")
        if self.max_detections < 1 or not all(0 < value <= 1 for value in self.iou_thresholds):
            raise ConfigError("expected max_detections >= 1 and IoU thresholds above 0 up to 1")
        self._sizes: dict[int, tuple[int, int]] = {}
        self._sides: dict[str, dict[int, dict[str, Any]]] = {"truth": {}, "found": {}}

    def __len__(self) -> int:
        """Number of images."""
        return len(self._sizes)

    def add(self, image_id: int, size_px: Sequence[int], truth: Objects, found: Objects) -> None:
        """Take one image.

        Parameters
        ----------
        image_id
            A number that no other image has, on any rank.
        size_px
            Height and width.
        truth
            n objects: ``boxes`` (n, 4) XYXY px, ``labels`` (n,) from 0, ``rle`` n run lengths
            (`skyloom.sky.mask.rle`), and any further numbers (n,), as magnitudes, by which `curves` and bins can cut.
        found
            The same of m detections, with ``scores`` (m,), in any order; of equal scores the first counts as better.

        Raises
        ------
        InputError
            An image comes twice, or its objects do not fit together.
        """
        key = int(image_id)
        if key in self._sizes:
            raise InputError(f"image {key} was judged before; expected each image once, over all ranks")
        checked = {
            name: checked_objects(side, f"{name} of image {key}", classes=len(self.classes), scored=name == "found")
            for name, side in (("truth", truth), ("found", found))
        }
        for name, side in checked.items():
            self._sides[name][key] = side
        self._sizes[key] = (int(size_px[0]), int(size_px[1]))

    def state(self) -> dict[str, Any]:
        """What was collected, with the options, as a plain dictionary that ranks send to each other."""
        images = sorted(self._sizes)
        return {
            "classes": self.classes, "areas": self.areas, "max_detections": self.max_detections,
            "iou_thresholds": self.iou_thresholds, "image_id": np.asarray(images, dtype=np.int64),
            "size_px": np.asarray([self._sizes[key] for key in images], dtype=np.int64).reshape(-1, 2),
            **{name: self.objects(name) for name in self._sides},
        }  # fmt: skip

    @classmethod
    def merged(cls, states: Sequence[Mapping[str, Any]]) -> Self:
        """All images of several `state`; their order does not matter.

        Raises
        ------
        InputError
            There is none, their options differ, or an image is in two of them.
        """
        options = ("classes", "areas", "max_detections", "iou_thresholds")
        if not states or any(state[name] != states[0][name] for state in states for name in options):
            raise InputError("expected states of detection scores with the same options; make them all in one way")
        whole = cls(**{name: states[0][name] for name in options})
        for state in states:
            sides = zip(
                *(split_objects(state[name], len(state["image_id"])) for name in ("truth", "found")), strict=True
            )
            for key, size_px, (truth, found) in zip(state["image_id"], state["size_px"], sides, strict=True):
                whole.add(key, size_px, truth, found)
        return whole

    def objects(self, name: str) -> dict[str, Any]:
        """All of ``truth`` or ``found``, image after image: ``image`` is the row in `state`'s ``image_id``.

        A column that some images lack is NaN there.
        """
        own = self._sides[name]
        return joined_objects([own[image] for image in sorted(own)], scored=name == "found")

    def curves(
        self, kind: Kind, ranges: Sequence[tuple[float, float]] = (ALL,), column: tuple[str, str | None] | None = None
    ) -> Curves:
        """Precision over recall of masks or boxes in ranges of the area, or of a column.

        Parameters
        ----------
        kind
            ``mask`` or ``box``.
        ranges
            Closed intervals.
        column
            That of the truths and that of the detections, None if they have none: then detections that find no truth
            are in no range, and only the recall says something.
        """
        state = self.state()
        values = None
        if column is not None:
            of_truth, of_found = column
            bare = np.full(len(state["found"]["labels"]), np.nan)
            none = np.full(len(state["truth"]["labels"]), np.nan)
            values = (state["truth"].get(of_truth, none), state["found"].get(of_found, bare) if of_found else bare)
        return curves(
            kind, state["size_px"], state["truth"], state["found"], classes=len(self.classes), ranges=ranges,
            max_detections=self.max_detections, iou_thresholds=self.iou_thresholds, values=values,
        )  # fmt: skip

    def compute(self) -> dict[str, float]:
        """The scores by name, 0-1, NaN where there is no truth to be found.

        Returns
        -------
        dict
            Of ``mask`` and ``box``: ``_ap``, the mean precision over recalls, IoU thresholds and classes with truths;
            ``_ap50``, ``_ap75`` at one IoU (NaN if it is not one of the thresholds); ``_ar``, the mean recall;
            ``_ap_<area>``, ``_ar_<area>``; ``_ap_<class>``, ``_ar_<class>``.
        """
        scores: dict[str, float] = {}
        for kind in KINDS:
            found = self.curves(kind, [ALL, *self.areas.values()])
            scores[f"{kind}_ap"] = mean(found.precision[..., 0])
            for percent in (50, 75):
                here = np.isclose(self.iou_thresholds, percent / 100)
                scores[f"{kind}_ap{percent}"] = mean(found.precision[here][..., 0])
            scores[f"{kind}_ar"] = mean(found.recall[..., 0])
            for number, area in enumerate(self.areas, start=1):
                scores[f"{kind}_ap_{area}"] = mean(found.precision[..., number])
                scores[f"{kind}_ar_{area}"] = mean(found.recall[..., number])
            for label, name in enumerate(self.classes):
                scores[f"{kind}_ap_{name}"] = mean(found.precision[:, :, label, 0])
                scores[f"{kind}_ar_{name}"] = mean(found.recall[:, label, 0])
        return scores


def mean(values: np.ndarray) -> float:
    """Mean of what is known, NaN if nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
