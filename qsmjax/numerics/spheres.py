"""Spherical means: what a harmonic function keeps and what lies within a sphere's reach of a mask's edge.

    (S a)(r) = mean of a over the ball of a radius around r,    S a = a where a is harmonic in the ball

The ball is sampled on the grid, voxels at its surface by the part that lies inside, so that it reaches no farther than
its radius and half a voxel's diagonal. The convolution is periodic: leave a radius of zeros free.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from qsmjax.numerics.arrays import Kernel, Shape, VectorLike, Volume, as_vector
from qsmjax.numerics.kspace import multiply_k, rfft3


def sphere_kernel(shape: Shape, voxel_size: VectorLike, radius: ArrayLike) -> Kernel:
    """Return the kernel of the spherical mean on the half spectrum; it is real, and 1 at k = 0.

    Args:
      shape: voxels along x, y, z.
      voxel_size: edges of a voxel [mm]; may be traced.
      radius: of the ball [mm]; may be traced. Below half a voxel it is one voxel, and S the identity.
    """
    size = as_vector("voxel_size", voxel_size)
    steps = [jnp.fft.fftfreq(n).astype(jnp.float32) * n * d for n, d in zip(shape, size)]
    x, y, z = steps[0][:, None, None], steps[1][None, :, None], steps[2][None, None, :]
    squared = x**2 + y**2 + z**2
    off_centre = squared > 0
    # safe inside as well: the root at zero would send NaN through the gradient
    distance = jnp.sqrt(jnp.where(off_centre, squared, 1))
    # extent of a voxel along the line from the centre
    width = (jnp.abs(x) * size[0] + jnp.abs(y) * size[1] + jnp.abs(z) * size[2]) / distance
    part = (radius - distance) / jnp.where(off_centre, width, 1) + 0.5
    weights = jnp.where(off_centre, jnp.clip(part, 0, 1), 1)
    return rfft3(weights / jnp.sum(weights)).real


def check_radius(radius: ArrayLike, voxel_size: VectorLike) -> None:
    """Check, where both are known, that a ball reaches beyond one voxel along every axis: else it averages nothing.

    Raises:
      ValueError: if it does not.
    """
    if isinstance(radius, jax.core.Tracer) or isinstance(voxel_size, jax.core.Tracer):
        return
    least = float(np.max(np.asarray(voxel_size))) / 2
    if not (given := float(np.asarray(radius))) > least:
        raise ValueError(f"radius must be above half of the voxel's longest edge, {least:g} mm, got {given:g}")


def spherical_mean(volume: Volume, kernel: Kernel) -> Volume:
    """Average over the ball around every voxel, `kernel` being `sphere_kernel` of the same shape."""
    return multiply_k(volume, kernel)


def erode(
    mask: Bool[Array, "*batch x y z"], kernel: Kernel, voxel_size: VectorLike, radius: ArrayLike
) -> Bool[Array, "*batch x y z"]:
    """Keep the voxels whose ball lies within the mask, to half a voxel's volume.

    Args:
      mask: where to stay inside.
      kernel: `sphere_kernel` of that radius.
      voxel_size: edges of a voxel [mm].
      radius: of the ball [mm].
    """
    voxels = 4 / 3 * jnp.pi * jnp.asarray(radius, jnp.float32) ** 3 / jnp.prod(as_vector("voxel_size", voxel_size))
    inside = spherical_mean(mask.astype(jnp.float32), kernel)
    return mask & (inside > 1 - 0.5 / jnp.maximum(voxels, 1))
