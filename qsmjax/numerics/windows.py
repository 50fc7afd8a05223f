"""Averages over a few voxels: separable windows, each axis a product with a banded matrix; and what is compared there.

A window of a few voxels along an axis of n is an n x n matrix with its weights beside the diagonal, and what
happens at the faces folded in. The product is fast on every platform and cancels nothing, so that float32 is good to
its last digits.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np

from qsmjax.numerics.arrays import Volume

AXES = (-3, -2, -1)
Edge = Literal["constant", "symmetric", "absent"]
"""Beyond a face: zeros, the volume mirrored, or nothing, the other weights growing to make up for it."""


def box_mean(volume: Volume, size: int) -> Volume:
    """Average over a cube of `size` voxels (odd) around every voxel, or what of it lies in the volume."""
    for axis in AXES:
        volume = correlate(volume, [1.0] * size, axis, "absent")
    return volume


def gaussian(volume: Volume, sigma: float, radius: int) -> Volume:
    """Average under a Gaussian cut off at `radius` voxels; beyond the volume there are zeros."""
    for axis in AXES:
        volume = correlate(volume, gaussian_weights(sigma, radius), axis, "constant")
    return volume


def laplacian_of_gaussian(volume: Volume, sigma: float, radius: int) -> Volume:
    """Filter with the Laplacian of a Gaussian, Σ_i ∂²_i G, in voxels; the volume is mirrored at its faces."""
    smooth = gaussian_weights(sigma, radius)
    r = np.arange(-radius, radius + 1)
    bend = smooth * (r**2 / sigma**4 - 1 / sigma**2)
    along = lambda v, weights, axis: correlate(v, weights, axis, "symmetric")
    z, zz = along(volume, smooth, -1), along(volume, bend, -1)
    y, yy = along(z, smooth, -2), along(z, bend, -2) + along(zz, smooth, -2)
    return along(y, bend, -3) + along(yy, smooth, -3)


def similarity(a: Volume, b: Volume, average: Callable[[Volume], Volume], c1: float, c2: float) -> Volume:
    """Return the structural similarity about each voxel.

        (2 μ_a μ_b + c₁)(2 σ_ab + c₂) / ((μ_a² + μ_b² + c₁)(σ_a² + σ_b² + c₂))

    References:
      Wang et al., IEEE Trans. Image Process. 13:600 (2004), doi:10.1109/TIP.2003.819861.
    """
    mean_a, mean_b = average(a), average(b)
    covariance = average(a * b) - mean_a * mean_b
    # rounding must not make them negative where a map is flat and far from zero
    variances = jnp.maximum(average(a * a) - mean_a**2 + average(b * b) - mean_b**2, 0)
    return (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))


def xsim_map(chi: Volume, truth: Volume) -> Volume:
    """Return the similarity of susceptibility maps [ppm] about each voxel, 1 for equal ones.

    c₁ = 0.01² and c₂ = 0.001², over cubes of 5x5x5 voxels that end at the volume's faces.

    References:
      Milovic et al., Magn. Reson. Med. 93:411 (2025), doi:10.1002/mrm.30271.
    """
    return similarity(chi, truth, lambda volume: box_mean(volume, 5), 0.01**2, 0.001**2)


def gaussian_weights(sigma: float, radius: int) -> np.ndarray:
    """Sample a Gaussian at -radius..radius voxels, with a sum of one."""
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return weights / weights.sum()


def correlate(volume: Volume, weights: Sequence[float] | np.ndarray, axis: int, edge: Edge) -> Volume:
    """Correlate along one axis with an odd number of weights."""
    length, radius = volume.shape[axis], len(weights) // 2
    padding = ((radius, radius), (0, 0))
    shifted = np.pad(np.eye(length), padding, mode="symmetric" if edge == "symmetric" else "constant")
    band = sum(weight * shifted[i : i + length] for i, weight in enumerate(weights))
    if edge == "absent":
        band = band / band.sum(1, keepdims=True)
    product = jnp.matmul(jnp.moveaxis(volume, axis, -1), jnp.asarray(band.T, jnp.float32), precision="highest")
    return jnp.moveaxis(product, -1, axis)
