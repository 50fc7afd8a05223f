"""Gaussian smoothing, one axis after the other.

    out_i = Σ_j g(i - j) a_j / Σ_j g(i - j),    g(d) = exp(-d² / 2 sigma²)

The sum runs over the voxels that exist, so that a constant stays constant up to the faces.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from qsmjax.numerics.arrays import VectorLike, as_vector


def gaussian_smooth(volume: Inexact[Array, "*batch x y z"], sigma: VectorLike) -> Inexact[Array, "*batch x y z"]:
    """Smooth real or complex volumes over the last three axes.

    Args:
      volume: other axes may lead.
      sigma: standard deviation along x, y, z [voxels], not negative; zero leaves an axis as it is; may be traced.
    """
    for axis, width in zip((-3, -2, -1), as_vector("sigma", sigma)):
        rows = _weights(volume.shape[axis], width).astype(volume.dtype)
        moved = jnp.matmul(rows, jnp.moveaxis(volume, axis, -2), precision=jax.lax.Precision.HIGHEST)
        volume = jnp.moveaxis(moved, -2, axis)
    return volume


def _weights(n: int, sigma: Float[Array, ""]) -> Float[Array, "n n"]:
    distance = jnp.arange(n, dtype=jnp.float32)[:, None] - jnp.arange(n)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 1e-3)) ** 2)
    return weights / jnp.sum(weights, axis=1, keepdims=True)
