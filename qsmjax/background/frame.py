"""The frame in which background is removed: the mask's box in a margin, and the edge at which a block is compiled.

    local = leave(block(enter(field)))

What is far outside the mask carries nothing, and the margin keeps the periodic images of spheres and dipoles off. Where
the mask is traced (inside jit or vmap) its box is not known, and the whole grid is framed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.numerics.options import check_option, parted
from qsmjax.physics.field_map import FieldMap

MARGIN = 0.3
"""Zeros added along each axis, as a part of the box: half of it on either side."""


class Local(NamedTuple):
    """What a block returns.

    Attributes:
      field: the local field [ppm], zero outside the mask.
      mask: where it is valid.
      noise: its noise [ppm]; None where that of the total field stands.
    """

    field: Volume
    mask: Mask
    noise: Volume | None = None


def in_frame(
    block: Callable[..., Local], field_map: FieldMap, options: dict[str, Any], *, uses: tuple[str, ...] = ()
) -> FieldMap:
    """Run a building block in the frame of the field's mask.

    Args:
      block: (field, mask, geometry, *, options) -> Local, on arrays.
      field_map: the total field, (x, y, z).
      options: the block's; whole numbers, several numbers and choices are static, all other numbers traced.
      uses: the field map's other attributes that the block takes.

    Returns:
      The field map with the local field and the mask where it is valid.

    Raises:
      ValueError: if the mask is empty, a number is negative, or nothing is left of the mask.
      FloatingPointError: if the local field is not finite.
    """
    for name, value in options.items():
        check_option(name, value, zero=not name.endswith("iterations"))
    box = bounding_box(field_map.mask)
    shape = frame_shape(box, MARGIN, field_map.geometry.voxel_size, least=4)
    parts = {"field": field_map.field, "mask": field_map.mask, **{name: getattr(field_map, name) for name in uses}}
    framed = {name: enter(part, box, shape) for name, part in parts.items()}
    static, traced = parted(options)
    geometry = dataclasses.replace(field_map.geometry, shape=shape)
    run = _compiled(block, tuple(sorted(static.items())))
    local = run(framed.pop("field"), framed.pop("mask"), geometry, **framed, **traced)
    mask = leave(local.mask, box, field_map.geometry.shape)
    if not isinstance(mask, jax.core.Tracer) and not bool(mask.any()):
        raise ValueError(
            f"mask must be wider than what the removal takes off its rim, got nothing left of it by {options}: give a "
            "smaller radius or margin, or a larger mask"
        )
    noise = field_map.noise if local.noise is None else leave(local.noise, box, field_map.geometry.shape)
    made = dataclasses.replace(
        field_map, field=leave(local.field, box, field_map.geometry.shape), mask=mask, noise=noise
    )
    if not isinstance(made.field, jax.core.Tracer) and not bool(jnp.isfinite(made.field).all()):
        raise FloatingPointError(
            "the local field must stay finite, got NaN or infinity: check the total field and the noise map for NaN "
            "inside the mask, and take such voxels out of it"
        )
    return made


@functools.lru_cache(maxsize=64)
def _compiled(block: Callable[..., Local], static: tuple[tuple[str, Any], ...]) -> Callable[..., Local]:
    return jax.jit(functools.partial(block, **dict(static)))
