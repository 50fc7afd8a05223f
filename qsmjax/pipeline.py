"""Stages composed: a field in, a referenced susceptibility map out. Any method of a stage fits its slot.

    chi = mask · (invert(field) - reference)

Susceptibility is only known up to a constant, since D(0) = 0: a map without a stated reference can't be compared.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion.solution import Solution
from qsmjax.numerics.arrays import Mask, Volume, as_mask
from qsmjax.physics.field_map import FieldMap

Inversion = Callable[..., Solution]


class Referenced(NamedTuple):
    """A map and the mean of its reference region, which was subtracted [ppm]."""

    chi: Volume
    offset: Float[Array, ""]


def reference(chi: Volume, mask: Mask, region: ArrayLike | None) -> Referenced:
    """Subtract the mean over a region from what lies inside the mask.

    Args:
      chi: [ppm].
      mask: where chi is known.
      region: not zero in the reference region, of which the part inside the mask counts; None for no reference.

    Raises:
      ValueError: if the region is on another grid.
    """
    if region is None:
        return Referenced(jnp.where(mask, chi, 0), jnp.float32(0))
    inside = as_mask("reference", region, chi.shape) & mask
    offset = jnp.sum(jnp.where(inside, chi, 0)) / jnp.maximum(jnp.sum(inside), 1)
    return Referenced(jnp.where(mask, chi - offset, 0), offset)


def local_field_to_chi(
    field_map: FieldMap, invert: Inversion, *, region: ArrayLike | None = None, **options
) -> tuple[Solution, Referenced]:
    """Invert a local field and reference the map.

    Args:
      field_map: local field.
      invert: an inversion, classical or learned: (FieldMap, *, options) -> Solution.
      region: the reference region; by default the whole mask.
      options: the inversion's.

    Returns:
      The solution as the inversion gave it, and its referenced map.
    """
    solution = invert(field_map, **options)
    return solution, reference(solution.chi, field_map.mask, field_map.mask if region is None else region)
