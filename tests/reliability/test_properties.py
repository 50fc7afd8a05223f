"""Scans that nobody would make: every method gives finite values in the mask, or an error that says the cure.

A few of the cases of `benchmarks/properties.py`, which runs all methods on many more.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsmjax.evaluation.metrics import nrmse, psnr
from qsmjax.inversion import METHODS
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.unwrap import unwrap
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry, geometry_from_affine
from qsmjax.pipeline import BACKGROUNDS

from .strategies import OURS, Case, assert_holds, cases

FEW = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SOME = settings(FEW, max_examples=12)
MANY = settings(FEW, max_examples=60)
SLAB = cases(9, [(5, 6, 3)], compiled_once=True)


@FEW
@given(cases(9))
def test_a_closed_form_holds_on_any_grid(case):
    assert_holds(METHODS["tkd"], case)


@pytest.mark.parametrize("name", ["tikhonov", "tv", "ndi"])
def test_inversions_hold_on_a_slab(name):
    options = {} if name == "tikhonov" else {"max_iterations": 2}

    @SOME
    @given(SLAB)
    def test(case: Case) -> None:
        assert_holds(METHODS[name], case, **options)

    test()


@pytest.mark.parametrize("name", ["vsharp", "ismv"])
def test_background_methods_hold_on_a_slab(name):
    @SOME
    @given(SLAB)
    def test(case: Case) -> None:
        assert_holds(BACKGROUNDS[name], case)

    test()


@MANY
@given(st.lists(st.floats(-1e3, 1e3), min_size=16, max_size=16), st.floats(0.3, 4))
def test_affines_give_a_unit_direction_or_are_refused(values, size):
    try:
        grid = geometry_from_affine(np.asarray(values).reshape(4, 4), (3, 4, 5))
    except OURS as error:
        assert "affine must" in str(error) or "must be" in str(error)
        return
    assert float(np.linalg.norm(grid.b0_dir)) == pytest.approx(1, abs=1e-5) and float(min(grid.voxel_size)) > 0


@FEW
@given(cases(7))
def test_the_field_of_a_map_scales_with_it(case):
    """Linear to rounding: 1e-3 and 1e4 ppm alike."""
    chi = np.random.default_rng(case.seed).standard_normal(case.shape)
    grid = geometry(case.shape, case.voxel_size, case.b0_dir)
    field = np.asarray(forward_field(chi, grid))
    assert np.isfinite(field).all()
    for factor in (1e-3, -1e4):
        np.testing.assert_allclose(forward_field(factor * chi, grid), factor * field, atol=2e-6 * abs(factor) * 4)


@FEW
@given(cases(6))
def test_phase_and_magnitude_of_any_kind_are_unwrapped_and_masked_or_refused(case):
    scan = case.scan()
    raw = np.where(np.asarray(scan.mask), 100 * np.asarray(scan.field), 0)
    with np.errstate(invalid="ignore"):
        phase = np.angle(np.exp(1j * raw))
    for run in (lambda: unwrap(phase, scan.mask), lambda: magnitude_mask(np.abs(raw))):
        try:
            made = np.asarray(run())
        except OURS as error:
            assert len(str(error)) > 20 and "\n" not in str(error)
        else:
            assert made.shape == case.shape and (np.isfinite(made).all() or "inside" in case.field)


@FEW
@given(cases(5))
def test_metrics_know_what_is_equal(case):
    scan = case.scan()
    field = np.nan_to_num(np.asarray(scan.field), posinf=1.0)
    error = float(nrmse(field, field, scan.mask))
    assert error == 0 or np.isnan(error)
    assert not np.isfinite(float(psnr(field, field, scan.mask)))
