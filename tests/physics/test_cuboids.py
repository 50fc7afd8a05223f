"""The field of cuboids: against analytic ones, and harmonic where there is no source."""

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics.operators import laplacian
from qsmjax.physics.cuboids import cuboid, cuboid_field, cuboid_kernel
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.background import at_centres

TILTED = np.asarray([0.36, 0.48, 0.8])


def places(shape, size=(1.0, 1.0, 1.0)):
    axes = [(np.arange(n) - n // 2) * d for n, d in zip(shape, size)]
    return jnp.stack(jnp.meshgrid(*map(jnp.asarray, axes), indexing="ij"), -1)


def test_a_cuboid_is_a_dipole_from_afar_and_a_cube_s_field_vanishes_at_its_centre():
    away = jnp.asarray([[9.0, 2.0, 4.0], [-3.0, 11.0, 1.0], [4.0, -5.0, 9.0]])
    size, r = np.asarray([1.0, 1.0, 1.0]), np.linalg.norm(away, axis=-1)
    expected = (3 * (away @ TILTED / r) ** 2 - 1) / (4 * np.pi * r**3)
    np.testing.assert_allclose(cuboid(away, size, TILTED), expected, atol=1e-3 * np.abs(expected).max())
    assert abs(cuboid(jnp.zeros((1, 3)), size, TILTED)[0]) < 1e-6


@pytest.mark.parametrize("size, inside", [((1, 1, 1000), 1 / 3), ((1000, 1000, 1), -2 / 3), ((1000, 1, 1000), 1 / 3)])
def test_a_needle_and_a_plate_have_their_demagnetisation(size, inside):
    field = cuboid(jnp.zeros((1, 3)), np.asarray(size, float), np.asarray([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(field, inside, atol=2e-3)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (1.0, 1.5, 0.8)])
def test_the_kernel_gives_back_the_cuboid_near_and_far(size):
    shape = (40, 36, 32)
    chi = np.zeros(shape, np.float32)
    chi[20, 18, 16], chi[24, 15, 20] = 1.0, -0.5
    made = cuboid_field(chi, geometry(shape, size, TILTED), padding=2.0)
    first = places(shape, size)
    second = first - jnp.asarray(size) * jnp.asarray((4, -3, 4))
    expected = cuboid(first, np.asarray(size), TILTED) - 0.5 * cuboid(second, np.asarray(size), TILTED)
    np.testing.assert_allclose(made, expected, atol=1e-3 * np.abs(expected).max())
    far = np.linalg.norm(first, axis=-1) > 10 * max(size)
    np.testing.assert_allclose(np.asarray(made)[far], expected[far], atol=0.03 * np.abs(expected[far]).max())


def test_b0_may_be_of_any_length():
    once, twice = (cuboid_kernel((16, 16, 16), (1.0, 1.0, 1.2), b0) for b0 in ((0.0, 0.3, 1.0), (0.0, 0.6, 2.0)))
    np.testing.assert_allclose(once, twice, atol=1e-6)


@pytest.mark.parametrize("size", [(0.8, 0.8, 3.0), pytest.param((0.5, 3.0, 0.5), marks=pytest.mark.slow)])
def test_the_kernel_of_long_voxels_has_no_seam_where_the_near_field_ends(size):
    shape = (96, 96, 96)
    chi = np.zeros(shape, np.float32)
    chi[48, 48, 48] = 1.0
    made = np.asarray(cuboid_field(chi, geometry(shape, size, TILTED), padding=1.0))
    at = places(shape, size)
    expected, r = np.asarray(cuboid(at, np.asarray(size), TILTED)), np.linalg.norm(at, axis=-1)
    shell = (r > 2 * max(size)) & (r < 5 * max(size)) & (r > 0)
    assert np.linalg.norm(made[shell] - expected[shell]) < 0.05 * np.linalg.norm(expected[shell])


def test_a_ball_of_cuboids_is_a_sphere_outside():
    shape, radius = (40, 40, 40), 8.0
    at = places(shape)
    r = np.linalg.norm(at, axis=-1)
    made = np.asarray(cuboid_field((r < radius).astype(np.float32), geometry(shape, b0_dir=TILTED), padding=1.0))
    volume = np.sum(r < radius)
    outside = (r > radius + 2) & (r < 18)
    at, r = at[outside], r[outside]
    expected = volume / (4 * np.pi * r**3) * (3 * (at @ TILTED / r) ** 2 - 1)
    assert np.linalg.norm(made[outside] - expected) < 0.02 * np.linalg.norm(expected)


def test_the_field_is_harmonic_where_there_is_no_source():
    """A cavity in rough material: the discrete Laplacian inside is that of a smooth field, not of one that rings."""
    shape = (32, 32, 32)
    r = np.linalg.norm(places(shape), axis=-1)
    rough = np.random.default_rng(0).random(shape)
    chi = np.where((r > 9) & (r < 12), rough, 0).astype(np.float32)
    grid = geometry(shape, b0_dir=TILTED)
    made, ringing = (f(chi, grid) for f in (cuboid_field, forward_field))
    curvature = lambda field: np.std(np.asarray(laplacian(field, grid.voxel_size))[r < 5])
    assert curvature(made) < 0.05 * made[r < 5].std()
    assert curvature(made) < 0.05 * curvature(ringing)


@pytest.mark.parametrize("factor", [(2, 3, 4), (1, 5, 2)])
def test_a_fine_grid_is_read_at_the_centres_of_the_voxels(factor):
    shape = (3, 4, 5)
    fine = [(np.arange(n * f) + 0.5) / f - 0.5 for n, f in zip(shape, factor)]
    ramp = fine[0][:, None, None] + 10 * fine[1][:, None] - fine[2]
    x, y, z = np.meshgrid(*map(np.arange, shape), indexing="ij")
    np.testing.assert_allclose(at_centres(ramp, factor), x + 10 * y - z, atol=1e-12)
