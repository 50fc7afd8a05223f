"""Laws of the differences: divergence is minus the gradient's adjoint, and k-space knows the Laplacian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics import operators
from qsmjax.numerics.kspace import multiply_k

SHAPE = (7, 8, 9)
sizes = pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.5, 1.0, 3.0)])


@sizes
def test_divergence_is_minus_the_adjoint_of_gradient(voxel_size):
    volume = jax.random.normal(jax.random.key(0), SHAPE)
    vectors = jax.random.normal(jax.random.key(1), (3, *SHAPE))
    left = jnp.vdot(operators.gradient(volume, voxel_size), vectors)
    right = -jnp.vdot(volume, operators.divergence(vectors, voxel_size))
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-4)


@sizes
def test_symbol_is_that_of_minus_the_laplacian(voxel_size):
    volume = jax.random.normal(jax.random.key(2), SHAPE)
    expected = -operators.laplacian(volume, voxel_size)
    found = multiply_k(volume, operators.laplacian_k(SHAPE, voxel_size))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_gradient_of_a_ramp_is_its_slope_per_mm():
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, :, None], (4, 8, 4)) * 3
    np.testing.assert_allclose(operators.gradient(ramp, (1, 2, 1))[1][:, :-1], 1.5)


def test_a_root_has_no_slope_at_zero_and_hides_no_nan():
    values = jnp.asarray([4.0, 0.0, -1e-9, jnp.nan])
    np.testing.assert_array_equal(operators.root(values), [2, 0, 0, jnp.nan])
    np.testing.assert_array_equal(jax.grad(lambda v: jnp.sum(operators.root(v)))(values[:3]), [0.25, 0, 0])


def test_the_mean_over_a_sphere_has_a_gradient_in_the_voxel_size():
    slope = jax.grad(lambda size: jnp.sum(operators.sphere_mean_k((8, 8, 8), size, 2.0)))(jnp.asarray([1.0, 1.2, 2.0]))
    assert np.isfinite(slope).all() and np.abs(slope).min() > 0


def test_a_voxel_size_of_two_numbers_is_refused():
    with pytest.raises(ValueError, match="voxel_size must be three numbers"):
        operators.gradient(jnp.zeros((4, 4, 4)), (1, 1))
