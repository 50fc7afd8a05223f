"""Where the voxels stand: the grid, the voxel size, and the direction of B0 in voxel axes.

    b = Rᵀ (0, 0, 1),    R = the affine's 3x3 with its columns normalised

World axes are the scanner's (NIfTI: x right, y anterior, z superior), B0 along world z. The voxel scaling is divided
out of the affine, never inverted with it: at 0.8x0.8x3 mm and 30 degrees that mistake turns B0 by 35 degrees.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from qsmjax.numerics.arrays import Shape, Vector, VectorLike, as_vector

SHEAR_LIMIT = 1e-2
"""Largest cosine between two voxel axes that still counts as right-angled: headers round theirs to a few digits."""


@flax.struct.dataclass
class Geometry:
    """A grid in the scanner.

    Attributes:
      voxel_size: edges of a voxel [mm]; may be traced.
      b0_dir: unit vector along B0 in voxel axes; may be traced.
      shape: voxels along x, y, z; static.
    """

    voxel_size: Vector
    b0_dir: Vector
    shape: Shape = flax.struct.field(pytree_node=False)


def geometry(shape: tuple[int, ...], voxel_size: VectorLike = (1, 1, 1), b0_dir: VectorLike = (0, 0, 1)) -> Geometry:
    """Describe a grid whose B0 direction is known.

    Args:
      shape: voxels; the last three axes count.
      voxel_size: edges of a voxel [mm].
      b0_dir: direction of B0 in voxel axes, of any length but zero.

    Raises:
      ValueError: if a voxel edge is not positive, or the direction is zero or not finite (where values are concrete).
    """
    size, direction = as_vector("voxel_size", voxel_size), as_vector("b0_dir", b0_dir)
    length = jnp.linalg.norm(direction)
    if _known(size) and not bool(jnp.all(size > 0) & jnp.all(jnp.isfinite(size))):
        raise ValueError(f"voxel_size must be three positive lengths in mm, got {np.asarray(size).tolist()}")
    if _known(direction) and not bool((length > 0) & jnp.isfinite(length)):
        raise ValueError(f"b0_dir must be a finite direction other than zero, got {np.asarray(direction).tolist()}")
    x, y, z = (int(n) for n in shape[-3:])
    return Geometry(voxel_size=size, b0_dir=direction / length, shape=(x, y, z))


def geometry_from_affine(affine: ArrayLike, shape: tuple[int, ...], *, b0_dir: VectorLike | None = None) -> Geometry:
    """Read voxel size and B0 direction off a NIfTI affine.

    Args:
      affine: 4x4, voxel index to world [mm].
      shape: voxels; the last three axes count.
      b0_dir: direction of B0 in voxel axes where it is known from elsewhere; by default world z.

    Raises:
      ValueError: if the affine is not 4x4, not finite, singular, or sheared.
    """
    matrix = np.asarray(affine, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"affine must be 4x4 and finite, got shape {matrix.shape}: mend the header's sform or qform")
    size = np.linalg.norm(matrix[:3, :3], axis=0)
    if size.min() <= 0:
        raise ValueError(f"affine must have three voxel axes of positive length, got {size.tolist()} mm")
    rotation = matrix[:3, :3] / size
    shear = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if shear > SHEAR_LIMIT:
        raise ValueError(
            f"affine must have right-angled voxel axes, got axes {np.degrees(np.arcsin(min(shear, 1))):.1f} degrees "
            "off: resample the volume to a grid without shear"
        )
    return geometry(shape, size, rotation.T @ (0, 0, 1) if b0_dir is None else b0_dir)


def _known(array: Vector) -> bool:
    """Tell whether the values can be looked at: a traced array's can't."""
    return not isinstance(array, jax.core.Tracer)
