import numpy as np
import pytest

from skyloom.probe.linear import linear_scores


def blobs(seed=0, number=120, classes=3, apart=6.0, dimensions=8):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, number)
    centre = np.random.default_rng(99).normal(size=(classes, dimensions)) * apart / np.sqrt(dimensions)
    return (centre[label] + rng.normal(size=(number, dimensions))).astype(np.float32), np.eye(classes, dtype=bool)[
        label
    ]


def test_separable_classes_are_told_apart():
    (x, y), (q, truth) = blobs(0, apart=12), blobs(1, apart=12)
    scores = linear_scores(x, y, q, l2=1e-3, multi_label=False)
    assert (scores.argmax(1) == truth.argmax(1)).all()
    assert scores.sum(1) == pytest.approx(np.ones(len(q)), abs=1e-5)


def test_the_result_is_the_minimum_of_the_loss():
    x, y = blobs(apart=1.0)
    x = (x - x.mean(0)) / x.std(0)
    l2 = 0.1
    p = linear_scores(x, y, x, l2=l2, multi_label=False).astype(float)
    # At the minimum the residuals are balanced: of each class as many expected as there are, and the weights are
    # -gradient / l2, whose logits give back the same probabilities up to the biases.
    assert p.sum(0) == pytest.approx(y.sum(0), abs=0.05)
    weight = x.T @ (y - p) / len(x) / l2
    logits = np.log(p) - x @ weight
    assert (logits - logits[:, :1]) == pytest.approx(np.tile((logits - logits[:, :1])[0], (len(x), 1)), abs=0.01)


def test_units_and_constant_features_do_not_matter():
    (x, y), (q, _) = blobs(0), blobs(1)
    scale = np.logspace(-3, 3, x.shape[1]).astype(np.float32)
    wide = [np.hstack([a * scale + 5, np.full((len(a), 1), 7e5)]) for a in (x, q)]
    plain = linear_scores(x, y, q, l2=0.01, multi_label=False)
    assert linear_scores(wide[0], y, wide[1], l2=0.01, multi_label=False) == pytest.approx(plain, abs=5e-3)


def test_a_class_without_training_items_gets_nothing():
    x, y = blobs()
    y = np.hstack([y, np.zeros((len(y), 1), dtype=bool)])
    assert (linear_scores(x, y, x, l2=0.01, multi_label=False)[:, 3] == 0).all()


def test_a_single_class_is_certain():
    x, y = blobs(classes=1)
    assert (linear_scores(x, y, x, l2=0.01, multi_label=False) == 1).all()


def test_several_labels_are_independent_of_each_other():
    x, y = blobs(0, apart=12)
    both = np.hstack([y, y[:, :1] | y[:, 1:2]])
    scores = linear_scores(x, both, x, l2=1e-3, multi_label=True)
    assert ((scores >= 0.5) == both).mean() > 0.99
    alone = linear_scores(x, both[:, :1], x, l2=1e-3, multi_label=True)
    assert scores[:, :1] == pytest.approx(alone, abs=5e-3)


def test_balance_lifts_a_rare_class():
    x, y = blobs(0, number=400, classes=2, apart=1.0)
    keep = y[:, 0] | (np.arange(400) % 20 == 0)
    found = [linear_scores(x[keep], y[keep], x, l2=0.01, multi_label=False, balanced=b)[:, 1].mean() for b in (0, 1)]
    assert found[1] > found[0] + 0.2


def test_the_same_every_time():
    x, y = blobs()
    first, second = (linear_scores(x, y, x, l2=0.01, multi_label=False) for _ in range(2))
    assert np.array_equal(first, second)
