"""Offsets of coils and of a bipolar readout are found, and the field is what remains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.offsets import coil_offsets, combine_coils, remove_bipolar
from qsmjax.physics.units import radians_per_ppm

SHAPE = (18, 16, 14)
B0, TE = 3.0, (0.004, 0.011, 0.020, 0.026)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
BALL = x**2 + y**2 + z**2 < 0.9
FIELD = 0.4 * x**2 - 0.3 * z + 0.05 * np.sin(4 * x * y)
PHASE = np.asarray(radians_per_ppm(B0, np.asarray(TE, np.float32)))[:, None, None, None] * FIELD
RNG = np.random.default_rng(0)


def noise(shape, level):
    return level * (RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


def test_coils_add_up_in_phase_and_keep_the_field():
    coils = 6
    angles = 2 * np.pi * np.arange(coils) / coils
    sensitivity = np.stack(
        [np.exp(-((x - np.cos(a)) ** 2) - (y - np.sin(a)) ** 2 + 1j * (2 * a + x * np.cos(a) + y)) for a in angles]
    )
    clean = sensitivity * np.exp(1j * PHASE)[:, None]
    measured = clean + noise(clean.shape, 0.02)
    offsets = coil_offsets(measured, TE, BALL, smoothing=1.5)
    combined = np.asarray(combine_coils(measured, offsets))
    # nothing cancels: the combined magnitude is the root sum of squares
    np.testing.assert_allclose(np.abs(combined[0])[BALL], np.sqrt(np.sum(np.abs(clean[0]) ** 2, 0))[BALL], rtol=0.15)
    fit = fit_echoes(combined, TE, B0, BALL)
    error = (np.asarray(fit.field) - FIELD)[BALL]
    assert np.std(error) < 0.005
    apart = np.angle(np.sum(combined[0][BALL] * np.exp(-1j * PHASE[0][BALL])) / np.abs(combined[0][BALL]).sum())
    assert np.std(np.angle(combined[0][BALL] * np.exp(-1j * (PHASE[0][BALL] + apart)))) < 0.1


def test_a_bipolar_readout_is_undone():
    constant, slopes = 0.7, (0.35, 0.02, -0.1)
    places = [np.arange(n) - (n - 1) / 2 for n in SHAPE]
    plane = constant + sum(s * p for s, p in zip(slopes, np.meshgrid(*places, indexing="ij")))
    clean = np.exp(1j * (PHASE + 0.3 + y)) * np.exp(-30 * np.asarray(TE))[:, None, None, None]
    shifted = clean * np.exp(1j * np.asarray([0, 1, 0, 1])[:, None, None, None] * plane)
    fixed = remove_bipolar(shifted + noise(clean.shape, 0.02), TE, BALL)
    np.testing.assert_allclose(fixed.slopes, slopes, atol=2e-3)
    np.testing.assert_allclose(fixed.constant, constant, atol=0.02)
    before, after = (fit_echoes(s, TE, B0, BALL) for s in (shifted, fixed.signal))
    error = [np.std((np.asarray(fit.field) - FIELD)[BALL]) for fit in (before, after)]
    assert error[1] < 0.005 < error[0]
    untouched = remove_bipolar(clean, TE, BALL)
    np.testing.assert_allclose(untouched.signal[:, BALL], clean[:, BALL], atol=2e-3)


def test_whole_turns_of_the_field_are_no_bipolar_phase():
    radians = np.asarray(radians_per_ppm(B0, np.asarray(TE, np.float32)))[:, None, None, None]
    far = np.exp(1j * radians * (0.2 * FIELD + 0.5))
    fixed = remove_bipolar(far, TE, BALL)
    assert abs(float(fixed.constant)) < 1e-3 and np.abs(fixed.slopes).max() < 1e-3


def test_a_voxel_without_signal_has_a_gradient_of_zero():
    echoes = jnp.ones((2, 3, 4, 4, 4), jnp.complex64).at[:, :, 0, 0, 0].set(0)
    loss = lambda scale: jnp.sum(jnp.abs(combine_coils(scale * echoes, jnp.zeros((3, 4, 4, 4)))))
    assert np.isfinite(jax.grad(loss)(1.0))


def test_too_few_echoes_are_refused():
    with pytest.raises(ValueError, match="three echoes"):
        remove_bipolar(np.ones((2, 4, 4, 4), np.complex64), (0.01, 0.02))
    with pytest.raises(ValueError, match="at least two echoes"):
        coil_offsets(np.ones((1, 2, 4, 4, 4), np.complex64), (0.01,))
    with pytest.raises(ValueError, match="echo coil x y z"):
        coil_offsets(np.ones((2, 4, 4, 4), np.complex64), (0.01, 0.02))
    with pytest.raises(ValueError, match=r"offsets\.shape must be"):
        combine_coils(jnp.ones((2, 3, 4, 4, 4), jnp.complex64), np.ones((4, 4, 4)))
