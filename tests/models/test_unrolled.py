"""What the learned inversion begins with and what it looks at."""

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.models import unrolled
from qsmjax.numerics.kspace import multiply_k
from qsmjax.physics.geometry import geometry

SHAPE = (48, 48, 48)
RNG = np.random.default_rng(3)
AT = np.stack(np.meshgrid(*[np.arange(48) - 23.5] * 3, indexing="ij"))
MASK = jnp.asarray(np.linalg.norm(AT, axis=0) < 11)
CHI = np.where((np.abs(AT) < 5).all(axis=0), 0.1, 0) * np.asarray(MASK)
GRID = geometry(SHAPE, (1, 1, 1.5), (0.3, 0.1, 0.95))
NOISE = jnp.full(SHAPE, 2e-4)
CLEAN = multiply_k(jnp.asarray(CHI, jnp.float32), inversion_kernel(GRID))
FIELD = jnp.where(MASK, CLEAN + 2e-4 * jnp.asarray(RNG.normal(size=SHAPE), jnp.float32), 0)


def weighed(field, noise, magnitude=None) -> unrolled.Scan:
    """Return what is known of a field on the grid."""
    return jax.jit(unrolled.weigh)(field, MASK, GRID, noise, magnitude)


def error(chi) -> float:
    """Return the deviation of a map from the truth, over the truth's: its mean is not known."""
    inside = np.asarray(MASK)
    return float((np.asarray(chi) - CHI)[inside].std() / CHI[inside].std())


def test_sparing_the_edges_found_brings_the_map_nearer_to_the_truth():
    begun = unrolled.start(weighed(FIELD, NOISE))
    assert error(begun.sharp) < 0.9 * error(begun.plain) < 0.2
    assert not np.asarray(begun.sharp)[~np.asarray(MASK)].any()


def test_edges_of_the_signal_are_spared_and_a_flat_one_says_nothing():
    begin = lambda field, noise, magnitude=None: unrolled.start(weighed(field, noise, magnitude))
    signal, noise = jnp.asarray(1 + 3 * (CHI > 0), jnp.float32), 40 * NOISE
    field = jnp.where(MASK, CLEAN + 40 * (FIELD - CLEAN), 0)
    flat, told = begin(field, noise), begin(field, noise, signal)
    assert error(told.plain) < 0.9 * error(flat.plain)
    np.testing.assert_allclose(begin(field, noise, jnp.ones(SHAPE)).plain, flat.plain, atol=1e-4)


def test_the_residual_of_the_truth_is_the_noise():
    chi = jnp.asarray(CHI, jnp.float32)
    field = jnp.where(MASK, CLEAN + 10 * (FIELD - CLEAN), 0)
    seen = np.asarray(unrolled.look(unrolled.Start(chi, chi), weighed(field, 10 * NOISE)))
    assert seen.shape == (*SHAPE, unrolled.FEATURES)
    inside = np.asarray(MASK)
    np.testing.assert_allclose(unrolled.UNIT * np.sinh(seen[..., 0]), CHI, atol=1e-6)
    assert abs(2 * seen[inside][:, 5].std() - 1) < 0.1, "in units of the noise"
    assert not seen[~inside][:, 1:].any(), "nothing is known outside the mask"
    assert (seen[inside][:, 7] > 0).all(), "the last volume tells the inside from the outside"


def test_the_data_allow_what_lies_within_their_noise_alone():
    chi, change = jnp.asarray(CHI, jnp.float32), jnp.asarray(0.05 * RNG.normal(size=SHAPE), jnp.float32)
    begun = unrolled.Start(chi, chi)
    allowed = lambda step, noise: float(unrolled.share(begun, step, weighed(FIELD, noise)))
    assert allowed(change, 100 * NOISE) == 1 and allowed(0 * change, NOISE) == 1
    part = allowed(100 * change, NOISE)
    off = lambda t: jnp.where(
        MASK, multiply_k(jnp.where(MASK, chi + 100 * t * change, 0), inversion_kernel(GRID)) - FIELD, 0
    )
    # up to a constant
    size = lambda volume: float(jnp.std(volume[MASK]))
    level = max(2e-4, unrolled.LEAST_NOISE * size(FIELD))
    assert 0 < part < 0.01 and abs(size(off(part)) / (size(off(0)) + level) - 1) < 1e-3


def test_geometry_in_numbers_follows_the_axes():
    size, b0_dir = jnp.asarray([1.0, 1.0, 2.0]), jnp.asarray([0.0, 0.6, 0.8])
    numbers = unrolled.about(size, b0_dir)
    assert numbers.shape == (unrolled.ABOUT,)
    np.testing.assert_array_equal(numbers, unrolled.about(size, -b0_dir), "B0 has no sign")
    assert not np.allclose(numbers, unrolled.about(size, jnp.asarray([0.0, -0.6, 0.8])))


def test_the_gradient_of_what_is_looked_at_is_that_of_the_steps_taken():
    """Five steps do not reach a solution: a gradient that took them for one was off fivefold."""
    chi = jnp.asarray(CHI, jnp.float32)
    step = lambda field: jnp.sum(unrolled.look(unrolled.Start(chi, chi), weighed(field, NOISE))[..., 2] * AT[0])
    along = jnp.where(MASK, jnp.asarray(RNG.normal(size=SHAPE), jnp.float32), 0)
    backward = jnp.vdot(jax.jit(jax.grad(step))(FIELD), along)
    _, forward = jax.jvp(jax.jit(step), (FIELD,), (along,))
    np.testing.assert_allclose(backward, forward, rtol=1e-2)
