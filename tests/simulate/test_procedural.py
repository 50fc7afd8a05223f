"""Drawn heads: reproducible, referenced, of the strength that scans have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics.dipole import dipole_kernel
from qsmjax.simulate.augment import augment, random_b0_dir, random_rotation, rotate, rotation
from qsmjax.simulate.procedural import random_chi

SHAPE = (32, 32, 32)
drawn = jax.jit(lambda key, size, lesions: random_chi(key, SHAPE, size, lesions=lesions))
draw = lambda key, size, lesions=0.35: drawn(key, size, lesions)
made = jax.jit(
    lambda key, chi, mask, b0_dir: augment(
        key, chi, mask, b0_dir=b0_dir, max_angle=None, scale=(1.5, 2.0), negate=1.0, padding=0.0
    )
)
turned = jax.jit(lambda matrix, volume, size: rotate(matrix, volume, voxel_size=size))


@pytest.mark.parametrize("size", [(2.0, 2.0, 2.0), (4.0, 5.0, 4.0)])
def test_a_map_is_finite_referenced_and_inside_its_mask(size):
    for seed in range(3):
        chi, mask = draw(jax.random.key(seed), jnp.asarray(size))
        assert bool(jnp.all(jnp.isfinite(chi))) and 0.03 < float(mask.mean()) < 0.95
        assert abs(float(chi[mask].mean())) < 1e-6
        assert 0.01 < float(chi[mask].std()) < 0.3
        # nothing but the band's ringing outside
        assert float(jnp.linalg.norm(jnp.where(mask, 0, chi))) < 0.5 * float(jnp.linalg.norm(chi))


def test_lesions_widen_the_range_of_a_map():
    for seed in range(3):
        healthy, ill = (np.ptp(draw(jax.random.key(seed), jnp.full(3, 2.0), chance)[0]) for chance in (0.0, 1.0))
        assert ill > 1.5 * healthy, (seed, healthy, ill)


def test_the_same_key_gives_the_same_head_and_another_another():
    size = jnp.full(3, 2.0)
    one, again, other = (draw(jax.random.key(seed), size)[0] for seed in (0, 0, 1))
    assert bool(jnp.array_equal(one, again)) and not bool(jnp.allclose(one, other))


def test_a_batch_equals_a_loop():
    keys = jax.random.split(jax.random.key(3), 2)
    chi, mask = jax.jit(jax.vmap(lambda key: random_chi(key, SHAPE, (2.0, 2.0, 2.0))))(keys)
    for i in range(2):
        one, one_mask = draw(keys[i], jnp.full(3, 2.0))
        np.testing.assert_allclose(chi[i], one, atol=2e-4)
        assert float(jnp.mean(mask[i] != one_mask)) < 1e-3


def test_augmented_pairs_obey_the_dipole():
    chi, mask = draw(jax.random.key(0), jnp.full(3, 2.0))
    b0_dir = jnp.asarray([0.3, -0.2, 0.9])
    field, scaled, same = made(jax.random.key(1), chi, mask, b0_dir)
    factor = float(jnp.sum(scaled * chi) / jnp.sum(chi**2))
    assert -2 <= factor <= -1.5 and bool(jnp.all(same == mask))
    expected = np.fft.irfftn(dipole_kernel(SHAPE, (1, 1, 1), b0_dir) * np.fft.rfftn(scaled), SHAPE, axes=(0, 1, 2))
    np.testing.assert_allclose(field, np.where(mask, expected, 0), atol=1e-5)


def test_noise_has_the_level_asked_for():
    chi, mask = jnp.zeros(SHAPE), jnp.ones(SHAPE, bool)
    field, *_ = augment(jax.random.key(0), chi, mask, max_angle=None, noise=(0.002, 0.002), padding=0.0)
    np.testing.assert_allclose(field.std(), 0.002, rtol=0.02)


def test_a_quarter_turn_is_a_permutation():
    volume = jax.random.normal(jax.random.key(0), SHAPE)
    matrix = rotation((0, 0, 1), jnp.pi / 2)
    # x goes to y: out(x, y) = volume(y, -x)
    expected = jnp.flip(jnp.swapaxes(volume, 0, 1), 0)
    np.testing.assert_allclose(turned(matrix, volume, jnp.ones(3))[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_a_key_of_any_kind_is_not_taken_for_a_rotation(make):
    with pytest.raises(ValueError, match="matrix must be 3x3, .* random_rotation"):
        rotate(make(3), jnp.ones((6, 6, 6)))


def test_turning_there_and_back_keeps_a_smooth_object_on_an_uneven_grid():
    size = np.asarray([1.0, 1.5, 0.8])
    r = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(SHAPE, size)], indexing="ij")
    blob = np.exp(-((r[0] - 3) ** 2 + r[1] ** 2 + (r[2] + 2) ** 2) / 32)
    matrix = random_rotation(jax.random.key(2))
    there = turned(matrix, blob, jnp.asarray(size))
    centre = matrix @ np.asarray([3.0, 0.0, -2.0])
    expected = np.exp(-sum((a - c) ** 2 for a, c in zip(r, centre)) / 32)
    np.testing.assert_allclose(there, expected, atol=0.03)


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (1, 0, 0), (0.3, -0.2, 0.9)])
def test_rotations_are_rotations_and_stay_within_their_angle(b0_dir):
    along = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    for seed in range(5):
        matrix = np.asarray(random_rotation(jax.random.key(seed), 0.5, b0_dir))
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(matrix) > 0
        direction = random_b0_dir(jax.random.key(seed), 0.5, b0_dir)
        assert np.arccos(np.clip(direction @ along, -1, 1)) <= 0.5 + 1e-3
