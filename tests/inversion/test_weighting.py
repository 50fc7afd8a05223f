"""The noise level, the trust in voxels and the weight they ask for, and the proximal map of the complex signal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion import data_terms
from qsmjax.inversion.weighting import LARGEST_WEIGHT, auto_weight, data_weights, noise_level
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry

SHAPE = (32, 30, 28)
RNG = np.random.default_rng(5)
AT = np.stack(np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij"))
MASK = jnp.asarray(np.linalg.norm(AT, axis=0) < 13)
FIELD = jnp.asarray(forward_field(np.where((np.abs(AT) < 4).all(axis=0), 0.2, 0), geometry(SHAPE)))


def test_weights_are_one_on_average_and_a_voxel_of_no_noise_has_none():
    noise = jnp.asarray(0.001 * (1 + RNG.random(SHAPE)), jnp.float32).at[16, 15, 14].set(0)
    weights = np.asarray(data_weights(MASK, noise, None))
    assert abs(weights[np.asarray(MASK)].mean() - 1) < 1e-5 and weights[16, 15, 14] == 0
    ratio = (weights * noise)[np.asarray(MASK & (noise > 0))]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    certain = data_weights(MASK, noise.at[16, 15, 14].set(1e-9), None)
    assert certain.max() == LARGEST_WEIGHT


@pytest.mark.parametrize("noise", [0.0005, 0.004])
def test_the_noise_is_read_off_the_field(noise):
    grid = geometry(SHAPE)
    noisy = FIELD + jnp.asarray(noise * RNG.normal(size=SHAPE), jnp.float32)
    assert abs(float(noise_level(noisy, MASK, grid)) / noise - 1) < 0.15
    assert abs(float(noise_level(noisy, MASK, grid, jnp.full(SHAPE, noise))) / noise - 1) < 1e-5


def test_the_weight_follows_the_noise_and_has_no_scale_of_its_own():
    grid, wide = geometry(SHAPE), geometry(SHAPE, (2, 2, 2))
    weight = lambda level, scale=1.0, where=grid: float(auto_weight(jnp.float32(level), scale * FIELD, MASK, where))
    assert abs(weight(0.002, 2.0) / weight(0.001) / 2 - 1) < 1e-4, "ppm or ppb"
    assert abs(weight(0.001, 1.0, wide) / weight(0.001) / 2 - 1) < 1e-4, "the gradient is per mm"
    assert abs(weight(4e-4) / weight(1e-4) / 8 - 1) < 0.01, "the noise to the power of 3/2"


def test_the_noise_alone_makes_a_dual_field_as_large_as_the_weight_says():
    """√(mean D²/3G) is the deviation of p = ∇ (∇ᵀ∇)⁻¹ D η for noise η of one, component by component."""
    k = np.meshgrid(*[np.fft.fftfreq(n) for n in SHAPE], indexing="ij")
    k2 = sum(a**2 for a in k)
    dipole = np.where(k2 > 0, 1 / 3 - k[2] ** 2 / np.where(k2 > 0, k2, 1), 0)
    symbol = sum(2 - 2 * np.cos(2 * np.pi * a) for a in k)
    potential = np.fft.ifftn(dipole / np.where(symbol > 0, symbol, 1) * np.fft.fftn(RNG.normal(size=SHAPE))).real
    dual = np.sqrt(np.mean([np.square(np.roll(potential, -1, a) - potential) for a in range(3)]))
    level, signal = 1e-5, float(jnp.sqrt(jnp.mean(FIELD[MASK] ** 2)))
    weight = float(auto_weight(jnp.float32(level), FIELD, MASK, geometry(SHAPE), 1.0))
    np.testing.assert_allclose(weight / level / np.sqrt(level / signal), dual, rtol=0.05)


def test_the_complex_signal_pulls_to_where_its_cost_is_least():
    """argmin W² (1 - cos r d) / r² + penalty/2 (d - s)², from a quarter turn on of constant pull, found by trying."""
    radians, penalty = 16.0, data_terms.DATA_PENALTY
    asked = jnp.linspace(-2.5, 2.5, 21) / radians
    weights = jnp.asarray([0.0, 0.5, 1.2])
    shape = (3, 21, 1)
    term = data_terms.nonlinear(jnp.zeros(shape), weights[:, None, None] * jnp.ones(shape), radians)
    made = np.asarray(term(jnp.broadcast_to(asked[:, None], shape)))[..., 0]
    tried = np.linspace(-3, 3, 40001) / radians
    for row, weight in zip(made, np.asarray(weights)):
        turn = np.abs(radians * tried)
        apart = np.where(turn < np.pi / 2, 1 - np.cos(turn), 1 + turn - np.pi / 2)
        cost = weight**2 * apart / radians**2
        cost = cost + penalty / 2 * (tried - np.asarray(asked)[:, None]) ** 2
        near = np.abs(radians * np.asarray(asked)) < 1.6
        np.testing.assert_allclose(row[near], tried[cost.argmin(axis=1)][near], atol=0.02 / radians)


def test_the_curvature_is_the_sine_s_to_a_quarter_turn_and_has_a_gradient():
    off = jnp.linspace(0, np.pi / 2, 50).reshape(50, 1, 1)
    np.testing.assert_allclose(data_terms.curvature(off**2), jnp.sinc(off / jnp.pi), atol=2e-6)
    np.testing.assert_allclose(data_terms.curvature((4 + off) ** 2), 1 / (4 + off), rtol=1e-5)
    summed = jax.grad(lambda squared: jnp.sum(data_terms.curvature(squared)))
    np.testing.assert_allclose(summed(jnp.zeros((1, 1, 1))), -1 / 6, rtol=1e-5)
    np.testing.assert_allclose(summed(jnp.full((1, 1, 1), 16.0)), -1 / 128, rtol=1e-5)
