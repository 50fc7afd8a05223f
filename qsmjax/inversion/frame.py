"""The frame in which a field is inverted: the head's own box, padded, whatever grid the head came in.

    chi = restore(block(crop and pad(field)))

A field outside its mask is unknown and chi there is zero, so the voxels around the head carry nothing. The frame cuts
them off and pads the box with a margin, which keeps the periodic images of the dipole off, to a size that is fast to
transform. A map then depends neither on where the head lies in its grid nor on how the grid was padded.

The box is read off the values of the mask. Where the mask is traced (inside jit or vmap) they can't be looked at, and
the whole grid, padded alike, is the frame. Here, at the edge to concrete values, the block is compiled.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qsmjax.inversion.solution import Solution
from qsmjax.numerics.arrays import Kernel
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.numerics.options import check_option, parted
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

MARGIN = 0.15
"""Zeros added along each axis, as a part of the box (measured in docs/inversions.md); along a slab's short one more."""

WHOLE_MARGIN = 1.0
"""The same for a field that is known everywhere, whose streaks run on: TKD of an oblique object and of an upright one
differ by 3 % without, by 0.3-0.7 % with it."""

LARGEST = {"threshold": 2 / 3, "edge_percentage": 100.0}
"""What options can be at most: |D| is nowhere larger than 2/3."""

Block = Callable[..., Solution]


def check_field(field_map: FieldMap) -> None:
    """Check that a field is finite, where it is not traced: a method may pass over NaN, to a map that looks sound.

    Raises:
      ValueError: if it is not.
    """
    finite = jnp.isfinite(field_map.field).all()
    # within jit this is traced even of a field that is not
    if not isinstance(finite, jax.core.Tracer) and not bool(finite):
        raise ValueError("field must be finite inside the mask, got NaN or infinity: take such voxels out of the mask")


def in_frame(
    block: Block, field_map: FieldMap, *, uses: tuple[str, ...] = (), margin: float = MARGIN, **options: Any
) -> Solution:
    """Run a building block on a field in its frame and put the result back on the field's grid.

    Args:
      block: (field, mask, geometry, *, options) -> Solution, on arrays.
      field_map: the field, on any grid.
      uses: names of the other attributes of the field map that the block takes.
      margin: zeros added along each axis, as a part of the mask's box.
      options: the block's; numbers that are floats are traced, counts and choices are static.

    Returns:
      The block's solution on the grid of the field.

    Raises:
      ValueError: if an option is out of range, or the mask is empty.
      FloatingPointError: if the solution is not finite.
    """
    for name, value in options.items():
        check_option(name, value)
        if name in LARGEST and not isinstance(value, jax.core.Tracer) and value > LARGEST[name]:
            raise ValueError(f"{name} must be at most {LARGEST[name]:.3g}, got {value}")
    box = bounding_box(field_map.mask)
    check_field(field_map)
    if is_full(field_map.mask):
        shape = frame_shape(box, WHOLE_MARGIN)
    else:
        shape = frame_shape(box, margin, field_map.geometry.voxel_size)
    known = {name: getattr(field_map, name) for name in uses}
    parts = {"field": field_map.field, "mask": field_map.mask, **known}
    framed = {name: enter(part, box, shape) for name, part in parts.items()}
    field, mask = framed.pop("field"), framed.pop("mask")
    static, traced = parted(options)
    geometry = dataclasses.replace(field_map.geometry, shape=shape)
    solution = _compiled(block, tuple(sorted(static.items())))(field, mask, geometry, **framed, **traced)
    check_finite(block, solution)
    restored = leave(solution.chi, box, field_map.geometry.shape)
    std = None if solution.std is None else leave(solution.std, box, field_map.geometry.shape)
    return dataclasses.replace(solution, chi=restored, std=std)


def inversion_kernel(geometry: Geometry) -> Kernel:
    """Sample the dipole so that the kernel of a flipped grid is the flipped kernel: the cone is divided by."""
    return dipole_kernel(geometry.shape, geometry.voxel_size, geometry.b0_dir, flip_symmetric=True)


def check_finite(block: Block, solution: Solution) -> None:
    """Check that a solution came out finite, where values are concrete.

    Raises:
      FloatingPointError: if it did not, naming the iteration at which the solver broke.
    """
    if isinstance(solution.chi, jax.core.Tracer) or isinstance(solution.residual, jax.core.Tracer):
        return
    if not bool(jnp.isfinite(solution.residual)) or not bool(jnp.isfinite(jnp.sum(solution.chi))):
        name = block.__name__.removeprefix("solve_")
        raise FloatingPointError(
            f"{name} must stay finite, got NaN or infinity at iteration {int(solution.iterations)}: check the field "
            "and the noise map for NaN inside the mask, then the weight"
        )


@functools.lru_cache(maxsize=256)
def _compiled(block: Block, static: tuple[tuple[str, Any], ...]) -> Block:
    return jax.jit(functools.partial(block, **dict(static)))


def is_full(mask: Array) -> bool:
    """Tell whether a mask is known to leave nothing out."""
    return not isinstance(mask, jax.core.Tracer) and bool(np.asarray(mask).all())
