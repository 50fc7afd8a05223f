"""The noun that walks through the house: a field with all that is known of it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Volume, as_mask, as_volume, check_grid, native
from qsmjax.physics.geometry import Geometry

LEAST_EXTENT = 80.0
"""Shortest edge of a mask's box that is taken for a head's [mm]."""


@flax.struct.dataclass
class FieldMap:
    """A total or local field.

    Attributes:
      field: [ppm of B0], zero outside the mask.
      mask: where the field is known.
      geometry: voxel size and B0 direction.
      noise: standard deviation of the field's noise [ppm], where known.
      magnitude: the image that the field came with, of any scale, where known.
      radians_per_ppm: phase that one ppm made at the echo (`units.radians_per_ppm`), where known; methods that are
        nonlinear in the phase need it.
    """

    field: Volume
    mask: Mask
    geometry: Geometry
    noise: Volume | None = None
    magnitude: Volume | None = None
    radians_per_ppm: Float[Array, ""] | None = None


def field_map(
    field: ArrayLike,
    mask: ArrayLike | None,
    geometry: Geometry,
    *,
    noise: ArrayLike | None = None,
    magnitude: ArrayLike | None = None,
    radians_per_ppm: ArrayLike | None = None,
) -> FieldMap:
    """Put a field together with its mask and grid, checked.

    Args:
      field: [ppm of B0]; what lies outside the mask is set to zero.
      mask: not zero where the field is known; None for everywhere.
      geometry: its grid.
      noise: standard deviation [ppm], on the same grid or one number.
      magnitude: image of any scale, on the same grid.
      radians_per_ppm: phase that one ppm made at the echo.

    Raises:
      ValueError: if something is on another grid, or noise or magnitude are nowhere above zero in the mask.
    """
    field = as_volume("field", field)
    if field.ndim != 3:
        raise ValueError(f"field must have the axes x y z, got shape {field.shape}: map over the others with jax.vmap")
    check_grid("field", field, geometry.shape)
    mask = as_mask("mask", jnp.ones(geometry.shape, bool) if mask is None else mask, geometry.shape)
    if noise is not None:
        noise = as_volume("noise", jnp.broadcast_to(jnp.asarray(native(noise), jnp.float32), geometry.shape))
        _check_measured("noise", noise, mask)
    if magnitude is not None:
        magnitude = as_volume("magnitude", magnitude)
        check_grid("magnitude", magnitude, geometry.shape)
        _check_measured("magnitude", magnitude, mask)
    if radians_per_ppm is not None:
        radians_per_ppm = jnp.asarray(radians_per_ppm, jnp.float32)
    return FieldMap(
        field=jnp.where(mask, field, 0),
        mask=mask,
        geometry=geometry,
        noise=noise,
        magnitude=magnitude,
        radians_per_ppm=radians_per_ppm,
    )


def _check_measured(name: str, volume: Volume, mask: Mask) -> None:
    """Check, where both are known, that some voxel was measured: one of zero counts as one that was not."""
    if isinstance(volume, jax.core.Tracer) or isinstance(mask, jax.core.Tracer) or not bool(jnp.any(mask)):
        return
    if not bool(jnp.any(mask & (volume > 0))):
        raise ValueError(f"{name} must be above zero in the mask, got none there: leave it out if it is not known")


def spans_head(field_map: FieldMap) -> bool:
    """Say whether the mask's box has the edges of a head's: what is usual in heads is not so in phantoms and slabs."""
    where = np.argwhere(np.asarray(field_map.mask))
    edges = (np.ptp(where, axis=0) + 1) * np.asarray(field_map.geometry.voxel_size) if len(where) else np.zeros(3)
    return bool(edges.min() >= LEAST_EXTENT)
