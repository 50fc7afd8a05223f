"""The echo fit reaches the Cramér-Rao bound, says what noise is left, and is differentiable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.phase.echoes import echoes_from_phase, fit_echoes
from qsmjax.phase.signal_model import fit_signal, noise_level
from qsmjax.physics.units import radians_per_ppm

SHAPE = (18, 16, 14)
B0 = 3.0
EVEN, UNEVEN, TWO, ONE = (0.004, 0.012, 0.020, 0.028), (0.0037, 0.0111, 0.0137, 0.0243), (0.006, 0.012), (0.02,)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
BALL = x**2 + y**2 + z**2 < 0.9
FIELD = (0.5 * x**2 - 0.4 * z + 0.05 * np.sin(4 * x * y)).astype(np.float32)
R2STAR = 20 + 30 * (np.abs(x) < 0.3)
AMPLITUDE = 100 * (1 + 0.5 * (y > 0))
OFFSET = 1 + y + 0.5 * x
REPEATS = 20


def columns(te):
    return np.asarray(te, np.float32)[:, None, None, None]


def signal(te, noise=0.0, seed=0):
    c = np.asarray(radians_per_ppm(B0, columns(te)))
    offset = OFFSET if len(te) > 1 else 0
    clean = AMPLITUDE * np.exp(-R2STAR * columns(te)) * np.exp(1j * (offset + c * FIELD))
    rng = np.random.default_rng(seed)
    return (clean + noise * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape))).astype(np.complex64)


def bound(te, noise, known=False):
    """The least standard deviation that any unbiased estimate of the field can have [ppm]."""
    c, power = np.asarray(radians_per_ppm(B0, columns(te))), np.abs(signal(te)) ** 2
    middle = 0 if known else np.sum(power * c, axis=0) / np.sum(power, axis=0)
    return noise / np.sqrt(np.sum(power * (c - middle) ** 2, axis=0))


def less_the_median(error):
    """A turn common to all voxels cannot be seen by evenly spaced echoes."""
    return error - np.median(error[..., BALL], axis=-1)[..., None, None, None]


@pytest.mark.parametrize("te", [EVEN, UNEVEN])
def test_the_fit_reaches_the_cramer_rao_bound_and_knows_its_noise(te):
    noise = 5.0
    fits = [fit_echoes(signal(te, noise, seed), te, B0, BALL) for seed in range(REPEATS)]
    error = less_the_median(np.stack([fit.field for fit in fits]) - FIELD)[:, BALL]
    ratio = np.sqrt(np.mean(error**2, axis=0)) / bound(te, noise)[BALL]
    assert np.mean(ratio < 1.5) > 0.95
    spread = np.sqrt(np.mean(np.var(error, axis=0, ddof=1)))
    told = np.sqrt(np.mean(np.stack([fit.noise for fit in fits])[:, BALL] ** 2))
    assert told == pytest.approx(spread, rel=0.1)
    np.testing.assert_allclose(np.mean([fit.noise for fit in fits], axis=0)[BALL], bound(te, noise)[BALL], rtol=0.2)


@pytest.mark.parametrize("te", [EVEN, UNEVEN])
def test_a_phase_that_bends_over_echo_time_is_not_taken_for_noise(te):
    bends = np.random.default_rng(3).normal(size=SHAPE) * (columns(te) / te[-1]) ** 2
    bent, straight = (
        fit_echoes((signal(te, 5.0) * np.exp(1j * much * bends)).astype(np.complex64), te, B0, BALL)
        for much in (0.6, 0)
    )
    assert np.median(bent.noise[BALL] / straight.noise[BALL]) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("te", [TWO, ONE])
def test_without_residuals_the_noise_comes_from_the_finest_detail(te):
    fit = fit_echoes(signal(te, 3.0), te, B0, BALL)
    assert np.median(np.asarray(fit.noise)[BALL] / bound(te, 3.0, known=len(te) == 1)[BALL]) == pytest.approx(
        1, rel=0.2
    )
    error = less_the_median(np.asarray(fit.field) - FIELD)[BALL]
    assert np.std(error / bound(te, 3.0, known=len(te) == 1)[BALL]) < 1.2


@pytest.mark.parametrize("te", [TWO, ONE])
def test_tissue_that_differs_from_voxel_to_voxel_is_not_taken_for_noise(te):
    rng = np.random.default_rng(1)
    texture = np.where(z > -0.5, 1 + 0.2 * rng.normal(size=SHAPE).clip(-2, 2), 1)
    noisy = signal(te, 2.0) * texture
    told = noise_level(jnp.asarray(noisy, jnp.complex64), jnp.zeros(noisy.shape), jnp.asarray(BALL), parameters=len(te))
    assert np.median(told) == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize("interpolated", [False, True])
def test_what_the_model_misses_is_not_taken_for_noise_and_interpolated_noise_is_not_missed(interpolated):
    rng = np.random.default_rng(2)
    off = rng.normal(size=(4, *SHAPE))
    if interpolated:
        off = np.repeat(np.repeat(off[:, ::2, ::2], 2, axis=1), 2, axis=2)[:, : SHAPE[0], : SHAPE[1]]
        off = (off + np.roll(off, 1, 1) + np.roll(off, 1, 2) + np.roll(off, (1, 1), (1, 2))) / 4
        off = off / off[:, BALL].std()
    else:
        off = off + 1.5 * np.cos(3 * x + 2 * y) * columns((1, -1, 1, -1))
    told = noise_level(
        jnp.ones((4, *SHAPE), jnp.complex64),
        jnp.asarray(off * np.sqrt(0.5), jnp.float32),
        jnp.asarray(BALL),
        parameters=2,
    )
    assert np.median(np.asarray(told)[BALL]) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("te", [EVEN, UNEVEN])
def test_a_clean_signal_gives_back_what_made_it(te):
    fit = fit_echoes(signal(te), te, B0, BALL)
    np.testing.assert_allclose(fit.field[BALL], FIELD[BALL], atol=2e-4)
    np.testing.assert_allclose(np.exp(1j * fit.initial_phase)[BALL], np.exp(1j * OFFSET)[BALL], atol=1e-3)
    np.testing.assert_allclose(fit.r2star[BALL], R2STAR[BALL], rtol=1e-2)
    np.testing.assert_allclose(fit.amplitude[BALL], AMPLITUDE[BALL], rtol=1e-2)
    assert fit.relative_residual.max() < 0.01
    assert not np.any(np.asarray(fit.field)[~BALL])


def test_a_known_initial_phase_lowers_the_noise():
    free, known = (fit_echoes(signal(EVEN, 3.0), EVEN, B0, BALL, initial_phase=p) for p in (None, OFFSET))
    error = [np.std((np.asarray(fit.field) - FIELD)[BALL]) for fit in (free, known)]
    assert error[1] < 0.8 * error[0]
    assert np.mean(known.noise[BALL]) == pytest.approx(np.mean(bound(EVEN, 3.0, known=True)[BALL]), rel=0.1)


def test_phase_alone_is_enough():
    fit = fit_echoes(echoes_from_phase(np.angle(signal(EVEN, 1.0))), EVEN, B0, BALL)
    assert np.std((np.asarray(fit.field) - FIELD)[BALL]) < 0.01
    one = fit_echoes(echoes_from_phase(np.angle(signal(ONE))[0]), ONE, B0, BALL)
    np.testing.assert_allclose(less_the_median(np.asarray(one.field) - FIELD)[BALL], 0, atol=1e-4)


@pytest.mark.parametrize("te", [ONE, TWO])
def test_phase_without_a_magnitude_still_tells_its_noise(te):
    flat = signal(te) / np.abs(signal(te))
    rng = np.random.default_rng(1)
    noisy = flat + 0.02 * (rng.normal(size=flat.shape) + 1j * rng.normal(size=flat.shape))
    told = np.asarray(fit_echoes(echoes_from_phase(np.angle(noisy)), te, B0, BALL).noise)[BALL]
    c = np.asarray(radians_per_ppm(B0, np.asarray(te)))
    seen = 0.02 / c[0] if te is ONE else 0.02 * np.sqrt(2) / (c[1] - c[0])
    assert 0.6 * seen < np.mean(told) < 1.5 * seen


def test_nan_outside_the_mask_is_nothing_and_inside_refused():
    broken = signal(EVEN)
    broken[:, ~BALL] = np.nan
    expected = fit_echoes(np.where(BALL, signal(EVEN), 0), EVEN, B0, BALL)
    np.testing.assert_array_equal(fit_echoes(broken, EVEN, B0, BALL).field, expected.field)
    broken[:, 8, 8, 8] = np.nan
    with pytest.raises(ValueError, match="signal must be finite inside the mask, got 4 values"):
        fit_echoes(broken, EVEN, B0, BALL)


@pytest.mark.parametrize("te", [UNEVEN, TWO])
def test_nothing_on_the_way_is_nan(te):
    # a ball in its mask: what lies outside has no value, which must not be NaN either
    few = (slice(None), slice(4, 14), slice(3, 13), slice(2, 12))
    with jax.debug_nans(True):
        fit = fit_echoes((signal(te, 3.0) * BALL)[few], te, B0, BALL[few[1:]])
    assert np.isfinite(fit.noise).all()


def test_voxels_without_signal_are_finite_and_untrusted():
    empty = signal(EVEN, 1.0)
    empty[:, 8, 8, 8] = 0
    fit = fit_echoes(empty, EVEN, B0, BALL)
    assert all(np.all(np.isfinite(value)) for value in vars(fit).values())
    assert fit.relative_residual[8, 8, 8] == 1
    assert fit.noise[8, 8, 8] == fit.noise.max()


def test_echoes_that_do_not_decay_as_modelled_show_in_the_residual():
    wrong = signal(EVEN)
    wrong[1, 9, 8, 7] *= -1
    residual = np.asarray(fit_echoes(wrong, EVEN, B0, BALL).relative_residual)
    assert residual[9, 8, 7] > 0.3
    assert residual[BALL].mean() < 0.05


def test_the_fit_is_differentiable():
    measured, start = jnp.asarray(signal(EVEN, 1.0)), jnp.asarray(FIELD)
    weights, direction = (jax.random.normal(jax.random.key(i), s) for i, s in ((0, SHAPE), (1, (4, *SHAPE))))
    te = jnp.asarray(EVEN)

    @jax.jit
    @jax.value_and_grad
    def loss(phase):
        # one voxel without signal must not spoil the gradient
        echoes = (jnp.abs(measured) * jnp.exp(1j * phase)).at[:, 0, 0, 0].set(0)
        fit = fit_signal(echoes, te, B0, start)
        return jnp.vdot(weights, fit.field) + 100 * jnp.mean(fit.noise)

    phase, step = jnp.angle(measured), 1e-2
    numeric = (loss(phase + step * direction)[0] - loss(phase - step * direction)[0]) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(loss(phase)[1], direction), numeric, rtol=0.05)


@pytest.mark.parametrize(
    ("echoes", "te", "message"),
    [
        (np.ones((4, 5, 5, 5), np.float32), EVEN, "must be complex"),
        (np.ones((4, 5), np.complex64), EVEN, "echo x y z"),
        (np.ones((3, 5, 5, 5), np.complex64), EVEN, "one time an echo"),
    ],
)
def test_what_does_not_fit_is_refused(echoes, te, message):
    with pytest.raises(ValueError, match=message):
        fit_echoes(echoes, te, B0)


def test_phase_and_magnitude_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"magnitude\.shape must equal"):
        echoes_from_phase(np.ones((2, 4, 4, 4)), np.ones((4, 4, 4)))
