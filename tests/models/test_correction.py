"""The network of the learned inversion: an untrained one changes nothing; and what a rehearsal tells of a deviation."""

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.models import correction, unrolled

RNG = np.random.default_rng(3)


def test_an_untrained_correction_changes_nothing():
    network = correction.Correction(width=(8, 8))
    features = jnp.asarray(RNG.normal(size=(2, 8, 8, 8, unrolled.FEATURES)), jnp.float32)
    numbers = jnp.zeros((2, unrolled.ABOUT))
    variables = jax.jit(network.init)(jax.random.key(0), features, numbers)
    change, spread = jax.jit(network.apply)(variables, features, numbers)
    assert network.stride == 4 and change.shape == spread.shape == (2, 8, 8, 8)
    assert not np.asarray(change).any() and np.isfinite(spread).all()


def test_folding_is_undone():
    maps = jnp.asarray(RNG.normal(size=(1, 4, 6, 8, 3)), jnp.float32)
    folded = correction.space_to_depth(maps)
    assert folded.shape == (1, 2, 3, 4, 24)
    np.testing.assert_array_equal(correction.depth_to_space(folded), maps)


def test_a_rehearsal_that_is_off_by_as_much_scales_the_deviation():
    """a = 0, b = c = 1: errors of three deviations triple it, wherever the map's mean lies."""
    mask = jnp.asarray(RNG.uniform(size=(20, 20, 20)) < 0.8)
    std = jnp.where(mask, jnp.asarray(RNG.uniform(0.003, 0.006, mask.shape), jnp.float32), 0)
    error = 0.5 + 2.5 * std * jnp.asarray(RNG.normal(size=mask.shape), jnp.float32)
    scale = jax.jit(correction.rehearsed)
    np.testing.assert_allclose(scale(std, mask, error, std, jnp.asarray([0.0, 1, 1])), 2.5 * std, rtol=0.06)
    np.testing.assert_allclose(scale(std, mask, error, std, jnp.asarray([0.7, 0, 1])), np.exp(0.7) * std, rtol=1e-4)
    even = np.asarray(scale(std, mask, error, std, jnp.asarray([0.0, 0, 0])))
    inside = np.asarray(mask)
    np.testing.assert_allclose(even[inside], np.exp(np.log(std[inside]).mean()), rtol=1e-4)
    assert not even[~inside].any()
    # in lesions it stays what it was, but for what the tissue below lost
    place = (10, 10, 10)
    lesion = scale(std.at[place].set(0.1), mask.at[place].set(True), error, std + 1e-3, jnp.asarray([0.0, 0, 0]))
    np.testing.assert_allclose(lesion[place], 0.1 * np.exp(-correction.LESION), rtol=0.01)
