"""The network of the learned inversion: an untrained one changes nothing."""

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
