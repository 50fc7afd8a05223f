"""Statistics against worked examples, SciPy, and what must hold of a method compared with itself."""

import numpy as np
import pytest
import scipy.stats

from qsmjax.evaluation.statistics import agreement, holm, line, paired_t

RNG = np.random.default_rng(0)


def test_the_paired_test_is_scipys():
    a, b = RNG.normal(size=(2, 9))
    found, known = paired_t(a, b), scipy.stats.ttest_rel(a, b)
    np.testing.assert_allclose((found.t, found.p), (known.statistic, known.pvalue), rtol=1e-12)
    assert found.effect == pytest.approx(found.t / 3) and found.pairs == 9
    interval = known.confidence_interval(0.95)
    np.testing.assert_allclose((found.lower, found.upper), (interval.low, interval.high), rtol=1e-12)


def test_a_worked_example():
    # differences 1, 2, 3: mean 2, deviation 1, t = 2 √3, d_z = 2
    found = paired_t([2, 4, 6], [1, 2, 3])
    assert found.difference == 2 and found.effect == pytest.approx(2) and found.t == pytest.approx(2 * np.sqrt(3))
    assert found.p == pytest.approx(0.0741799, abs=1e-6)


def test_a_method_against_itself():
    a = RNG.normal(size=6)
    assert paired_t(a, a) == (0.0, 0.0, 1.0, 0.0, 6, 0.0, 0.0)
    assert line(a, a) == pytest.approx((1, 0, 1))
    assert agreement(a, a) == (0, 0, 0)


def test_a_constant_difference_is_certain_and_one_pair_tells_nothing():
    a = RNG.normal(size=5)
    assert paired_t(a + 1, a).p == 0 and paired_t(a + 1, a).effect == np.inf
    assert np.isnan([paired_t([1.0], [2.0]).p, paired_t([1.0], [1.0]).lower]).all()
    assert paired_t([1, np.nan, 3], [0, 5, 1]).pairs == 2


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, float("nan"), 0.9]) == pytest.approx([1, float("nan"), 1], nan_ok=True)
    assert holm([]) == []


def test_a_line_and_limits_of_agreement_by_hand():
    x = np.asarray([0.0, 1.0, 2.0, 3.0])
    assert line(x, 2 * x + 1) == pytest.approx((2, 1, 1))
    known = scipy.stats.linregress(x, [0, 1, 1, 3])
    assert line(x, [0, 1, 1, 3]) == pytest.approx((known.slope, known.intercept, known.rvalue**2))
    assert np.isnan(line([1, 1], [0, 2]).slope)
    assert agreement([0, 0, 0], [1, 2, 3]) == pytest.approx((2, 2 - 1.96, 2 + 1.96))


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="must be paired, got 2 and 3"):
        paired_t([1, 2], [1, 2, 3])
