"""Quantiles over a mask, by counting.

    q = the least value with Σ_mask [value ≤ q] ≥ quantile · Σ_mask 1

What lies outside a mask needs no value that stands for nothing, such as NaN, which debuggers stop at.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Volume

BISECTIONS = 24
"""Halvings of the range in which a quantile is sought: to 1e-7 of the largest value."""


def masked_quantile(volume: Volume, mask: Mask, quantile: ArrayLike) -> Float[Array, ""]:
    """Return a quantile of non-negative values over a mask, by bisection; zero for an empty mask.

    Counting `BISECTIONS` times is faster than sorting millions of values once, on every platform. In gradients the
    result counts as a constant.
    """
    volume = jax.lax.stop_gradient(jnp.where(mask, volume, jnp.inf))
    wanted = quantile * jnp.sum(mask)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(volume <= middle) >= wanted
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    largest = jnp.max(jnp.where(mask, volume, 0))
    return jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(largest), largest))[1]
