"""The noun that walks through the house: a field with all that is known of it."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Mask, Volume, as_mask, as_volume, native
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
      ValueError: if something is on another grid or more than one volume, the mask holds NaN, or noise or magnitude
        are nowhere above zero in the mask.
    """
    _check_one_volume("field", field, geometry)
    field = as_volume("field", field)
    # of NumPy, since JAX would trace it inside jit, where the mask must stay known
    mask = np.ones(geometry.shape, bool) if mask is None else mask
    _check_one_volume("mask", mask, geometry)
    mask = as_mask("mask", mask, geometry.shape)
    if noise is not None:
        if jnp.ndim(noise):
            _check_one_volume("noise", noise, geometry)
        noise = as_volume("noise", jnp.broadcast_to(jnp.asarray(native(noise), jnp.float32), geometry.shape))
        _check_measured("noise", noise, mask)
    if magnitude is not None:
        _check_one_volume("magnitude", magnitude, geometry)
        magnitude = as_volume("magnitude", magnitude)
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


def _check_one_volume(name: str, given: ArrayLike, geometry: Geometry) -> None:
    """Check that something is one volume on the grid: leading axes would be carried into the field."""
    if jnp.shape(given) != geometry.shape:
        raise ValueError(
            f"{name}.shape must be {geometry.shape}, got {jnp.shape(given)}: resample it to that grid, or map over "
            "several volumes with jax.vmap"
        )


def _check_measured(name: str, volume: Volume, mask: Mask) -> None:
    """Check, where both are known, that some voxel was measured: one of zero counts as one that was not."""
    if isinstance(volume, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
        return
    with jax.ensure_compile_time_eval():
        unmeasured = bool(jnp.any(mask)) and not bool(jnp.any(mask & (volume > 0)))
    if unmeasured:
        raise ValueError(f"{name} must be above zero in the mask, got none there: leave it out if it is not known")


def spans_head(field_map: FieldMap) -> bool:
    """Say whether the mask's box has the edges of a head's: what is usual in heads is not so in phantoms and slabs.

    Of a mask or a grid that is traced nothing can be said: no.
    """
    if any(isinstance(known, jax.core.Tracer) for known in (field_map.mask, field_map.geometry.voxel_size)):
        return False
    where = np.argwhere(np.asarray(field_map.mask))
    edges = (np.ptp(where, axis=0) + 1) * np.asarray(field_map.geometry.voxel_size) if len(where) else np.zeros(3)
    return bool(edges.min() >= LEAST_EXTENT)
