"""What the brain's field lies in: air, bone and neck around it, the shim, and the phase of the coils.

Outside its sources a field is harmonic, and every method that removes it goes by that. So it is made of the label map's
cuboids without ringing (`physics.cuboids`), and read between their centres. The lowest and the highest slice of the map
go on beyond it, so that the neck does not end at the map.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from qsmjax.physics.cuboids import cuboid_field
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.sample import interpolate

BEYOND = 40
"""Voxels of the label map by which its lowest and highest slices go on."""


def background_field(
    key: Key[Array, ""],
    head: Anatomy,
    affine: np.ndarray,
    shape: tuple[int, ...],
    brain: np.ndarray,
    *,
    shim: float = 0.02,
) -> Float[np.ndarray, "x y z"]:
    """Make the field of all that lies outside the brain, shimmed to second order over it but for a residue [ppm].

    Args:
      key: of the shim's residue.
      head: the anatomy.
      affine: of the grid to make it on, voxel index to world [mm].
      shape: of that grid.
      brain: mask on it, over which the shim works.
      shim: standard deviation of the shim's residue [ppm].
    """
    source = np.asarray([t.chi for t in head.tissues], np.float32)[head.classes]
    # relative to the air around the head, so that nothing lies beyond the map
    air = head.tissues[head.names.index("air")].chi
    source = np.where(head.brain, 0, source) - np.float32(air)
    up = int(np.argmax(np.abs(head.affine[2, :3]) / np.linalg.norm(head.affine[:3, :3], axis=0)))
    source = np.pad(source, [(BEYOND, BEYOND) if axis == up else (0, 0) for axis in range(3)], mode="edge")
    field = np.asarray(cuboid_field(source, geometry_from_affine(head.affine, source.shape)))
    field = np.take(field, np.arange(BEYOND, source.shape[up] - BEYOND), axis=up)
    to_labels = np.linalg.inv(head.affine) @ affine
    # linear, and not cut to the scan's band: either would carry the field within bone and air, which give no signal,
    # into the brain. A harmonic function is its own mean over a voxel
    made = interpolate(field, to_labels[:3, :3], to_labels[:3, 3], shape)
    terms = _second_order(affine, shape)
    inside = np.argwhere(brain)[:: max(1, int(brain.sum()) // 20000)].T
    columns = np.stack([np.broadcast_to(t, shape)[tuple(inside)] for t in terms], -1)
    weights = np.linalg.lstsq(columns, made[tuple(inside)], rcond=None)[0]
    residue = np.asarray(jax.random.normal(key, (len(terms),))) * shim
    for term, weight, rest in zip(terms, weights, residue):
        made -= np.float32(weight - rest) * term
    return made


def _second_order(affine: np.ndarray, shape: tuple[int, ...]) -> list[Float[np.ndarray, "..."]]:
    """Return the harmonic polynomials of second order over a grid, one at half of its longest edge."""
    size = np.linalg.norm(affine[:3, :3], axis=0)
    # one length for all axes: x² - y² in units of its own along each would not be harmonic
    half = max(n * d for n, d in zip(shape, size)) / 2
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * np.float32(d / half) for n, d in zip(shape, size)]
    x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
    return [x**0 + 0 * y + 0 * z, x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2]


def at_centres(fine: Float[np.ndarray, "x y z"], factor: Sequence[int]) -> Float[np.ndarray, "_ _ _"]:
    """Read a volume on a grid that divides voxels by a factor along each axis at the centres of those voxels."""
    for axis, f in enumerate(factor):
        parts = np.moveaxis(fine, axis, -1).reshape(*np.delete(fine.shape, axis), -1, f)
        fine = np.moveaxis(parts[..., (f - 1) // 2 : f // 2 + 1].mean(-1), -1, axis)
    return fine


def coil_phase(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[np.ndarray, "x y z"]:
    """Draw a smooth phase at TE = 0, of second order over the grid [rad]."""
    draw = np.asarray(jax.random.normal(key, (7,)), np.float32)
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
    slow = draw[0] + draw[1] * x + draw[2] * y + draw[3] * z
    return slow + 0.5 * (draw[4] * x * y + draw[5] * y * z + draw[6] * (x**2 - y**2))
