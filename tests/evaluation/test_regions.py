"""Regions and the calcification: known answers."""

import jax
import numpy as np
import pytest

from qsmjax.evaluation.calcification import calcification_error
from qsmjax.evaluation.roi import linearity, region_counts, region_means, region_stds


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, (12, 13, 11))
    return labels, labels * 0.1 + 0.01 * rng.normal(size=labels.shape)


def test_region_statistics_equal_numpys(labelled):
    labels, chi = labelled
    parts = [chi[labels == n] for n in (3, 1, 4)]
    np.testing.assert_allclose(region_means(chi, labels, (3, 1, 4)), [p.mean() for p in parts], rtol=1e-5)
    np.testing.assert_allclose(region_stds(chi, labels, (3, 1, 4)), [p.std() for p in parts], rtol=1e-4)
    np.testing.assert_array_equal(region_counts(labels, (3, 1, 4)), [p.size for p in parts])
    assert np.isnan(region_means(chi, labels, (9,)))


def test_linearity_is_the_slopes_distance_from_one(labelled):
    labels, chi = labelled
    np.testing.assert_allclose(linearity(0.7 * chi + 0.1, chi, labels, (1, 2, 3, 9)), 0.3, rtol=1e-3)
    assert np.isnan(linearity(chi, chi, labels, (2,)))


def test_calcification_moment_and_streak():
    chi = np.zeros((30, 30, 30))
    lesion = np.zeros(chi.shape, bool)
    lesion[14:16, 14:16, 14:16] = True
    truth = np.where(lesion, -2.0, 0)
    measure = jax.jit(calcification_error)
    perfect = measure(truth, truth, lesion)
    np.testing.assert_allclose(perfect, (0, 0), atol=1e-5)
    half = measure(0.5 * truth, truth, lesion)
    np.testing.assert_allclose(half.moment, 8, rtol=1e-5)
    assert measure(np.where(lesion, -2, 0.3 * (np.indices(chi.shape).sum(0) % 2)), truth, lesion).streak > 0.05
    missed = measure(chi, truth, lesion)
    np.testing.assert_allclose(missed.moment, 16, rtol=1e-5)
    assert np.isnan(missed.streak)
    assert np.isnan(measure(chi, truth, chi)).all()


def test_another_grid_is_refused(labelled):
    labels, chi = labelled
    with pytest.raises(ValueError, match="labels.shape must end in"):
        region_means(chi, labels[1:], (1,))
