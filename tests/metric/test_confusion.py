import numpy as np
import pytest

from make.found_masks import only, random_objects
from skyloom.metric.confusion import confusion, matched
from skyloom.metric.detection_scores import DetectionScores


def test_the_best_score_chooses_first_and_no_truth_is_given_twice():
    iou = np.array([[0.6, 0.9], [0.0, 0.95], [0.3, 0.0]])
    assert matched(iou, np.array([0.9, 0.5, 0.1]), least_iou=0.5).tolist() == [1, -1, -1]
    assert matched(iou, np.array([0.5, 0.9, 0.1]), least_iou=0.5).tolist() == [0, 1, -1]
    assert matched(np.zeros((2, 0)), np.ones(2), least_iou=0.5).tolist() == [-1, -1]


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_counts_of_a_known_case(kind):
    rng = np.random.default_rng(0)
    scores = DetectionScores(["galaxy", "star"], areas={}, max_detections=99)
    truth = only(random_objects(rng, 6, size_px=200, biggest_px=10))
    truth["labels"] = np.array([0, 0, 0, 1, 1, 1])
    labels = np.array([0, 0, 1, 1, 1])  # one galaxy becomes a star, the last star is missed
    found = {"boxes": truth["boxes"][:5], "labels": labels, "rle": truth["rle"][:5], "scores": np.full(5, 0.9)}
    scores.add(0, (200, 200), truth, found)
    nothing = only(random_objects(rng, 0))
    false = only(random_objects(rng, 2, size_px=200)) | {"labels": [0, 1], "scores": [0.9, 0.2]}
    scores.add(1, (200, 200), nothing, {name: false[name] for name in found})
    scores.add(2, (200, 200), nothing, {name: nothing.get(name, np.zeros(0)) for name in found})
    table = confusion(scores, kind=kind, least_iou=0.5, least_score=0.5)
    assert table.tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 0]]
    assert confusion(scores, kind=kind, least_iou=0.5, least_score=0.1)[2].tolist() == [1, 1, 0]
    assert confusion(scores, kind=kind, least_iou=0.5, least_score=0.95)[:, 2].tolist() == [3, 3, 0]
