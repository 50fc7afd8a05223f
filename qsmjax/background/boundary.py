"""Boundary methods: the background is the harmonic function that meets the total field at the mask's edge.

    laplacian background = 0 inside,    background = field at the edge

which holds where the local field at the edge is small beside the background. LBV takes one voxel as the edge; iSMV a
shell as thick as its ball, over which the local field averages out.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.background.frame import Local, in_frame
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.operators import centred, laplacian
from qsmjax.numerics.options import Number, real
from qsmjax.numerics.solvers import cg, iterate
from qsmjax.numerics.spheres import check_radius, erode, sphere_kernel, spherical_mean
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry


def ismv(
    field_map: FieldMap, *, radius: Number = 5.0, tolerance: Number | None = 1e-4, max_iterations: int = 500
) -> FieldMap:
    """Remove the background by iterated spherical means, the shell at the edge held fixed (iSMV).

        background ← S background where the ball fits,    field elsewhere in the mask

    Args:
      field_map: the total field.
      radius: of the ball [mm].
      tolerance: relative change of the background at which to stop; None for a fixed count, through which gradients
        flow.
      max_iterations: the limit, or the count.

    Returns:
      The local field, on the mask less the radius.

    References:
      Wen et al., Magn. Reson. Med. 72:1065 (2014), doi:10.1002/mrm.24998.
    """
    check_radius(radius, field_map.geometry.voxel_size)
    options = {"radius": real(radius), "tolerance": None if tolerance is None else real(tolerance)}
    return in_frame(remove_ismv, field_map, options | {"max_iterations": max_iterations})


def lbv(field_map: FieldMap, *, tolerance: Number = 1e-4, max_iterations: int = 500) -> FieldMap:
    """Remove the background by solving Laplace's equation with the field at the edge as boundary values (LBV).

    Args:
      field_map: the total field.
      tolerance: relative residual at which conjugate gradients stop.
      max_iterations: their limit.

    Returns:
      The local field, on the mask less its outermost voxels.

    References:
      Zhou et al., NMR Biomed. 27:312 (2014), doi:10.1002/nbm.3064.
    """
    return in_frame(remove_lbv, field_map, {"tolerance": real(tolerance), "max_iterations": max_iterations})


def remove_ismv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    radius: ArrayLike,
    tolerance: ArrayLike | None,
    max_iterations: int,
) -> Local:
    """Iterate the spherical mean to its fixed point: the block beneath `ismv`."""
    kernel = sphere_kernel(geometry.shape, geometry.voxel_size, radius)
    valid = erode(mask, kernel, geometry.voxel_size, radius)
    # a constant would count in the change at which to stop
    field = centred(field, mask)
    step = lambda background: jnp.where(valid, spherical_mean(background, kernel), field)
    solved = iterate(step, field, max_iterations=max_iterations, tolerance=tolerance)
    return Local(jnp.where(valid, field - solved.state, 0), valid)


def remove_lbv(field: Volume, mask: Mask, geometry: Geometry, *, tolerance: ArrayLike, max_iterations: int) -> Local:
    """Solve for the local field, zero at the edge, whose Laplacian is the field's: the block beneath `lbv`."""
    inside = mask
    for axis in (-3, -2, -1):
        inside = inside & jnp.roll(mask, 1, axis) & jnp.roll(mask, -1, axis)
    size = geometry.voxel_size
    curvature = -jnp.where(inside, laplacian(jnp.where(mask, field, 0), size), 0)
    operator = lambda local: -jnp.where(inside, laplacian(jnp.where(inside, local, 0), size), 0)
    solved = cg(operator, curvature, max_iterations=max_iterations, tolerance=tolerance)
    return Local(jnp.where(inside, solved.state, 0), inside)
