"""The mask's edge beside air and bone: voxels whose field is not to be believed.

Where the phase runs by half a turn within a voxel, nothing is left of its signal. Such voxels lie beside air, a few in
a thousand; yet their field is a hundred times the brain's own, and every method spreads it. A phase quality mask leaves
them out where there are echoes to judge by; a total field that comes alone is judged by how steep it is.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.spheres import erode, sphere_kernel
from qsmjax.physics.geometry import Geometry

EDGE = 5.0
"""How far from the mask's edge a steep field is held for the skull's; further inside it is a lesion's [mm]."""

STEEPEST = 0.1
"""Rise of the field from voxel to voxel that is still believed [ppm]: half a turn at 40 ms and 3 T."""

MODEL_ERROR = 0.05
"""Error of the field that sources on the grid make of the skull's, over its rise from voxel to voxel (measured on a
head at 1.6 and at 2.4 mm: 0.03 to 0.06, root mean square, at every steepness that is believed)."""


def steep_voxels(field: Volume, mask: Mask, steepest: ArrayLike) -> Mask:
    """Find voxels to both of whose neighbours along an axis the field rises by more than `steepest` [ppm]."""
    steep = jnp.zeros_like(mask)
    for axis in (-3, -2, -1):
        ahead = mask & jnp.roll(mask, -1, axis)
        rise = jnp.where(ahead, jnp.abs(jnp.roll(field, -1, axis) - field), jnp.inf)
        # at the mask's edge there is but one side
        least = jnp.minimum(rise, jnp.roll(rise, 1, axis))
        steep = steep | (jnp.isfinite(least) & (least > steepest))
    return mask & steep


def beside_the_skull(steep: Mask, mask: Mask, geometry: Geometry) -> Mask:
    """Return those of the steep voxels that lie within `EDGE` of the mask's edge."""
    return steep & ~shrink(mask, geometry, EDGE)


def model_variance(field: Volume, mask: Mask, geometry: Geometry) -> Volume:
    """Return the variance of what sources on the grid can't explain of the skull's field: near the edge [ppm²]."""
    near = mask & ~shrink(mask, geometry, EDGE)
    rises = []
    for axis in (-3, -2, -1):
        ahead = mask & jnp.roll(mask, -1, axis)
        rise = jnp.where(ahead, (jnp.roll(field, -1, axis) - field) ** 2, 0)
        sides = ahead.astype(jnp.float32) + jnp.roll(ahead, 1, axis)
        rises.append((rise + jnp.roll(rise, 1, axis)) / jnp.maximum(sides, 1))
    return jnp.where(near, MODEL_ERROR**2 * (rises[0] + rises[1] + rises[2]), 0)


def shrink(mask: Mask, geometry: Geometry, margin: ArrayLike) -> Mask:
    """Take off a mask what lies within a margin of its edge [mm]."""
    return erode(mask, sphere_kernel(geometry.shape, geometry.voxel_size, margin), geometry.voxel_size, margin)
