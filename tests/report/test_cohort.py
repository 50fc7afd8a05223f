"""A cohort's page points at the scan that is unlike the others, and at no other."""

import numpy as np

from qsmjax.report.cohort import standing_apart


def rows(stds, region="mask", means=None):
    means = stds if means is None else means
    return [{"scan": f"sub-{i}", "region": region, "mean": m, "std": s} for i, (m, s) in enumerate(zip(means, stds))]


def test_one_that_stands_apart_is_named_once():
    usual = list(0.05 + 0.002 * np.random.default_rng(0).normal(size=9))
    (line,) = standing_apart(rows([*usual, 0.31]))
    assert line.startswith("sub-9: the std of mask is 0.310 ppm, +")
    assert standing_apart(rows(usual, "thalamus", [*usual[:-1], -0.05]))[0].startswith("sub-8: the mean of thalamus")


def test_few_or_equal_scans_have_nothing_apart():
    assert not standing_apart(rows([0.05, 0.05, 0.9])) and not standing_apart(rows([0.05] * 9 + [0.9]))
