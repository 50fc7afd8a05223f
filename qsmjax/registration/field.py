"""A field map on another grid, with the direction that B0 has there."""

import dataclasses

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import Geometry
from qsmjax.registration.resample import resample, resample_mask, resample_within, turned_b0


def bring_field(
    local: FieldMap, source_affine: ArrayLike, target: Geometry, target_affine: ArrayLike, transform: ArrayLike
) -> FieldMap:
    """Bring a field with its mask, noise and magnitude to another grid; B0 turns with it.

    Args:
      local: on its own grid.
      source_affine: its own, voxel index to world [mm].
      target: the other grid, whose B0 direction does not count.
      target_affine: the other grid's.
      transform: 4x4, the target's world to the source's [mm].
    """
    grids = (source_affine, target_affine, target.shape, transform)
    within = lambda volume: resample_within(volume, local.mask, *grids)
    noise, magnitude = local.noise, local.magnitude
    if noise is not None:
        # zero: not measured there, nor is it beside it
        measured = local.mask & (noise > 0)
        moved = resample_within(noise, measured, *grids)
        # cubic interpolation undershoots: no voxel is surer than the surest that was measured
        noise = jnp.where(moved > 0, jnp.maximum(moved, jnp.min(jnp.where(measured, noise, jnp.inf))), 0)
    return field_map(
        within(local.field),
        resample_mask(local.mask, *grids),
        dataclasses.replace(target, b0_dir=turned_b0(local.geometry.b0_dir, source_affine, target_affine, transform)),
        noise=noise,
        magnitude=None if magnitude is None else jnp.maximum(resample(magnitude, *grids), 0),
        radians_per_ppm=local.radians_per_ppm,
    )
