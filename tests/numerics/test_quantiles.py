"""A quantile by counting is the sorted one, and needs no value that stands for nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics.quantiles import masked_quantile

SHAPE = (20, 18, 16)
VALUES = jnp.asarray(np.random.default_rng(5).random(SHAPE), jnp.float32)
MASK = jnp.asarray(np.linalg.norm(np.indices(SHAPE) - np.reshape([10, 9, 8], (3, 1, 1, 1)), axis=0) < 8)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.97])
def test_a_quantile_by_counting_is_the_sorted_one(quantile):
    expected = np.quantile(np.asarray(VALUES)[np.asarray(MASK)], quantile)
    np.testing.assert_allclose(masked_quantile(VALUES, MASK, quantile), expected, atol=3e-3)
    outside = jnp.where(MASK, VALUES, jnp.nan)
    assert masked_quantile(outside, MASK, quantile) == masked_quantile(VALUES, MASK, quantile)


def test_an_empty_mask_has_the_quantile_zero():
    assert masked_quantile(VALUES, jnp.zeros_like(MASK), 0.5) == 0
