"""The order and the senses in which a volume is stored, against the world's.

A grid can be stored in 48 ways, by permuting and flipping its axes. They hold the same scan, but not for a network,
which is not the same in all directions. The one that lies nearest to the world's axes stands for them all.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry


class Axes(NamedTuple):
    """A way to store a grid that comes in another.

    Attributes:
      order: which of the axes that it comes in stands first, second and third.
      signs: -1 where the axis is run through backwards.
    """

    order: tuple[int, ...] = (0, 1, 2)
    signs: tuple[int, ...] = (1, 1, 1)

    @property
    def inverse(self) -> "Axes":
        """The way back."""
        order = tuple(self.order.index(axis) for axis in range(3))
        return Axes(order, tuple(self.signs[axis] for axis in order))

    def turn(self, volume: ArrayLike) -> Array:
        """Store volumes this way; the last three axes count."""
        array = jnp.asarray(volume)
        if self == Axes():
            return array
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return turned[(..., *(slice(None, None, sign) for sign in self.signs))]

    def turn_grid(self, grid: Geometry) -> Geometry:
        """Describe the grid that volumes have when they are stored this way."""
        order, signs = jnp.asarray(self.order), jnp.asarray(self.signs)
        x, y, z = (grid.shape[axis] for axis in self.order)
        return Geometry(voxel_size=grid.voxel_size[order], b0_dir=grid.b0_dir[order] * signs, shape=(x, y, z))

    def turn_field(self, field_map: FieldMap) -> FieldMap:
        """Store a field this way, with all that is known of it."""
        known = lambda part: None if part is None else self.turn(part)
        return FieldMap(
            field=self.turn(field_map.field),
            mask=self.turn(field_map.mask),
            geometry=self.turn_grid(field_map.geometry),
            noise=known(field_map.noise),
            magnitude=known(field_map.magnitude),
            radians_per_ppm=field_map.radians_per_ppm,
        )


def nearest_axes(affine: ArrayLike) -> Axes:
    """Return the way to store a grid whose axes lie nearest to the world's: right, anterior, superior.

    The same grid has the same answer however it came: all 48 ways are looked at, and of two that are as near, at
    half of a right angle, the one whose matrix is the larger is taken.

    Args:
      affine: 4x4, voxel index to world [mm].
    """
    matrix = np.asarray(affine, np.float64)[:3, :3]
    rotation = matrix / np.linalg.norm(matrix, axis=0)

    def near(axes: Axes) -> tuple[float, ...]:
        stored = np.round(rotation[:, axes.order] * axes.signs, 4)
        return (round(float(np.trace(stored)), 3), *stored.ravel().tolist())

    ways = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    return max((Axes(order, signs) for order, signs in ways), key=near)
