"""The SHARP family: what is harmonic equals its spherical mean, so subtracting the mean removes the background.

    (1 - S) field = (1 - S) local      wherever the ball lies inside the mask

and the local field is found by undoing 1 - S, which is small for slow variations: cut off (SHARP, V-SHARP) or
regularised (RESHARP). Radii are in mm; the mask shrinks by the smallest.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.background.edge import STEEPEST, beside_the_skull, steep_voxels
from qsmjax.background.frame import Local, in_frame
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.solvers import cg
from qsmjax.numerics.spheres import erode, sphere_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

RADII = tuple(float(r) for r in range(12, 1, -1))
"""Radii [mm]: the consensus' 12 to 1 voxels at 1 mm, less the smallest, since it erodes the mask by a voxel first."""


def v_sharp(
    field_map: FieldMap, *, radii: tuple[float, ...] = RADII, threshold: float = 0.05, steepest: float = STEEPEST
) -> FieldMap:
    """Remove the background by spherical means, the largest ball that fits at each voxel (V-SHARP).

    Args:
      field_map: the total field.
      radii: of the balls [mm]; the consensus names 12 to 1 voxels in a mask eroded by one, the QSMnet paper 12 mm.
      threshold: where |1 - S| of the largest ball is below it, the local field has no such frequency.
      steepest: rise of the field from voxel to voxel that is still believed near the skull [ppm].

    Returns:
      The local field, on the mask less the smallest radius.

    References:
      Li et al., NeuroImage 55:1645 (2011), doi:10.1016/j.neuroimage.2010.11.088.
      Wu et al., Magn. Reson. Med. 67:137 (2012), doi:10.1002/mrm.23000.
      Bilgic et al., Magn. Reson. Med. 91:1834 (2024), doi:10.1002/mrm.30006 (consensus).
    """
    options = {"radii": tuple(float(r) for r in radii), "threshold": float(threshold), "steepest": float(steepest)}
    return in_frame(remove_v_sharp, field_map, options)


def sharp(field_map: FieldMap, *, radius: float = 6.0, threshold: float = 0.05) -> FieldMap:
    """Remove the background by the spherical mean of one radius (SHARP).

    Args:
      field_map: the total field.
      radius: of the ball [mm].
      threshold: where |1 - S| is below it, the local field has no such frequency.

    Returns:
      The local field, on the mask less the radius.

    References:
      Schweser et al., NeuroImage 54:2789 (2011), doi:10.1016/j.neuroimage.2010.10.070.
    """
    return in_frame(remove_v_sharp, field_map, {"radii": (float(radius),), "threshold": float(threshold)})


def resharp(
    field_map: FieldMap,
    *,
    radius: float = 6.0,
    weight: float = 1e-3,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> FieldMap:
    """Remove the background by the spherical mean of one radius, undone with a penalty on the local field (RESHARP).

        minimise  |M (1 - S)(field - local)|² + weight |local|²

    Args:
      field_map: the total field.
      radius: of the ball [mm].
      weight: of the penalty.
      tolerance: relative residual at which conjugate gradients stop.
      max_iterations: their limit.

    Returns:
      The local field, on the mask less the radius.

    References:
      Sun & Wilman, Magn. Reson. Med. 71:1151 (2014), doi:10.1002/mrm.24765.
    """
    options = {"radius": float(radius), "weight": float(weight), "tolerance": float(tolerance)}
    return in_frame(remove_resharp, field_map, options | {"max_iterations": max_iterations})


def remove_v_sharp(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    radii: tuple[float, ...],
    threshold: ArrayLike,
    steepest: ArrayLike = jnp.inf,
) -> Local:
    """Filter each voxel by the largest ball that fits, and undo the largest of all: the block beneath `v_sharp`."""
    size = geometry.voxel_size
    mask = mask & ~beside_the_skull(steep_voxels(field, mask, steepest), mask, geometry)
    field = jnp.where(mask, field, 0)
    field_k = rfft3(field)
    filtered, seen = jnp.zeros_like(field), jnp.zeros_like(mask)
    widest = sphere_kernel(geometry.shape, size, max(radii))
    for radius in sorted(radii, reverse=True):
        kernel = widest if radius == max(radii) else sphere_kernel(geometry.shape, size, radius)
        fits = erode(mask, kernel, size, radius)
        high_passed = field - irfft3(kernel * field_k, field.shape)
        filtered = jnp.where(fits & ~seen, high_passed, filtered)
        seen = seen | fits
    return Local(jnp.where(seen, multiply_k(filtered, _truncated_inverse(1 - widest, threshold)), 0), seen)


def remove_resharp(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    radius: ArrayLike,
    weight: ArrayLike,
    tolerance: ArrayLike,
    max_iterations: int,
) -> Local:
    """Solve for the local field by conjugate gradients: the block beneath `resharp`."""
    kernel = sphere_kernel(geometry.shape, geometry.voxel_size, radius)
    valid = erode(mask, kernel, geometry.voxel_size, radius)
    high_pass = lambda volume: multiply_k(volume, 1 - kernel)
    normal = lambda local: high_pass(valid * high_pass(local)) + weight * local
    rhs = high_pass(valid * high_pass(jnp.where(mask, field, 0)))
    solved = cg(normal, rhs, max_iterations=max_iterations, tolerance=tolerance)
    return Local(jnp.where(valid, solved.state, 0), valid)


def _truncated_inverse(kernel: Kernel, threshold: ArrayLike) -> Kernel:
    kept = jnp.abs(kernel) > threshold
    return jnp.where(kept, 1 / jnp.where(kept, kernel, 1), 0)
