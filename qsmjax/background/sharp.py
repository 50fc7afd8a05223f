"""The SHARP family: what is harmonic equals its spherical mean, so subtracting the mean removes the background.

    (1 - S) field = (1 - S) local      wherever the ball lies inside the mask

and the local field is found by undoing 1 - S, which is small for slow variations: cut off (SHARP, V-SHARP) or
regularised (RESHARP). Radii are in mm; the mask shrinks by the smallest.

V-SHARP filters by many balls and undoes the widest: what the small ones near the edge take away of slow variations is
lost. Here what the estimate leaves of the filtered field is undone too, as often as `refinements` says:

    local ← local + (1 - S widest)⁻¹ (filtered - F local),    F filters each voxel by its own ball
"""

from functools import partial

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.background.edge import STEEPEST, beside_the_skull, steep_voxels
from qsmjax.background.frame import Local, in_frame
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.operators import centred
from qsmjax.numerics.options import Number, real
from qsmjax.numerics.solvers import cg
from qsmjax.numerics.spheres import check_radius, erode, sphere_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

RADII = tuple(float(r) for r in range(12, 1, -1))
"""Radii [mm]: the consensus' 12 to 1 voxels at 1 mm, less the smallest, since it erodes the mask by a voxel first."""


def v_sharp(
    field_map: FieldMap,
    *,
    radii: tuple[float, ...] = RADII,
    threshold: Number = 0.05,
    steepest: Number = STEEPEST,
    refinements: int = 0,
) -> FieldMap:
    """Remove the background by spherical means, the largest ball that fits at each voxel (V-SHARP).

    Args:
      field_map: the total field.
      radii: of the balls [mm]; those below half of the voxel's longest edge are left out. The consensus names 12 to 1
        voxels in a mask eroded by one, the QSMnet paper 12 mm.
      threshold: where |1 - S| of the largest ball is below it, the local field has no such frequency.
      steepest: rise of the field from voxel to voxel that is still believed near the skull [ppm].
      refinements: how often what the small balls took away is given back (none in the papers); 2 is nearer to the local
        field, but what is left of the background near the edge grows with it.

    Returns:
      The local field, on the mask less the smallest radius.

    References:
      Li et al., NeuroImage 55:1645 (2011), doi:10.1016/j.neuroimage.2010.11.088.
      Wu et al., Magn. Reson. Med. 67:137 (2012), doi:10.1002/mrm.23000.
      Bilgic et al., Magn. Reson. Med. 91:1834 (2024), doi:10.1002/mrm.30006 (consensus).
    """
    check_radius(max(radii, default=jnp.inf), field_map.geometry.voxel_size)
    options = {"radii": tuple(float(r) for r in radii), "threshold": real(threshold), "steepest": real(steepest)}
    return in_frame(remove_v_sharp, field_map, options | {"refinements": refinements})


def sharp(field_map: FieldMap, *, radius: float = 6.0, threshold: Number = 0.05) -> FieldMap:
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
    check_radius(radius, field_map.geometry.voxel_size)
    options = {"radii": (float(radius),), "threshold": real(threshold)}
    return in_frame(remove_v_sharp, field_map, options | {"refinements": 0})


def resharp(
    field_map: FieldMap,
    *,
    radius: Number = 6.0,
    weight: Number = 1e-3,
    tolerance: Number = 1e-3,
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
    check_radius(radius, field_map.geometry.voxel_size)
    options = {"radius": real(radius), "weight": real(weight), "tolerance": real(tolerance)}
    return in_frame(remove_resharp, field_map, options | {"max_iterations": max_iterations})


def remove_v_sharp(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    radii: tuple[float, ...],
    threshold: ArrayLike,
    steepest: ArrayLike = jnp.inf,
    refinements: int,
) -> Local:
    """Filter each voxel by the largest ball that fits, and undo the largest of all: the block beneath `v_sharp`."""
    size, falling = geometry.voxel_size, sorted(radii, reverse=True)
    mask = mask & ~beside_the_skull(steep_voxels(field, mask, steepest), mask, geometry)
    ball = partial(sphere_kernel, geometry.shape, size)
    # which of the balls, as they fall in size, is a voxel's; none of them where there are too many
    chosen = jnp.full(mask.shape, len(falling), jnp.uint8)
    for number, radius in reversed(list(enumerate(falling))):
        # a ball of one voxel along an axis is none: its mean is not that of a harmonic function
        fits = erode(mask, ball(radius), size, radius) & (radius > jnp.max(size) / 2)
        chosen = jnp.where(fits, jnp.uint8(number), chosen)

    def high_pass(volume):
        volume_k, passed = rfft3(volume), jnp.zeros_like(volume)
        for number, radius in enumerate(falling):
            passed = jnp.where(chosen == number, volume - irfft3(ball(radius) * volume_k, volume.shape), passed)
        return passed

    seen = chosen < len(falling)
    undo = _truncated_inverse(1 - ball(falling[0]), threshold)
    # a ball may reach out by half a voxel, where a constant ends
    filtered = high_pass(centred(field, mask))
    local = jnp.where(seen, multiply_k(filtered, undo), 0)
    for _ in range(refinements):
        local += jnp.where(seen, multiply_k(filtered - high_pass(local), undo), 0)
    return Local(local, seen)


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
    rhs = high_pass(valid * high_pass(centred(field, mask)))
    solved = cg(normal, rhs, max_iterations=max_iterations, tolerance=tolerance)
    return Local(jnp.where(valid, solved.state, 0), valid)


def _truncated_inverse(kernel: Kernel, threshold: ArrayLike) -> Kernel:
    kept = jnp.abs(kernel) > threshold
    return jnp.where(kept, 1 / jnp.where(kept, kernel, 1), 0)
