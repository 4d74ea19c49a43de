"""Measures of a representation on matrices whose spectra are known, against a direct SVD, and on collapsed encoders."""

import numpy as np
import pytest
import torch

from skyloom.errors import InputError
from skyloom.metric import representation as r


def with_spectrum(values, rows, seed=0):
    """A matrix (rows, len(values)) with the given singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return left * values @ right


def centred_with_variances(values, rows, seed=0):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(rows, len(values)))
    left = np.linalg.qr(left - left.mean(axis=0))[0]
    return left * np.sqrt(np.asarray(values) * (rows - 1))


def paper(z):
    """RankMe by the text of the paper."""
    sigma = np.linalg.svd(z, compute_uv=False)
    p = sigma / np.abs(sigma).sum() + 1e-7
    return np.exp(-np.sum(p * np.log(p)))


def test_rankme_of_equal_singular_values_is_their_number():
    assert r.rankme(with_spectrum(np.full(12, 5.0), 40)) == pytest.approx(12, rel=1e-5)
    assert r.rankme(with_spectrum(np.r_[np.full(3, 5.0), np.zeros(9)], 40)) == pytest.approx(3, rel=1e-4)


@pytest.mark.parametrize("shape", [(500, 24), (16, 64), (24, 24)])
def test_rankme_is_that_of_a_direct_svd_without_centring(shape):
    rng = np.random.default_rng(1)
    z = (rng.normal(size=shape) * np.arange(1, shape[1] + 1) ** -0.7 + 3).astype(np.float32)
    assert r.rankme(z) == pytest.approx(paper(z.astype(np.float64)), rel=1e-9)
    assert abs(paper(z - z.mean(axis=0)) - r.rankme(z)) > 1  # the offset matters
    np.testing.assert_allclose(r.spectrum(z).singular_values, np.linalg.svd(z.astype(float), compute_uv=False))


def test_a_steep_spectrum_keeps_its_small_values():
    values = 10.0 ** -np.linspace(0, 6, 20)
    z = with_spectrum(values, 300)
    assert r.rankme(z) == pytest.approx(paper(z), rel=1e-7)


def test_blocks_give_the_same_as_the_whole_even_far_from_zero():
    z = np.random.default_rng(2).normal(size=(1000, 8)) * np.arange(1, 9) + 1e5
    whole, parts = r.moments([z]), r.moments(np.array_split(z, 7))
    np.testing.assert_allclose(parts.covariance(), np.cov(z.T), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parts.spectrum().singular_values, np.linalg.svd(z, compute_uv=False), rtol=1e-3)
    assert r.rankme(parts.spectrum()) == pytest.approx(r.rankme(whole.spectrum()), rel=1e-6)
    np.testing.assert_allclose(parts.std, z.std(axis=0, ddof=1))
    np.testing.assert_allclose(parts.mean, z.mean(axis=0))


def test_torch_and_numpy_agree():
    z = torch.randn(64, 10, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert r.rankme(z) == pytest.approx(r.rankme(z.detach().numpy()))
    assert r.collapse_std(z) == pytest.approx(torch.nn.functional.normalize(z).std(dim=0).mean().item(), rel=1e-5)


def test_ranks_of_a_known_covariance():
    values = np.array([8.0, 4.0, 4.0, 0.0])
    z = centred_with_variances(values, 200) + 7
    assert r.participation_ratio(z) == pytest.approx(16**2 / 96)
    assert r.nesum(z) == pytest.approx(2)
    share = np.sqrt(values[:3]) / np.sqrt(values).sum()
    assert r.effective_rank(z) == pytest.approx(np.exp(-np.sum(share * np.log(share))))
    assert r.dimensions_for(z, 0.75) == 2
    assert r.dimensions_for(z, 0.99) == 3
    assert r.stable_rank(with_spectrum(np.array([2.0, 1.0, 1.0]), 20)) == pytest.approx(1.5)
    assert r.numerical_rank(with_spectrum(np.array([2.0, 1.0, 1e-9]), 20)) == 2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_of_a_power_law_is_found(alpha):
    fit = r.alpha_req(centred_with_variances(3 * np.arange(1.0, 65) ** -alpha, 300))
    assert fit.alpha == pytest.approx(alpha, rel=1e-6)
    assert fit.scale == pytest.approx(3, rel=1e-6)
    assert fit.r2 == pytest.approx(1)
    assert (fit.first, fit.last) == (3, 64)


def test_alpha_of_too_few_directions_is_unknown():
    assert np.isnan(r.alpha_req(np.random.default_rng(0).normal(size=(20, 2))).alpha)


def test_a_spread_representation_has_not_collapsed():
    z = np.random.default_rng(3).normal(size=(2000, 32))
    assert r.collapse(r.moments([z])) is None
    assert r.collapse_std(z) == pytest.approx(1 / np.sqrt(32), rel=0.02)
    assert r.uniformity(z) < -3


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_equal_rows_are_a_complete_collapse(value):
    z = np.full((50, 8), value, dtype=np.float32)
    assert "complete collapse" in r.collapse(r.moments([z]))
    assert r.collapse_std(z) == pytest.approx(0, abs=1e-9)
    assert r.rankme(z) == pytest.approx(min(value * 10, 1), abs=1e-3)
    assert r.effective_rank(z) == r.participation_ratio(z) == r.nesum(z) == r.dimensions_for(z) == 0


def test_rank_one_is_a_dimensional_collapse():
    rng = np.random.default_rng(4)
    z = rng.normal(size=(100, 1)) * rng.normal(size=16)
    assert "dimensional collapse" in r.collapse(r.moments([z]))
    assert r.rankme(z) == pytest.approx(1, abs=1e-3)
    assert r.collapse_std(z) > 0.1  # which alone would not have told


def test_rows_of_one_direction_have_collapsed():
    rng = np.random.default_rng(5)
    z = rng.normal(size=16) * 100 + rng.normal(size=(100, 16)) * 0.01
    assert "point the same way" in r.collapse(r.moments([z]))


def test_uniformity_and_alignment_of_hand_made_rows():
    x = np.array([[2.0, 0], [0, 3.0], [-1.0, 0]])
    pairs = np.exp(-2 * np.array([2.0, 4.0, 2.0]))
    assert r.uniformity(x) == pytest.approx(np.log(pairs.mean()))
    assert r.uniformity(np.ones((5, 3))) == pytest.approx(0)
    assert r.alignment(x, 5 * x) == pytest.approx(0)
    assert r.alignment(x, -x) == pytest.approx(4)


def test_bad_features_are_refused():
    with pytest.raises(InputError, match="row 1 is not"):
        r.rankme(np.array([[1.0, 2.0], [np.nan, 1.0], [0.0, 1.0]]))
    with pytest.raises(InputError, match=r"found shape \(3,\)"):
        r.rankme(np.ones(3))
    with pytest.raises(InputError, match="no row"):
        r.moments([])
    with pytest.raises(InputError, match="after rows of 2"):
        r.moments([np.ones((2, 2)), np.ones((2, 3))])
