"""Finite differences on the periodic grid, with their adjoints and their symbols in k-space.

    (grad a)_i = (a(r + e_i) - a(r)) / voxel_size_i,    div = -gradᵀ,    laplacian = div grad

The components of a gradient stand on a leading axis of three. The boundary is periodic, so that each operator is
diagonal in k-space; pad where the two faces of the volume must not meet.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Kernel, Mask, Shape, VectorLike, Volume, as_vector
from qsmjax.numerics.kspace import frequencies

VectorField = Float[Array, "3 *batch x y z"]
VOXELS = (1.0, 1.0, 1.0)


def root(squared: Array) -> Array:
    """Take the square root of what is not negative; at zero its gradient is zero, and not infinite. NaN stays NaN."""
    return jnp.where(squared <= 0, 0, jnp.sqrt(jnp.where(squared <= 0, 1, squared)))


def masked_mean(volume: Volume, mask: Mask) -> Float[Array, ""]:
    """Return the mean over a mask."""
    return jnp.sum(jnp.where(mask, volume, 0)) / jnp.maximum(jnp.sum(mask), 1)


def centred(volume: Volume, mask: Mask) -> Volume:
    """Take the mean over a mask off a volume; zero outside."""
    return jnp.where(mask, volume - masked_mean(volume, mask), 0)


def gradient(volume: Volume, voxel_size: VectorLike = VOXELS) -> VectorField:
    """Take forward differences along x, y, z [per mm, or per voxel by default]."""
    size = as_vector("voxel_size", voxel_size)
    return jnp.stack([(jnp.roll(volume, -1, axis) - volume) / d for axis, d in zip((-3, -2, -1), size)])


def divergence(vectors: VectorField, voxel_size: VectorLike = VOXELS) -> Volume:
    """Take the divergence by backward differences: minus the adjoint of `gradient`."""
    size = as_vector("voxel_size", voxel_size)
    parts = [(v - jnp.roll(v, 1, axis)) / d for v, axis, d in zip(vectors, (-3, -2, -1), size)]
    return parts[0] + parts[1] + parts[2]


def difference(volume: Volume, axis: int) -> Volume:
    """Take the forward difference along x, y or z (axis 0, 1, 2) [per voxel], one component of the gradient."""
    return jnp.roll(volume, -1, axis - 3) - volume


def difference_adjoint(volume: Volume, axis: int) -> Volume:
    """Take minus the backward difference along x, y or z (axis 0, 1, 2): the adjoint of `difference`."""
    return jnp.roll(volume, 1, axis - 3) - volume


def laplacian(volume: Volume, voxel_size: VectorLike = VOXELS) -> Volume:
    """Take the seven-point Laplacian, div grad."""
    return divergence(gradient(volume, voxel_size), voxel_size)


def laplacian_k(shape: Shape, voxel_size: VectorLike = VOXELS) -> Kernel:
    """Return the symbol of -`laplacian` on the half spectrum: Σ_i (2 - 2 cos 2πk_i d_i) / d_i², never negative."""
    size = as_vector("voxel_size", voxel_size)
    parts = [(2 - 2 * jnp.cos(2 * jnp.pi * k * d)) / d**2 for k, d in zip(frequencies(shape, size), size)]
    return parts[0] + parts[1] + parts[2]


def sphere_mean_k(shape: Shape, voxel_size: VectorLike, radius: ArrayLike) -> Kernel:
    """Return the symbol of the mean over a sphere on the half spectrum: 3 (sin x - x cos x) / x³, x = 2π|k| radius.

    Args:
      shape: voxels along x, y, z.
      voxel_size: edges of a voxel [mm]; may be traced.
      radius: of the sphere [mm]; may be traced.
    """
    x, y, z = frequencies(shape, voxel_size)
    return ball_transform((2 * jnp.pi * radius) ** 2 * (x**2 + y**2 + z**2))


def ball_transform(squared: ArrayLike) -> Array:
    """Return 3 (sin x - x cos x) / x³ of x², the Fourier transform of a ball over its volume."""
    squared = jnp.asarray(squared)
    far = jnp.sqrt(jnp.maximum(squared, 1e-2))
    # near zero sine and cosine cancel: the series is exact to rounding there
    return jnp.where(squared < 1e-2, 1 - squared / 10, 3 * (jnp.sin(far) - far * jnp.cos(far)) / far**3)
