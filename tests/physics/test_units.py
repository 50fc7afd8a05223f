"""Units: every conversion comes back, and the sign is plus."""

import numpy as np
import pytest

from qsmjax.physics import units


@pytest.mark.parametrize("unit", ["ppm", "hz", "rad"])
def test_there_and_back_is_the_identity(unit):
    field = np.linspace(-0.2, 0.2, 9, dtype=np.float32)
    there = units.from_ppm(field, unit, b0=3.0, te=0.02)
    np.testing.assert_allclose(units.to_ppm(there, unit, b0=3.0, te=0.02), field, atol=1e-8)


def test_one_ppm_at_three_tesla():
    np.testing.assert_allclose(units.hz_per_ppm(3.0), 127.732, rtol=1e-5)
    np.testing.assert_allclose(units.radians_per_ppm(3.0, 0.020), 2 * np.pi * 127.732 * 0.020, rtol=1e-5)
    assert units.to_ppm(1.0, "rad", b0=3.0, te=0.02) > 0


@pytest.mark.parametrize(
    ("unit", "given", "message"),
    [
        ("hz", {}, "b0 must be given"),
        ("rad", {"b0": 3.0}, "te must be given"),
        ("hz", {"b0": 0.0}, "b0 must be above zero"),
        ("rad", {"b0": 3.0, "te": -0.01}, "te must be above zero"),
        ("tesla", {"b0": 3.0}, "units must be one of ppm, hz, rad, got 'tesla'"),
    ],
)
def test_what_is_missing_is_named(unit, given, message):
    with pytest.raises(ValueError, match=message):
        units.to_ppm(1.0, unit, **given)
