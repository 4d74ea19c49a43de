import math

import numpy as np
import pytest

from skyloom.errors import InputError
from skyloom.metric.classification import class_report, confusion_matrix, predicted_targets, scores_of


def hot(labels, classes):
    return np.eye(classes, dtype=bool)[np.array(labels, dtype=int)]


def test_one_label_each_by_hand():
    # Class 0: 3 of 4 found; class 1: 1 of 2; class 2 has one member, missed.
    truth, predicted = hot([0, 0, 0, 0, 1, 1, 2], 3), hot([0, 0, 0, 1, 1, 0, 0], 3)
    found = scores_of(truth, predicted, multi_label=False)
    assert found["accuracy"] == pytest.approx(4 / 7)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((6 / 9 + 2 / 4 + 0) / 3)
    assert confusion_matrix(truth, predicted).tolist() == [[3, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_classes_that_never_occur_do_not_lower_the_means():
    truth, predicted = hot([0, 1], 5), hot([0, 1], 5)
    assert scores_of(truth, predicted, multi_label=False) == {
        "accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0,
    }  # fmt: skip
    wrong = scores_of(hot([0, 0], 3), hot([0, 2], 3), multi_label=False)
    assert wrong["balanced_accuracy"] == 0.5
    assert wrong["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)  # a class that is predicted counts


def test_several_labels_by_hand():
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    predicted = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=bool)
    found = scores_of(truth, predicted, multi_label=True)
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((1 + (1 / 2 + 1 / 2) / 2) / 2)  # the third never occurs
    assert found["macro_f1"] == pytest.approx((1 + 2 / 4) / 2)


def test_weights_count_rows_as_often():
    truth, predicted = hot([0, 1, 1], 2), hot([0, 0, 1], 2)
    rows = [0, 0, 0, 1]
    weighted = scores_of(truth, predicted, multi_label=False, weight=np.array([3.0, 1.0, 0.0]))
    assert weighted == pytest.approx(scores_of(truth[rows], predicted[rows], multi_label=False))


def test_nothing_to_measure_is_nan_and_not_zero():
    empty = np.zeros((0, 2), dtype=bool)
    assert all(math.isnan(value) for value in scores_of(empty, empty, multi_label=False).values())


def test_report_per_class():
    rows = class_report(hot([0, 0, 1], 3), hot([0, 1, 1], 3), ["a", "b", "c"])
    assert rows[0] == {"class": "a", "number": 2, "predicted": 1, "precision": 1.0, "recall": 0.5, "f1": 0.666667}
    assert rows[2] == {"class": "c", "number": 0, "predicted": 0, "precision": None, "recall": None, "f1": None}


def test_scores_become_classes():
    scores = np.array([[0.2, 0.7, 0.1], [0.5, 0.5, 0.0]])
    assert predicted_targets(scores, multi_label=False).tolist() == [[False, True, False], [True, False, False]]
    assert predicted_targets(scores, multi_label=True).tolist() == [[False, True, False], [True, True, False]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"bool arrays"):
        scores_of(hot([0], 2), hot([0], 3), multi_label=False)
    with pytest.raises(InputError, match="one true and one predicted"):
        confusion_matrix(np.ones((1, 2), dtype=bool), hot([0], 2))
