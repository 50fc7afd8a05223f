"""What is made inside the step: turned, scaled, with the field that the dipole makes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.samples import make_samples, random_factor

CONFIG = with_settings(TrainConfig(), ["patch=12", "batch=4", "chi_scale=0.5,2", "negate=0.5", "noise=0.001,0.002"])


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
    config = dataclasses.replace(CONFIG, noise=(0.0, 0.0), rotation=0.0)
    samples = jax.jit(lambda b: make_samples(config, jnp.int32(0), b))(batch)
    expected = jnp.where(samples.mask, forward_field(samples.chi, geometry((12, 12, 12))), 0)
    np.testing.assert_allclose(samples.field, expected, atol=1e-6)


def test_a_measured_field_is_scaled_with_its_map_and_not_turned(batch, make):
    measured = {**batch, "field": 2 * batch["chi"]}
    samples = make(0, measured)
    np.testing.assert_allclose(samples.field, 2 * samples.chi, rtol=1e-5)
    np.testing.assert_array_equal(samples.mask, batch["mask"])


def test_of_a_mixed_batch_each_sample_goes_its_own_way(batch, make):
    kinds = np.asarray([True, False, True, False])
    both = {**batch, "field": 2 * batch["chi"] * kinds[:, None, None, None], "measured": jnp.asarray(kinds)}
    mixed, scans, drawn = make(0, both), make(0, {**batch, "field": 2 * batch["chi"]}), make(0, batch)
    for one, two, three in zip(*map(jax.tree.leaves, (mixed, scans, drawn))):
        np.testing.assert_allclose(one[kinds], two[kinds], atol=1e-6)
        np.testing.assert_allclose(one[~kinds], three[~kinds], atol=1e-6)


def test_factors_lie_in_their_range_on_both_sides():
    factors = np.asarray(jax.vmap(lambda k: random_factor(CONFIG, k))(jax.random.split(jax.random.key(0), 64)))
    assert np.all((np.abs(factors) >= 0.5) & (np.abs(factors) <= 2))
    assert 16 < np.sum(factors < 0) < 48


def test_noise_has_a_deviation_of_its_range(batch, make):
    silent = {**batch, "chi": jnp.zeros_like(batch["chi"])}
    samples = [make(step, silent) for step in range(8)]
    found = [np.asarray(field)[mask].std() for s in samples for field, mask in zip(s.field, np.asarray(s.mask))]
    # some 700 voxels tell a deviation to 3 %
    assert 0.9 * 0.001 < min(found) < 1.2e-3 and 1.8e-3 < max(found) < 1.1 * 0.002


def test_maps_are_turned_by_up_to_the_angle_that_is_set(batch, make):
    """A map that rises along B0, whose slope tells how far it was turned."""
    at = np.indices((12, 12, 12)) - 5.5
    rising = {**batch, "chi": jnp.broadcast_to(jnp.float32(at[2]), batch["chi"].shape)}
    rising["mask"] = jnp.ones_like(batch["mask"])
    deep = np.linalg.norm(at, axis=0) < 4
    angles = []
    for step in range(8):
        for chi in np.asarray(make(step, rising).chi):
            slope = np.linalg.lstsq(at[:, deep].T, chi[deep], rcond=None)[0]
            angles.append(np.degrees(np.arccos(abs(slope[2]) / np.linalg.norm(slope))))
    assert 25 < max(angles) < CONFIG.rotation + 0.1
