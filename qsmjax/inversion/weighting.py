"""How far to trust the field, voxel by voxel and as a whole: data weights, the noise level, and the weight it asks for.

The derivation of the automatic weight and its measurements are in docs/inversions.md.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.numerics.arrays import Mask, Shape, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.operators import centred, laplacian, laplacian_k, masked_mean, root
from qsmjax.numerics.quantiles import masked_quantile
from qsmjax.physics.geometry import Geometry

BALANCE = 1.1
"""Automatic weight over the standard deviation of the noise's own dual field: best on heads (docs/inversions.md)."""

CONE = 0.05
"""|D| below which the field of any chi is counted as nothing, when the noise is read off the field."""

SHARPENED = 3
"""Laplacians of the field before its noise is read off: each takes a layer of voxels off the mask."""

LEAST_INSIDE = 500
"""Voxels that must be left for it; of a smaller mask the whole is used, rim and all."""

LEAST_NOISE = 0.02
"""Least noise that a field is taken to have, over its size: what voxels and a mask's edge make of its model."""

LARGEST_WEIGHT = 10.0
"""Most that a voxel counts beyond the average: a noise map of zero does not take all the say."""


def data_weights(mask: Mask, noise: Volume | None, magnitude: Volume | None) -> Volume:
    """Weigh the field by what is known of its noise: mask · level / noise, level the noise's harmonic mean.

    The weights' mean is one. The noise of a phase goes as 1 / magnitude, which serves where no noise map is given.
    With neither, the mask. A voxel of no noise is taken as one that was not measured.
    """
    if noise is not None:
        trust = jnp.where(noise > 0, 1 / jnp.where(noise > 0, noise, 1), 0)
    elif magnitude is not None:
        trust = jnp.maximum(magnitude, 0)
    else:
        return mask.astype(jnp.float32)
    mean = masked_mean(trust, mask)
    return jnp.where(mask, jnp.minimum(trust / jnp.where(mean > 0, mean, 1), LARGEST_WEIGHT), 0)


def noise_level(field: Volume, mask: Mask, geometry: Geometry, noise: Volume | None = None) -> Float[Array, ""]:
    """Return the standard deviation of the field's noise [ppm]: the noise map's harmonic mean, or off the field itself.

    No chi makes a field in the cone |D| < `CONE`, so what the field holds there, at high frequencies, is noise. A field
    that is cut off at the mask's edge has high frequencies in every direction: so Laplacians are taken first, only
    where they meet no voxel outside the mask, and what is cut off then is little more than noise.

    The median absolute value of what is left, over that of white noise of unit deviation in the same mask; at least
    `LEAST_NOISE` of the field.
    """
    if noise is not None:
        trust = masked_mean(jnp.where(noise > 0, 1 / jnp.where(noise > 0, noise, 1), 0), mask)
        return jnp.where(trust > 0, 1 / jnp.where(trust > 0, trust, 1), 0)
    sharp, inside = jnp.where(mask, field, 0), mask
    for _ in range(SHARPENED):
        sharp = laplacian(sharp) / 12
        inside = inside & (laplacian(inside.astype(jnp.float32)) == 0)
    inside = jnp.where(jnp.sum(inside) >= LEAST_INSIDE, inside, mask)
    cone = jnp.exp(-((inversion_kernel(geometry) / CONE) ** 2))
    passed = jnp.abs(multiply_k(jnp.where(inside, sharp, 0), cone))
    # the variance of white noise: the kernel's square around each voxel, as far as it lies inside
    band = cone * (laplacian_k(geometry.shape) / 12) ** SHARPENED
    kernel = irfft3(band.astype(jnp.complex64), geometry.shape)
    overlap = jnp.abs(rfft3(inside.astype(jnp.float32))) ** 2 * rfft3(kernel**2).real
    variance = mean_over_spectrum(overlap, geometry.shape) / jnp.maximum(jnp.sum(inside), 1)
    found = masked_quantile(passed, inside, 0.5) / (0.6745 * jnp.sqrt(jnp.maximum(variance, 1e-12)))
    return jnp.maximum(found, LEAST_NOISE * root(masked_mean(centred(field, mask) ** 2, mask)))


def auto_weight(
    level: Float[Array, ""], field: Volume, mask: Mask, geometry: Geometry, balance: float = BALANCE
) -> Float[Array, ""]:
    """Return the total-variation weight that noise of a level asks for.

        weight = balance · level · √(level / signal) · √(mean over k of D² / 3G)

    signal is the standard deviation of the field less its noise, G the symbol of -div grad.

    Args:
      level: `noise_level` [ppm].
      field: local field [ppm].
      mask: where it is known.
      geometry: voxel size and B0 direction.
      balance: constant of the method.

    Returns:
      The weight [ppm mm].
    """
    dipole = inversion_kernel(geometry)
    gradient = laplacian_k(geometry.shape, geometry.voxel_size)
    dual = jnp.where(gradient > 0, dipole**2 / jnp.where(gradient > 0, gradient, 1), 0) / 3
    total = masked_mean(centred(field, mask) ** 2, mask)
    signal = root(jnp.maximum(total - level**2, 0.01 * total))
    ratio = level / jnp.maximum(signal, 1e-12)
    return balance * level * root(ratio * mean_over_spectrum(dual, geometry.shape))


def mean_over_spectrum(values: Volume, shape: Shape) -> Float[Array, ""]:
    """Return the mean over the full spectrum of an even quantity that is given on half of it."""
    once = jnp.arange(values.shape[-1])
    paired = (once > 0) & (2 * once != shape[2])
    return jnp.sum(values * jnp.where(paired, 2, 1)) / (shape[0] * shape[1] * shape[2])
