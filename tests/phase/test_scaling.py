"""Phase is scaled by rule: what fits one is exact, what fits none or two is refused with the option that cures it."""

import math

import numpy as np
import pytest

from qsmjax.phase.scaling import complex_from_parts, phase_rule, undo_alternation

SHAPE = (6, 5, 4)
TRUTH = np.random.default_rng(0).uniform(-math.pi, math.pi, SHAPE)
PHILIPS = 2 * math.pi / 4.095

SCANNERS = {
    "float radians": (TRUTH, {}),
    "integers that the header turns into radians": (TRUTH, {"scl_slope": math.pi / 4096}),
    "Siemens by its header": (np.round(TRUTH * 2048 / math.pi) * 2, {"scl_slope": 2.0, "scl_inter": -4096.0}),
    "Siemens by its name": (np.round(TRUTH * 2048 / math.pi) * 2, {"manufacturer": "SIEMENS"}),
    "Siemens by its reach": (np.round(TRUTH * 2048 / math.pi) * 2, {}),
    "raw": (np.round((TRUTH + math.pi) * 2047.99 / math.pi), {}),
    "Philips": (np.round((TRUTH * 1000 + 3141.6) / PHILIPS) * PHILIPS - 3141.6, {"manufacturer": "Philips"}),
    "Philips by its header": (np.round((TRUTH * 1000 + 3141.6) / PHILIPS) * PHILIPS - 3141.6, {"scl_slope": PHILIPS}),
    "GE": (np.round(-TRUTH * 1000), {"manufacturer": "GE MEDICAL SYSTEMS"}),
    "GE in radians": (-TRUTH, {"manufacturer": "GE"}),
}


@pytest.mark.parametrize("scanner", SCANNERS)
def test_every_scanner_gives_the_same_radians(scanner):
    values, header = SCANNERS[scanner]
    rule = phase_rule(values, **header)
    np.testing.assert_allclose(rule.radians(values), TRUTH, atol=2e-3)
    assert rule.words


def test_the_observed_range_does_not_count():
    """The same voxel becomes the same phase, however far its neighbours reach."""
    values = np.round(TRUTH * 2048 / math.pi) * 2
    whole = phase_rule(values, manufacturer="Siemens").radians(values)
    clipped = np.clip(values, -1000, 500)
    part = phase_rule(clipped, manufacturer="Siemens").radians(clipped)
    inside = (values > -1000) & (values < 500)
    np.testing.assert_array_equal(np.asarray(whole)[inside], np.asarray(part)[inside])


def test_a_factor_on_floating_point_radians_is_refused_by_name():
    slope = 0.0011695906
    with pytest.raises(ValueError, match=r"scale factor is 0\.00116959.*--phase-units.*stored-rad"):
        phase_rule(TRUTH * slope, scl_slope=slope, stored_as_float=True)
    told = phase_rule(TRUTH * slope, scl_slope=slope, stored_as_float=True, units="stored-rad")
    phase, rule = told.radians(TRUTH * slope), told.words
    np.testing.assert_allclose(phase, TRUTH, atol=1e-5)
    assert "as told" in rule


@pytest.mark.parametrize(
    ("values", "header", "message"),
    [
        (TRUTH * 1e-3, {}, "must reach beyond"),
        (TRUTH / np.abs(TRUTH).max(), {}, "could be units of pi"),
        ((TRUTH - TRUTH.min()) / np.ptp(TRUTH), {}, "could be turns, from 0 to 1"),
        ((TRUTH - TRUTH.min()) / np.ptp(TRUTH) - 0.5, {}, "could be turns, from -0.5 to 0.5"),
        (TRUTH * 3, {}, "fits no scanner's rule"),
        (np.round(TRUTH * 20000), {}, "fits no scanner's rule"),
        (np.round(TRUTH * 900), {}, "siemens or mrad"),
        (np.round(TRUTH * 4000), {"manufacturer": "GE"}, "fits no scanner's rule"),
        (np.linspace(0, 255, 256), {}, "could be 8 bits"),
        (np.linspace(0, 360, 361), {}, "could be degrees, from 0 to 360"),
        (np.linspace(-180, 180, 361), {"manufacturer": "Siemens"}, "could be degrees, from -180 to 180"),
        (np.linspace(-2048, 2047, 4096), {"manufacturer": "Siemens"}, "could be 12 bits with a sign"),
    ],
)
def test_what_fits_no_rule_or_two_is_refused(values, header, message):
    with pytest.raises(ValueError, match=f"{message}.*--phase-units"):
        phase_rule(values, **header)


def test_what_is_told_is_done():
    np.testing.assert_allclose(phase_rule(TRUTH * 3, units="rad").radians(TRUTH * 3), TRUTH * 3, rtol=1e-6)
    np.testing.assert_allclose(phase_rule(TRUTH, inverted=True).radians(TRUTH), -TRUTH, rtol=1e-6)


def test_phase_that_is_not_finite_or_units_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="must be finite"):
        phase_rule(TRUTH * np.nan)
    with pytest.raises(ValueError, match="units must be one of"):
        phase_rule(TRUTH, units="degrees")


def test_parts_of_an_inverted_scanner_give_the_same_signal():
    signal = np.exp(1j * TRUTH)
    plain = complex_from_parts(signal.real, signal.imag)
    turned = complex_from_parts(signal.real, -signal.imag, manufacturer="GE")
    np.testing.assert_allclose(plain, signal, rtol=1e-5)
    np.testing.assert_allclose(turned, signal, rtol=1e-5)
    with pytest.raises(ValueError, match=r"imaginary\.shape must equal"):
        complex_from_parts(signal.real, signal.imag[:2])


@pytest.mark.parametrize("axes", [(), (2,), (0, 2)])
def test_signs_that_alternate_are_undone(axes):
    """Phase that rises by up to 100 degrees a voxel does not alternate; what is added to it along an axis does."""
    rng = np.random.default_rng(0)
    at = np.meshgrid(*[np.arange(n) for n in (8, 9, 7)], indexing="ij")
    steep = 1.7 * at[1] + 0.5 * at[2] + 0.3 * rng.normal(size=at[0].shape)
    mask = (at[0] > 1) & (at[1] > 1)
    signal = np.stack([np.exp(1j * te * steep) for te in (1, 2)]) * np.where(mask, 1, 0.5 * rng.normal(size=mask.shape))
    sign = np.prod([(-1.0) ** at[axis] for axis in axes], axis=0)
    found, told = undo_alternation(sign * signal, mask)
    assert told == axes
    np.testing.assert_allclose(found, signal, atol=1e-5)
