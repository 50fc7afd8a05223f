"""Laws of the one-step inversions: what sources outside the mask make is not taken for the map."""

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.background.edge import MODEL_ERROR, model_variance
from qsmjax.evaluation.metrics import nrmse
from qsmjax.inversion import METHODS, taken
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

SHAPE = (32, 32, 32)
ONE_STEP = [name for name, method in METHODS.items() if taken(method) == "totalfield"]


def total_map():
    """Make two cubes in a ball of tissue, and a ball of air beside it whose field is 20 times theirs."""
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 10
    chi = np.zeros(SHAPE, np.float32)
    chi[(np.abs(at - np.reshape((3, 2, -2), (3, 1, 1, 1))) < 2.6).all(axis=0)] = 0.2
    chi[(np.abs(at - np.reshape((-4, -2, 3), (3, 1, 1, 1))) < 2.1).all(axis=0)] = -0.15
    air = np.where(np.linalg.norm(at - np.reshape((0, 4, 14), (3, 1, 1, 1)), axis=0) < 3, 9.4, 0)
    grid = geometry(SHAPE, (1, 1, 1))
    noise = 0.002 * np.random.default_rng(0).normal(size=SHAPE)
    local, background = (np.asarray(forward_field(source, grid, padding=1.0)) for source in (chi, air))
    assert np.std(background[mask]) > 5 * np.std(local[mask])
    magnitude = mask * (1 + chi)
    return field_map(local + background + noise, mask, grid, noise=0.002, magnitude=magnitude), chi


@pytest.mark.parametrize("name", ONE_STEP)
def test_the_map_comes_out_from_under_a_strong_background(name):
    total, truth = total_map()
    solution = METHODS[name](total)
    assert nrmse(solution.chi, truth, total.mask) < 25
    assert nrmse(METHODS["tv"](total).chi, truth, total.mask) > 300, "which a method for local fields can't"


def test_the_model_is_wrong_where_the_field_is_steep_and_near_the_edge():
    total, _ = total_map()
    slope = jnp.arange(SHAPE[0], dtype=jnp.float32)[:, None, None] * jnp.ones(SHAPE)
    variance = np.asarray(model_variance(slope, total.mask, total.geometry))
    assert not variance[~np.asarray(total.mask)].any() and variance[16, 16, 16] == 0
    near = variance[variance > 0]
    np.testing.assert_allclose(near, MODEL_ERROR**2, rtol=1e-5)
    assert len(near) > 1000
