"""The field of a susceptibility that depends on direction, as that of myelinated fibres does.

    field(k) = b · a(k) / 3 - (k · b) (k · a(k)) / |k|²,    a = X b,  X the tensor in each voxel

For X = chi · 1 this is the dipole's field. b is the direction of B0 in voxel axes.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Volume
from qsmjax.numerics.kspace import crop_to, fast_shape, frequencies, pad_to
from qsmjax.physics.geometry import Geometry


def tensor_field(magnetised: ArrayLike, geometry: Geometry, *, padding: float = 0.5) -> Volume:
    """Make the field of a magnetisation that need not point along B0, in free space.

    Args:
      magnetised: the tensor times the unit vector along B0, in voxel axes [ppm]; axes 3, x, y, z.
      geometry: grid and B0 direction.
      padding: zeros added along each axis, as a part of its length.

    Returns:
      The field along B0 [ppm of B0].

    Raises:
      ValueError: if there are not three components on the grid, or the padding is negative.

    References:
      Liu, Magn. Reson. Med. 63:1471 (2010), doi:10.1002/mrm.22482 (eq. 8).
    """
    a = jnp.asarray(magnetised, jnp.float32)
    if a.shape != (3, *geometry.shape):
        raise ValueError(f"magnetised must have the shape {(3, *geometry.shape)}, got {a.shape}")
    if padding < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    x, y, z = (round(n * padding) for n in geometry.shape)
    shape = fast_shape(geometry.shape, (x, y, z)) if padding else geometry.shape
    b = geometry.b0_dir / jnp.linalg.norm(geometry.b0_dir)
    k = frequencies(shape, geometry.voxel_size)
    # at Nyquist k and -k share a sample: their mean leaves no product of a component there with one elsewhere, as in
    # `dipole_kernel`
    at_nyquist = [jnp.arange(part.size).reshape(part.shape) == n / 2 for part, n in zip(k, shape)]
    inner = [jnp.where(at, 0, part) for at, part in zip(at_nyquist, k)]
    outer = [jnp.where(at, part, 0) for at, part in zip(at_nyquist, k)]
    squared = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    a_k: Float[Array, "3 x y z"] = jnp.fft.rfftn(pad_to(a, shape), axes=(1, 2, 3))
    dot = lambda parts, vector: sum(part * component for part, component in zip(parts, vector))
    along = dot(inner, b) * dot(inner, a_k) + dot(outer, b) * dot(outer, a_k)
    field_k = jnp.where(squared > 0, dot(b, a_k) / 3 - along / jnp.where(squared > 0, squared, 1), 0)
    return crop_to(jnp.fft.irfftn(field_k, shape, axes=(0, 1, 2)), geometry.shape)
