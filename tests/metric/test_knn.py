import math

import pytest
import torch

from skyloom.errors import ConfigError, InputError
from skyloom.metric import knn
from skyloom.metric.knn import effective_k, knn_scores

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def one_hot(*labels, classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes)


def test_votes_are_weighted_by_the_exponent_of_the_similarity():
    scores = knn_scores(torch.tensor([EAST, NORTH, WEST]), one_hot(0, 1, 1, classes=2), torch.tensor([EAST]), 3, 0.5)
    weights = [math.exp(2), math.exp(0), math.exp(-2)]
    assert scores[0].tolist() == pytest.approx([weights[0] / sum(weights), sum(weights[1:]) / sum(weights)])


def test_only_the_nearest_vote_and_length_means_nothing():
    bank = torch.tensor([[0.01, 0.0], [0.0, 9.0], [0.0, 5.0]])
    scores = knn_scores(bank, one_hot(0, 1, 1, classes=2), torch.tensor([[7.0, 0.1]]), 1, 0.07)
    assert scores.tolist() == [[1.0, 0.0]]


def test_more_neighbours_than_the_bank_has_are_all_of_them():
    bank, labels = torch.tensor([EAST, NORTH]), one_hot(0, 1, classes=3)
    assert effective_k(200, 2) == 2
    assert torch.equal(knn_scores(bank, labels, bank, 200, 0.07), knn_scores(bank, labels, bank, 2, 0.07))


def test_a_class_with_one_member_and_one_without_any():
    scores = knn_scores(torch.tensor([EAST, NORTH, NORTH]), one_hot(0, 1, 1, classes=3), torch.tensor([EAST]), 1, 0.07)
    assert scores.tolist() == [[1.0, 0.0, 0.0]]


def test_several_labels_each_get_their_share():
    labels = torch.tensor([[True, True], [False, True]])
    scores = knn_scores(torch.tensor([EAST, EAST]), labels, torch.tensor([EAST]), 2, 0.07)
    assert scores[0].tolist() == pytest.approx([0.5, 1.0])


def test_pieces_give_the_same_as_the_whole(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(50, 8, generator=generator), torch.randn(23, 8, generator=generator)
    labels = one_hot(*[i % 4 for i in range(50)], classes=4)
    whole = knn_scores(bank, labels, queries, 7, 0.1)
    monkeypatch.setattr(knn, "CHUNK_VALUES", 200)
    assert torch.allclose(knn_scores(bank, labels, queries, 7, 0.1), whole, atol=1e-6)
    assert torch.allclose(whole.sum(1), torch.ones(23))


def test_a_small_temperature_does_not_overflow():
    scores = knn_scores(torch.tensor([EAST, NORTH]), one_hot(0, 1, classes=2), torch.tensor([EAST]), 2, 1e-4)
    assert scores.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 0}, ConfigError, "k=0"),
        ({"temperature": 0.0}, ConfigError, "temperature"),
        ({"bank": torch.zeros(0, 2), "targets": torch.zeros(0, 2)}, InputError, "empty"),
        ({"queries": torch.zeros(1, 3)}, InputError, r"\(1, 3\)"),
        ({"targets": torch.zeros(3, 2)}, InputError, r"\(3, 2\)"),
        ({"queries": torch.tensor([[math.nan, 0]])}, InputError, "finite"),
    ],
)
def test_what_cannot_be_is_refused(change, error, words):
    given = {"bank": torch.eye(2), "targets": torch.eye(2), "queries": torch.eye(2), "k": 1, "temperature": 0.1}
    with pytest.raises(error, match=words):
        knn_scores(**given | change)
