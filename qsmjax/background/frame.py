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
import numpy as np
from jaxtyping import Array

from qsmjax.numerics.arrays import Mask, Shape, Volume
from qsmjax.numerics.kspace import crop_to, fast_shape, pad_to
from qsmjax.physics.field_map import FieldMap

MARGIN = 0.3
"""Zeros added along each axis, as a part of the box: half of it on either side."""

Box = tuple[slice, slice, slice]


class Local(NamedTuple):
    """What a block returns.

    Attributes:
      field: the local field [ppm], zero outside the mask.
      mask: where it is valid.
    """

    field: Volume
    mask: Mask


def in_frame(
    block: Callable[..., Local], field_map: FieldMap, options: dict[str, Any], *, uses: tuple[str, ...] = ()
) -> FieldMap:
    """Run a building block in the frame of the field's mask.

    Args:
      block: (field, mask, geometry, *, options) -> Local, on arrays.
      field_map: the total field, (x, y, z).
      options: the block's; floats are traced, all else is static.
      uses: the field map's other attributes that the block takes.

    Returns:
      The field map with the local field and the mask where it is valid.

    Raises:
      ValueError: if the mask is empty, a number is not positive, or nothing is left of the mask.
    """
    for name, value in options.items():
        if any(not v >= 0 for v in np.ravel(value) if isinstance(v, (int, float))):
            raise ValueError(f"{name} must not be negative, got {value}")
    box = bounding_box(field_map.mask)
    lengths = [part.stop - part.start for part in box]
    x, y, z = (max(4, round(n * MARGIN)) for n in lengths)
    shape = fast_shape(tuple(lengths), (x, y, z))
    parts = {"field": field_map.field, "mask": field_map.mask, **{name: getattr(field_map, name) for name in uses}}
    framed = {name: _enter(part, box, shape) for name, part in parts.items()}
    traced = {name: value for name, value in options.items() if isinstance(value, float)}
    static = {name: value for name, value in options.items() if name not in traced}
    geometry = dataclasses.replace(field_map.geometry, shape=shape)
    run = _compiled(block, tuple(sorted(static.items())))
    local = run(framed.pop("field"), framed.pop("mask"), geometry, **framed, **traced)
    mask = _leave(local.mask, box, field_map.geometry.shape)
    if not isinstance(mask, jax.core.Tracer) and not bool(mask.any()):
        raise ValueError(
            f"mask must be wider than the sphere, got nothing left of it: choose a smaller radius than {options}"
        )
    return dataclasses.replace(field_map, field=_leave(local.field, box, field_map.geometry.shape), mask=mask)


def bounding_box(mask: Array) -> Box:
    """Return the smallest box around the mask, or the whole grid where the mask is traced.

    Raises:
      ValueError: if the mask is empty.
    """
    if isinstance(mask, jax.core.Tracer):
        x, y, z = (slice(0, n) for n in mask.shape[-3:])
        return x, y, z
    inside = np.asarray(mask).reshape(-1, *mask.shape[-3:]).any(axis=0)
    if not inside.any():
        raise ValueError(f"mask must have at least one voxel, got none in {mask.shape}: check its threshold and grid")
    edges = [np.flatnonzero(np.any(inside, axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(at[0]), int(at[-1]) + 1) for at in edges)
    return x, y, z


@functools.lru_cache(maxsize=64)
def _compiled(block: Callable[..., Local], static: tuple[tuple[str, Any], ...]) -> Callable[..., Local]:
    return jax.jit(functools.partial(block, **dict(static)))


def _enter(part: Array | None, box: Box, shape: Shape) -> Array | None:
    return None if part is None else pad_to(part[(..., *box)], shape)


def _leave(volume: Array, box: Box, shape: Shape) -> Array:
    x, y, z = (part.stop - part.start for part in box)
    widths = [(part.start, n - part.stop) for part, n in zip(box, shape)]
    return jnp.pad(crop_to(volume, (x, y, z)), [(0, 0)] * (volume.ndim - 3) + widths)
