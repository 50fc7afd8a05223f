"""From coil images to the fitted field everything has a gradient, though whole turns are found on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.mask import magnitude_mask, reduce_mask
from qsmjax.phase.offsets import coil_offsets, combine_coils, remove_bipolar
from qsmjax.phase.unwrap import unwrap
from qsmjax.physics.units import radians_per_ppm

SHAPE = (12, 11, 10)
B0, TE = 3.0, (0.004, 0.011, 0.020, 0.026)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
BALL = x**2 + y**2 + z**2 < 0.9
FIELD = 0.5 * x**2 - 0.4 * z + 0.05 * np.sin(4 * x * y)
WEIGHTS = jax.random.normal(jax.random.key(0), SHAPE)
SEEN = jnp.asarray(x + y < 1.1)
"""Where there is signal: a corner of the ball has none."""


def echoes(noise=4.0):
    t = np.asarray(TE, np.float32)[:, None, None, None]
    c = np.asarray(radians_per_ppm(B0, t))
    clean = 100 * np.exp(-30 * t + 1j * (1 + y + c * FIELD))
    # drawn without an outlier: the level that clips one counts as constant in gradients
    return clean + noise * jax.random.normal(jax.random.key(3), clean.shape, jnp.complex64)


def coils():
    sensitivity = np.stack([(1 + 0.3 * k * y) * np.exp(1j * (k + (k - 1) * x)) for k in range(3)])
    return echoes()[:, None] * jnp.asarray(sensitivity, jnp.complex64)


def assert_gradient(loss, at, step, rtol):
    """Hold jax.grad of a real number against central differences, along a random direction."""
    towards = jax.random.normal(jax.random.key(2), at.shape, at.dtype)
    numeric = (loss(at + step * towards) - loss(at - step * towards)) / (2 * step)
    slope = jax.grad(loss)(at)
    assert np.isfinite(slope).all()
    # JAX gives the conjugate of the steepest ascent
    np.testing.assert_allclose(jnp.sum(slope * towards).real, numeric, rtol=rtol)


@pytest.mark.parametrize("of", ["field", "noise"])
def test_the_fit_has_the_gradient_of_its_signal(of):
    assert_gradient(lambda s: jnp.vdot(WEIGHTS, getattr(fit_echoes(s, TE, B0, BALL), of)), echoes(), 0.05, 0.01)


def test_the_fit_has_the_gradient_of_the_field_strength_forwards_too():
    signal = echoes()
    loss = lambda b0: jnp.vdot(WEIGHTS, fit_echoes(signal, TE, b0, BALL).field)
    assert_gradient(loss, jnp.float32(B0), 0.01, 0.01)
    forwards = jax.jvp(loss, (jnp.float32(B0),), (jnp.float32(1),))[1]
    np.testing.assert_allclose(forwards, jax.grad(loss)(jnp.float32(B0)), rtol=1e-4)


def test_coils_have_a_gradient_through_their_offsets_to_the_field():
    def loss(signal):
        signal = signal * SEEN
        combined = combine_coils(signal, coil_offsets(signal, TE, BALL, smoothing=2.0))
        return jnp.vdot(WEIGHTS, fit_echoes(combined, TE, B0, BALL, initial_phase=0.0).field)

    assert_gradient(loss, coils(), 0.05, 0.02)


def test_a_bipolar_readout_has_a_gradient_where_signal_lacks_too():
    assert_gradient(lambda s: remove_bipolar(s * SEEN, TE, BALL).constant, echoes(), 0.02, 0.01)
    one_slice = lambda s: remove_bipolar(s[..., 5:6], TE, BALL[..., 5:6]).constant
    assert_gradient(one_slice, echoes(), 0.02, 0.01)


def test_an_unwrapped_phase_has_the_gradient_of_the_wrapped_one():
    phase = jnp.angle(echoes()[2])
    slope = jax.grad(lambda p: jnp.vdot(WEIGHTS, unwrap(p, BALL)))(phase)
    np.testing.assert_array_equal(slope, WEIGHTS)


def test_masks_are_found_beneath_a_gradient():
    def loss(scale):
        image = scale * jnp.abs(echoes(0)[0]) * BALL
        mask = reduce_mask(magnitude_mask(image), image / 1e4).mask
        return jnp.sum(jnp.where(mask, image, 0))

    assert float(jax.grad(loss)(1.0)) == pytest.approx(float(loss(1.0)), rel=1e-5)


@pytest.mark.parametrize(
    "found",
    [
        lambda s: fit_echoes(s, TE, B0, BALL).field,
        lambda s: coil_offsets(s[:, None], TE, BALL),
        lambda s: remove_bipolar(s, TE, BALL).signal,
        lambda s: reduce_mask(jnp.abs(s[0]) > 1).mask,
    ],
)
def test_what_looks_at_values_says_that_it_cannot_be_compiled(found):
    with pytest.raises(ValueError, match=r"must have values .* outside jax\.jit and jax\.vmap"):
        jax.jit(found)(echoes())
