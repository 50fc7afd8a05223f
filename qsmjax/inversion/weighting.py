"""How far to trust the field, voxel by voxel and as a whole: data weights, the noise level, and the weight it asks for.

The derivation of the automatic weight and its measurements are in docs/inversions.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Shape, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import laplacian_k
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.geometry import Geometry

BALANCE = 0.65
"""Automatic weight over the standard deviation of the noise's own dual field: best on heads (docs/inversions.md)."""

CONE = 0.1
"""|D| below which the field of any chi is counted as nothing, when the noise is read off the field."""

LARGEST_WEIGHT = 10.0
"""Most that a voxel counts beyond the average: a noise map of zero does not take all the say."""


def data_weights(mask: Mask, noise: Volume | None, magnitude: Volume | None) -> Volume:
    """Weigh the field by what is known of its noise: mask · mean noise / noise.

    The noise of a phase goes as 1 / magnitude, which serves where no noise map is given. With neither, the mask.
    """
    if noise is not None:
        ratio = masked_mean(noise, mask) / jnp.maximum(noise, jnp.finfo(jnp.float32).tiny)
    elif magnitude is not None:
        ratio = magnitude / jnp.maximum(masked_mean(magnitude, mask), jnp.finfo(jnp.float32).tiny)
    else:
        return mask.astype(jnp.float32)
    return jnp.where(mask, jnp.clip(ratio, 0, LARGEST_WEIGHT), 0)


def noise_level(field: Volume, mask: Mask, geometry: Geometry, noise: Volume | None = None) -> Float[Array, ""]:
    """Return the standard deviation of the field's noise [ppm]: the noise map's mean, or read off the field itself.

    No chi makes a field in the cone |D| < `CONE`, so what the field holds there, at frequencies high enough to be
    free of the mask's edge, is noise.

    The median absolute value of the band-passed field in the mask, over that of white noise of unit deviation.
    """
    if noise is not None:
        return masked_mean(noise, mask)
    dipole = dipole_kernel(geometry.shape, geometry.voxel_size, geometry.b0_dir)
    high = laplacian_k(geometry.shape) / 12
    band = jnp.exp(-((dipole / CONE) ** 2)) * high**2
    passed = jnp.abs(multiply_k(jnp.where(mask, field, 0), band))
    gain = jnp.sqrt(mean_over_spectrum(band**2, geometry.shape))
    return masked_median(passed, mask) / (0.6745 * gain)


def auto_weight(level: Float[Array, ""], geometry: Geometry) -> Float[Array, ""]:
    """Return the total-variation weight that noise of a level asks for.

        weight = BALANCE · level · √(mean over k of D² / 3G),    G the symbol of -div grad

    Args:
      level: `noise_level` [ppm].
      geometry: voxel size and B0 direction.

    Returns:
      The weight [ppm mm].
    """
    dipole = dipole_kernel(geometry.shape, geometry.voxel_size, geometry.b0_dir)
    gradient = laplacian_k(geometry.shape, geometry.voxel_size)
    dual = jnp.where(gradient > 0, dipole**2 / jnp.where(gradient > 0, gradient, 1), 0) / 3
    return BALANCE * level * jnp.sqrt(mean_over_spectrum(dual, geometry.shape))


def masked_mean(volume: Volume, mask: Mask) -> Float[Array, ""]:
    """Return the mean over a mask."""
    return jnp.sum(jnp.where(mask, volume, 0)) / jnp.maximum(jnp.sum(mask), 1)


def masked_median(volume: Volume, mask: Mask) -> Float[Array, ""]:
    """Return the median over a mask."""
    return jnp.nanmedian(jnp.where(mask, volume, jnp.nan))


def mean_over_spectrum(values: Volume, shape: Shape) -> Float[Array, ""]:
    """Return the mean over the full spectrum of an even quantity that is given on half of it."""
    once = jnp.arange(values.shape[-1])
    paired = (once > 0) & (2 * once != shape[2])
    return jnp.sum(values * jnp.where(paired, 2, 1)) / (shape[0] * shape[1] * shape[2])
