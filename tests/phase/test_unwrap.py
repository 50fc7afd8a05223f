"""Unwrapping is exact up to whole turns, consistent over echoes, and the Laplacian one differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.phase.unwrap import unwrap, unwrap_echoes, unwrap_laplacian, wrap

SHAPE = (20, 18, 16)
TURN = 2 * np.pi
laplacian_jit = jax.jit(unwrap_laplacian)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
BOWL = 9 * (x**2 + 0.7 * y**2 - 0.5 * z) + 2 * np.sin(4 * x * y)
BALL = x**2 + y**2 + z**2 < 0.9
EVEN, UNEVEN, TWO = (0.004, 0.010, 0.016, 0.022), (0.0037, 0.0111, 0.0137, 0.0243, 0.0311), (0.005, 0.012)


def wrapped(phase):
    return np.angle(np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize("mask", [None, BALL])
def test_a_smooth_phase_comes_back_up_to_a_constant_turn(mask):
    inside = np.ones(SHAPE, bool) if mask is None else mask
    error = (np.asarray(unwrap(wrapped(BOWL), mask)) - BOWL)[inside] / TURN
    np.testing.assert_allclose(error, np.round(error[0]), atol=1e-4)


@pytest.mark.parametrize("shape", [(17, 11, 1), (1, 9, 8), (12, 1, 1)])
def test_thin_volumes_are_unwrapped_too(shape):
    truth = np.cumsum(np.full(shape, 1.5, np.float32), axis=int(np.argmax(shape)))
    error = (np.asarray(unwrap(wrapped(truth))) - truth) / TURN
    np.testing.assert_allclose(error, np.round(error.ravel()[0]), atol=1e-4)


def test_regions_that_do_not_touch_end_up_close():
    mask = BALL & (np.abs(x) > 0.15)
    unwrapped = np.asarray(unwrap(wrapped(0.2 * BOWL + 2), mask))
    assert abs(np.median(unwrapped[mask & (x > 0)]) - np.median(unwrapped[mask & (x < 0)])) < np.pi


@pytest.mark.parametrize("te", [EVEN, UNEVEN, TWO, (0.02,)])
@pytest.mark.parametrize("frequency", [0.0, 30.0])
def test_echoes_stay_on_one_line_in_time(te, frequency):
    """Every echo's phase less offset + frequency TE is one whole number of turns, linear in TE."""
    offset, hz = 1.5 * y + 0.5, 25 * BOWL / 9 + frequency
    truth = np.stack([offset + TURN * hz * t for t in te])
    noise = np.random.default_rng(0).normal(0, 0.1, truth.shape)
    unwrapped = np.asarray(unwrap_echoes(wrapped(truth + noise), te, BALL))
    turns = ((unwrapped - truth - noise) / TURN)[:, BALL]
    np.testing.assert_allclose(turns, np.round(turns[:, :1]) + np.zeros_like(turns), atol=1e-3)
    per_second = np.diff(np.round(turns[:, 0])) / np.diff(te)
    np.testing.assert_allclose(per_second, per_second[:1].repeat(len(per_second)), atol=1e-6)


def test_uneven_echo_times_tell_the_frequency_beyond_half_a_turn():
    te, hz = UNEVEN, 25 * BOWL / 9 + 250.0
    truth = np.stack([TURN * hz * t for t in te])
    unwrapped = np.asarray(unwrap_echoes(wrapped(truth), te, BALL))
    slope = (unwrapped[-1] - unwrapped[0])[BALL] / (TURN * (te[-1] - te[0]))
    np.testing.assert_allclose(slope, hz[BALL], atol=0.1)


def test_voxels_outside_come_back_as_they_were():
    phase = wrapped(np.stack([BOWL, 2 * BOWL]))
    np.testing.assert_array_equal(np.asarray(unwrap_echoes(phase, TWO, BALL))[:, ~BALL], phase[:, ~BALL])


def test_the_laplacian_agrees_where_no_loop_is_open():
    error = np.asarray(laplacian_jit(wrapped(BOWL), (1.0, 1.0, 2.0))) - BOWL
    np.testing.assert_allclose(error / TURN, np.round(error.ravel()[0] / TURN), atol=1e-3)


def test_the_laplacian_is_differentiable_and_maps_over_echoes():
    phases = jnp.asarray(wrapped(np.stack([BOWL, 0.5 * BOWL])))
    together, apart = laplacian_jit(phases), jnp.stack([laplacian_jit(p) for p in phases])
    np.testing.assert_allclose(together, apart, atol=1e-4)
    weights, direction = (jax.random.normal(jax.random.key(i), SHAPE) for i in (0, 1))
    loss = jax.jit(lambda p: jnp.vdot(weights, unwrap_laplacian(p)))
    slope = jnp.vdot(jax.jit(jax.grad(loss))(phases[1]), direction)
    step = 1e-2
    numeric = (loss(phases[1] + step * direction) - loss(phases[1] - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, numeric, rtol=0.02)


def test_wrap_keeps_gradients():
    assert float(wrap(jnp.float32(7.0))) == pytest.approx(7 - TURN, abs=1e-6)
    assert float(jax.grad(wrap)(jnp.float32(7.0))) == 1


@pytest.mark.parametrize(
    ("te", "message"),
    [((0.01,), "one time an echo"), ((0.02, 0.01), "increase"), ((5.0, 10.0), "in seconds"), ((0.0, 0.01), "positive")],
)
def test_echo_times_that_cannot_be_are_refused(te, message):
    with pytest.raises(ValueError, match=message):
        unwrap_echoes(np.zeros((2, 4, 4, 4), np.float32), te)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one volume"):
        unwrap(np.zeros((2, 4, 4, 4), np.float32))
    with pytest.raises(ValueError, match="echo x y z"):
        unwrap_echoes(np.zeros((4, 4, 4), np.float32), (0.01,))
    with pytest.raises(ValueError, match=r"magnitude\.shape"):
        unwrap_echoes(np.zeros((2, 4, 4, 4)), TWO, magnitude=np.ones((4, 4, 4)))


def test_a_mask_in_many_parts_is_moved_part_by_part():
    mask = np.zeros(BALL.shape, bool)
    mask[::3, ::3, ::3] = mask[1::3, ::3, ::3] = True
    phase = wrapped(0.2 * BOWL + 2)
    unwrapped = np.asarray(unwrap(phase, mask))
    np.testing.assert_array_equal(unwrapped[~mask], phase[~mask].astype(np.float32))
    assert np.ptp(unwrapped[mask]) < TURN + np.ptp(0.2 * BOWL[mask])
    np.testing.assert_allclose(np.cos(unwrapped - phase), 1, atol=1e-5)


def test_nan_outside_the_mask_comes_back_and_inside_is_refused():
    phase = np.where(BALL, wrapped(BOWL), np.nan)
    unwrapped = np.asarray(unwrap(phase, BALL))
    assert np.isnan(unwrapped[~BALL]).all() and np.isfinite(unwrapped[BALL]).all()
    phase[tuple(np.argwhere(BALL)[0])] = np.nan
    with pytest.raises(ValueError, match="phase must be finite inside the mask, got 1 values"):
        unwrap(phase, BALL)
