"""Regions off by a turn between echoes are told by their initial phase and moved back, others are left alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.turns import settle_turns
from qsmjax.physics.units import radians_per_ppm

SHAPE = (18, 16, 14)
B0, TE = 3.0, (0.004, 0.012, 0.020)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
MASK = jnp.asarray(x**2 + y**2 + z**2 < 0.9)
FIELD = 0.1 * x + 0.2 * y * z
PHASE = 1 + x - 0.5 * y
PER_SECOND = radians_per_ppm(B0, 1.0)
REGION = (np.abs(x) < 0.3) & (np.abs(y) < 0.3) & (z > 0.4)


def settled(turns, times=TE, known=None):
    """Move a region by turns, as a wrong path would, and settle it."""
    turn = 2 * np.pi / (float(PER_SECOND) * (times[1] - times[0]))
    field = FIELD + turn * turns * REGION
    phase = PHASE - 2 * np.pi * times[0] / (times[1] - times[0]) * turns * REGION
    parts = (jnp.asarray(a, jnp.float32) for a in (field, phase, np.ones(SHAPE)))
    return np.asarray(settle_turns(*parts, times, PER_SECOND, MASK, known)), field


@pytest.mark.parametrize("turns", [-1, 0, 1])
@pytest.mark.parametrize("known", [None, jnp.asarray(PHASE, jnp.float32)])
def test_a_region_off_by_a_turn_comes_back(turns, known):
    field, _ = settled(turns, known=known)
    np.testing.assert_allclose(field[MASK], FIELD[MASK], atol=1e-4)


@pytest.mark.parametrize("times", [(0.008, 0.016, 0.024), (0.004, 0.012, 0.0213), (0.01,)])
def test_echo_times_that_tell_nothing_leave_the_field_as_it_came(times):
    if len(times) == 1:
        field = jnp.asarray(FIELD, jnp.float32)
        same = settle_turns(field, field, field, times, PER_SECOND, MASK)
        np.testing.assert_array_equal(same, field)
    else:
        field, given = settled(1, times)
        np.testing.assert_allclose(field, given, atol=1e-6)


def test_a_field_too_steep_for_any_path_is_still_found():
    """A block that rises by 0.8 turns from one voxel to the next: every path through space goes the other way round."""
    turn = 2 * np.pi / (float(PER_SECOND) * 0.008)
    truth = 0.02 * x + 0.8 * turn * REGION
    c = np.asarray(radians_per_ppm(B0, np.asarray(TE, np.float32)))[:, None, None, None]
    signal = np.exp(1j * (PHASE + c * truth) - 30 * np.asarray(TE)[:, None, None, None])
    error = (np.asarray(fit_echoes(signal, TE, B0, MASK).field) - truth)[np.asarray(MASK)]
    np.testing.assert_allclose(error - np.median(error), 0, atol=1e-3)
