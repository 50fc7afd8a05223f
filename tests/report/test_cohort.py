"""A cohort's page points at the scan that is unlike the others, and at no other."""

import numpy as np

from qsmjax.report.cohort import cohort_page, not_alike, standing_apart


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


def test_what_was_made_otherwise_is_told_with_its_scans():
    usual = {f"sub-{i}": {"method": "tv", "--set": "[]"} for i in range(5)}
    assert not not_alike(usual)
    (line,) = not_alike(usual | {"sub-9": {"method": "tkd", "--set": "[]"}})
    assert line.endswith("got method tv in sub-0, sub-1, sub-2 and 2 more; tkd in sub-9")


def test_names_are_text_and_counts_whole_on_the_page(tmp_path):
    drawn = tmp_path / "a.png"
    drawn.write_bytes(b"")
    many = [{"scan": f"<i>{i}", "region": "mask", "mean": 0.0, "std": 0.1} for i in range(12345)]
    cohort_page(tmp_path / "page.html", many, {"<i>0": drawn}, {}, ["<i>0: unlike a head"])
    page = (tmp_path / "page.html").read_text()
    assert "<h3>&lt;i&gt;0</h3>" in page and "<i>" not in page and "&lt;i&gt;0: unlike a head" in page
    assert "<td>12345<" in page and "1.234e+04" not in page
