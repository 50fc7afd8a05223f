"""What is made inside the step: turned, scaled, with the field that the dipole makes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.samples import make_samples, random_factor, rotation, turn

CONFIG = with_settings(TrainConfig(), ["patch=12", "batch=4", "chi_scale=0.5,2", "negate=0.5", "noise=0.001,0.002"])
SIZE = CONFIG.voxel_size


@pytest.fixture(scope="module")
def batch():
    chi = 0.05 * jax.random.normal(jax.random.key(0), (4, 12, 12, 12))
    near = jnp.linspace(-1, 1, 12) ** 2
    mask = near[:, None, None] + near[:, None] + near < 0.8
    return {"index": jnp.arange(4), "chi": jnp.where(mask, chi, 0), "mask": jnp.broadcast_to(mask, chi.shape)}


@pytest.fixture(scope="module")
def make():
    return jax.jit(lambda step, batch: make_samples(CONFIG, step, batch))


def test_a_sample_does_not_depend_on_who_shares_the_batch(batch, make):
    whole = make(3, batch)
    half = make(3, jax.tree.map(lambda a: a[2:], batch))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(half)):
        np.testing.assert_array_equal(a[2:], b)


def test_steps_and_indices_draw_differently(batch, make):
    same = {**batch, "chi": jnp.broadcast_to(batch["chi"][0], batch["chi"].shape)}
    one, two = make(0, same), make(1, same)
    assert len({float(jnp.sum(jnp.abs(f))) for f in (*one.field, *two.field)}) == 8


def test_the_field_is_the_dipole_s(batch):
    config = dataclasses.replace(CONFIG, noise=(0.0, 0.0))
    samples = jax.jit(lambda b: make_samples(config, jnp.int32(0), b))(batch)
    for field, chi, mask in zip(samples.field, samples.chi, samples.mask):
        expected = jnp.where(mask, forward_field(chi, geometry(chi.shape)), 0)
        # turning blurs the mask's edge: what of chi falls outside it still makes field
        assert jnp.linalg.norm(field - expected) < 0.15 * jnp.linalg.norm(expected)


def test_a_measured_field_is_scaled_with_its_map_and_not_turned(batch, make):
    measured = {**batch, "field": 2 * batch["chi"]}
    samples = make(0, measured)
    np.testing.assert_allclose(samples.field, 2 * samples.chi, rtol=1e-5)
    np.testing.assert_array_equal(samples.mask, batch["mask"])


def test_factors_lie_in_their_range_on_both_sides():
    factors = np.asarray(jax.vmap(lambda k: random_factor(CONFIG, k))(jax.random.split(jax.random.key(0), 64)))
    assert np.all((np.abs(factors) >= 0.5) & (np.abs(factors) <= 2))
    assert 16 < np.sum(factors < 0) < 48


def test_a_turn_by_nothing_changes_nothing(batch):
    chi, mask = turn(jax.random.key(0), batch["chi"][0], batch["mask"][0], SIZE, 0.0)
    np.testing.assert_allclose(chi, batch["chi"][0], atol=1e-6)
    np.testing.assert_array_equal(mask, batch["mask"][0])


def test_a_rotation_keeps_its_axis_and_tilts_b0_by_its_angle():
    matrix = rotation(jnp.float32(0.7), jnp.float32(0.4))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    axis = jnp.asarray([np.cos(0.7), np.sin(0.7), 0])
    np.testing.assert_allclose(matrix @ axis, axis, atol=1e-6)
    np.testing.assert_allclose(matrix[2, 2], np.cos(0.4), atol=1e-6)


def test_a_turned_ball_stays_a_ball():
    near = jnp.arange(16) - 7.5
    distance = jnp.sqrt(near[:, None, None] ** 2 + near[:, None] ** 2 + near**2)
    chi = jnp.clip(6 - distance, 0, 1)
    turned, _ = turn(jax.random.key(1), chi, chi > 0.5, SIZE, 30.0)
    assert jnp.linalg.norm(turned - chi) < 0.1 * jnp.linalg.norm(chi)
