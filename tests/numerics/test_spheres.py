"""Spherical means: what must hold for every grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from qsmjax.numerics.spheres import erode, sphere_kernel, spherical_mean

SHAPE = (24, 27, 22)
GRIDS = [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)]


def coordinates(voxel_size):
    axes = [(np.arange(n) - n // 2) * d for n, d in zip(SHAPE, voxel_size)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


@pytest.mark.parametrize("voxel_size", GRIDS)
@pytest.mark.parametrize("radius", [0.1, 3.0, 5.5])
def test_kernel_is_a_ball_of_unit_mean(voxel_size, radius):
    kernel = sphere_kernel(SHAPE, voxel_size, radius)
    np.testing.assert_allclose(kernel[0, 0, 0], 1, rtol=1e-5)
    point = jnp.zeros(SHAPE).at[12, 13, 11].set(1)
    ball = np.asarray(spherical_mean(point, kernel))
    inside = np.linalg.norm(coordinates(voxel_size), axis=0) <= radius + np.linalg.norm(voxel_size) / 2
    assert np.abs(ball[~inside]).max(initial=0) < 1e-5 and ball.min() > -1e-5
    if radius > 1:
        volume = 4 / 3 * np.pi * radius**3 / np.prod(voxel_size)
        # the voxels at the surface reach a little farther than the ball itself
        assert volume < 1 / ball.max() < 1.12 * volume


@pytest.mark.parametrize("voxel_size", GRIDS)
def test_harmonic_functions_keep_their_value(voxel_size):
    x, y, z = coordinates(voxel_size)
    middle = (slice(9, -9),) * 3
    kernel = sphere_kernel(SHAPE, voxel_size, 4.0)
    for harmonic in (0.3 + 0.1 * x - 0.2 * y + 0.05 * z, x * y - 2 * y * z, (2 * z**2 - x**2 - y**2) / 10):
        mean = spherical_mean(jnp.asarray(harmonic, jnp.float32), kernel)
        np.testing.assert_allclose(mean[middle], harmonic[middle], atol=0.02 * np.abs(harmonic).max())


def test_erosion_keeps_what_a_ball_fits_around():
    mask = np.linalg.norm(coordinates((1, 1, 1)), axis=0) < 9.5
    kernel = sphere_kernel(SHAPE, (1, 1, 1), 3.0)
    eroded = np.asarray(erode(jnp.asarray(mask), kernel, (1, 1, 1), 3.0))
    depth = ndimage.distance_transform_edt(mask)
    assert not eroded[depth < 2.9].any() and eroded[depth > 4.3].all()
    identity = sphere_kernel(SHAPE, (1, 1, 1), 0.0)
    np.testing.assert_array_equal(erode(jnp.asarray(mask), identity, (1, 1, 1), 0.0), mask)


def test_radius_and_voxel_size_may_be_traced():
    mean = lambda radius, size: jnp.sum(sphere_kernel((8, 8, 8), size, radius) ** 2)
    slopes = jax.jit(jax.grad(mean, (0, 1)))(2.2, jnp.asarray([1.0, 1.0, 1.5]))
    assert all(np.isfinite(s).all() for s in slopes) and slopes[0] != 0
