"""Sums and means over a mask, accumulated axis by axis so that float32 keeps its digits over 1e7 voxels.

All functions reduce the last three axes and keep those that lead. An empty mask has the mean NaN.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Volume

Scalar = Float[Array, "*batch"]


def total(volume: Volume) -> Scalar:
    """Sum over x, y, z: rows first, then planes, so that no running sum grows over more than one axis' length."""
    return volume.sum(-1).sum(-1).sum(-1)


def count(mask: Mask) -> Scalar:
    """Count the voxels of a mask, as a float."""
    return total(mask.astype(jnp.float32))


def mean(volume: Volume, mask: Mask) -> Scalar:
    """Average over a mask."""
    return total(jnp.where(mask, volume, 0)) / count(mask)


def centre(volume: Volume, mask: Mask) -> Volume:
    """Subtract the mean over a mask, and set what lies outside to zero."""
    return jnp.where(mask, volume - mean(volume, mask)[..., None, None, None], 0)


def std(volume: Volume, mask: Mask) -> Scalar:
    """Return the standard deviation over a mask (of the population, not of a sample)."""
    return jnp.sqrt(total(centre(volume, mask) ** 2) / count(mask))


def slope(x: Volume, y: Volume, mask: Mask) -> Scalar:
    """Return the slope of the least-squares line y = slope · x + intercept over a mask; NaN where x is constant."""
    x = centre(x, mask)
    return total(x * centre(y, mask)) / total(x**2)
