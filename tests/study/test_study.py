"""What a study measures, on maps whose answers are known: lesions, streaks, regions, tables."""

import jax
import numpy as np
import pytest
import scipy.stats

from qsmjax.io.nifti import new_volume
from qsmjax.physics.dipole import dipole_kernel, forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.registration.resample import resample
from qsmjax.simulate.anatomy import anatomy
from qsmjax.simulate.drawn_labels import drawn_labels
from qsmjax.simulate.lesions import PARTS
from qsmjax.simulate.scan import Grid
from qsmjax.study.cohort import LESIONS, lesion_map
from qsmjax.study.comparison import lesion_table, mean_curve, over_orientations, through_zero
from qsmjax.study.comparison import test_table as table_of_tests
from qsmjax.study.gather import Row, Study
from qsmjax.study.lesions import measure
from qsmjax.study.scans import REGIONS, number_regions
from qsmjax.study.scores import judge, region_values
from qsmjax.study.subject import brought, spread_over
from qsmjax.study.tables import Spread, Table, shown, spread, to_csv, to_latex, to_markdown

RNG = np.random.default_rng(0)
SHAPE = (16, 15, 14)
X, Y, Z = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
MASK = X**2 + Y**2 + Z**2 < 6.5**2
CHI = np.where(MASK, 0.03 * RNG.normal(size=SHAPE), 0).astype(np.float32)


def test_a_map_against_itself_is_perfect():
    found = judge(CHI, CHI, MASK, geometry(SHAPE))
    assert found["nrmse"] == 0 and found["streaks"] == 0
    assert found["slope"] == pytest.approx(1, abs=1e-6) and found["xsim"] == pytest.approx(1, abs=1e-5)


def test_streaks_are_what_a_field_does_not_show():
    where = geometry(SHAPE, b0_dir=(0.3, 0, 1))
    everywhere = np.ones(SHAPE, bool)
    found = judge(2 * CHI, CHI, everywhere, where)["streaks"]
    # the error is the map itself: its streaks are its part of the cone
    dipole = np.asarray(dipole_kernel(SHAPE, (1, 1, 1), where.b0_dir))
    cone = np.where(np.abs(dipole) < 0.1, np.fft.rfftn(CHI), 0)
    alone = np.fft.irfftn(cone, SHAPE, axes=(0, 1, 2))
    assert found == pytest.approx(100 * np.linalg.norm(alone) / np.linalg.norm(CHI), rel=1e-3)
    assert np.linalg.norm(forward_field(alone, where, padding=0)) < 0.1 * np.linalg.norm(alone)


def test_regions_are_numbered_and_measured():
    segmentation = np.where(X > 2, 11, np.where(X < -2, 51, 2))
    regions = number_regions(segmentation, {"caudate": (11, 50), "putamen": (12, 51), "white": (2,)})
    assert set(np.unique(regions)) == {1, 2, 1 + list(REGIONS).index("white matter")}
    values = region_values(np.where(X > 2, 0.5, 0.1), regions, MASK)
    assert values["caudate"][:2] == [0.5, 0.0] and values["caudate"][2] == (MASK & (X > 2)).sum()
    assert "dentate" not in values
    mean, deviation = over_orientations(np.asarray([[1.0, 3.0, np.nan], [np.nan] * 3]))
    np.testing.assert_allclose([mean[0], deviation[0]], [2, np.sqrt(2)])
    assert np.isnan([mean[1], deviation[1]]).all()


def test_lesions_are_measured_against_their_rim():
    lesions = np.zeros(SHAPE, int)
    lesions[5:8, 6:9, 6:9], lesions[10:12, 6:9, 6:9] = 11, 21
    truth = 0.02 + np.select([lesions == 11, lesions == 21], [1.0, -2.0], 0.0)
    chi = 0.5 + np.select([lesions == 11, lesions == 21], [0.7, -2.0], 0.0)
    found = measure(chi, truth, lesions, MASK)
    bleed, stone = found["Lesions"]
    assert (bleed["Kind"], bleed["Voxels"], stone["Kind"]) == ("haemorrhage", 27, "calcification")
    assert bleed["True"] == pytest.approx(1) and bleed["Found"] == pytest.approx(0.7)
    assert stone["Moments"] == pytest.approx([-36, -36])
    assert "MomentError" in found["Calcification"]
    assert through_zero(np.asarray([1.0, 2.0]), np.asarray([0.5, 1.0])) == 0.5


def test_a_map_brought_to_its_own_grid_stays():
    target = new_volume(MASK, np.eye(4))
    there = brought(CHI, MASK, np.eye(4), target, np.eye(4))
    np.testing.assert_allclose(there[MASK], CHI[MASK], atol=1e-6)
    assert np.isnan(there[~MASK]).all() and resample(CHI, np.eye(4), np.eye(4), SHAPE).shape == SHAPE


def test_maps_spread_where_all_are_known():
    one, other = np.asarray([1.0, 2.0, np.nan]), np.asarray([3.0, 2.0, 1.0])
    assert spread_over([one, other]) == pytest.approx(np.sqrt(2) / 2)
    assert spread_over([one, np.full(3, np.nan)]) is None


def study(scores, anatomies, curves=()):
    """Two methods, each subject scanned once; a's NRMSE as given, b's a constant."""
    values = {"a": scores, "b": [1.0] * len(scores)}
    rows = tuple(
        Row(f"s{i}", "o", method, {"truth": {"nrmse": value}}, {}, 1.0)
        for method, of in values.items()
        for i, value in enumerate(of)
    )
    lesion = {"Kind": "plaque", "True": 1.0, "Found": 0.9, "Moments": [3.0, 2.7]}
    lesions = {"a": {"Lesions": [lesion] * 2}, "b": {"Lesions": []}}
    subjects = tuple(f"s{i}" for i in range(len(scores)))
    return Study(subjects, anatomies, ("a", "b"), rows, {}, lesions, dict(zip(subjects, curves)))


def test_subjects_of_one_label_map_count_as_one():
    found = table_of_tests(study([2.0, 4.0, 6.0, 9.0], ("s0", "s1", "s0", "s3")), "truth")
    row = next(dict(zip(found.columns, row)) for row in found.rows if row[0] == "NRMSE [%]")
    known = scipy.stats.ttest_rel([4.0, 4.0, 9.0], [1.0] * 3)
    assert row["anatomies"] == 3 and row["p"] == pytest.approx(known.pvalue)
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(known.confidence_interval()))


def test_the_curve_over_the_weight_is_the_mean_of_the_subjects():
    curves = ([{"weight": 1.0, "variation": 2.0}], [{"weight": 3.0}])
    assert mean_curve(study([1.0, 2.0], ("s0", "s1"), curves)) == [{"weight": 2.0}]
    assert mean_curve(study([1.0], ("s0",))) == []


def test_the_table_of_lesions_says_which_it_leaves_out():
    title = lesion_table(study([1.0], ("s0",))).title
    assert "under 3 voxels are left out" in title and "without background" in title


def test_tables_in_three_languages():
    rows = (("tkd", Spread(44.44, 1.26), 3), ("a|b", Spread(np.nan, 0), 4))
    table = Table("t", "A & B", ("method", "NRMSE [%]", "n_x"), rows)
    assert to_csv(table) == "method,NRMSE [%] mean,NRMSE [%] std,n_x\ntkd,44.44,1.26,3\na|b,,0,4\n"
    assert to_markdown(table).splitlines()[2:] == ["| tkd | 44.4 ± 1.3 | 3 |", "| a\\|b | - | 4 |"]
    assert r"tkd & 44.4 $\pm$ 1.3 & 3 \\" in to_latex(table) and r"n\_x" in to_latex(table)
    assert spread([1, 2, 3, np.nan]) == Spread(2.0, 1.0) and np.isnan(spread([]).mean)
    assert [shown(v) for v in (0.012345, 3e-7, np.inf, 0.0, "x", 7)] == ["0.0123", "3.00e-07", "∞", "0.00", "x", "7"]


def test_a_drawn_label_map_has_every_region_that_freesurfer_names():
    labels, affine = drawn_labels(jax.random.key(0), 3.0)
    head = anatomy(jax.random.key(0), labels, affine, veins=2)
    there = {head.names[i] for i in np.unique(head.classes)}
    assert {"cortex", "white", "caudate", "putamen", "pallidum", "thalamus", "red_nucleus", "dentate"} <= there
    assert 700e3 < head.brain.sum() * 27 < 1.9e6


def test_the_map_of_lesions_finds_the_balls_again():
    labels, affine = drawn_labels(jax.random.key(1), 3.0)
    head = anatomy(jax.random.key(1), labels, affine, veins=2, lesions=LESIONS)
    numbers = lesion_map(head, Grid(labels.shape, affine), head.brain)
    assert {11, 21, 41, 42} <= set(np.unique(numbers)) <= {0, 11, 21, 31, 32, 41, 42}
    # the haemorrhage is the first lesion: five balls about one centre
    first = len(head.balls.radius) - sum(PARTS[lesion.kind] for lesion in LESIONS)
    middle = np.argwhere(numbers == 11).mean(0) @ affine[:3, :3].T + affine[:3, 3]
    assert np.linalg.norm(middle - head.balls.centre[first]) < head.balls.radius[first]
