"""To the grid and the B0 direction that a network knows, and back.

    r_network = Q r_scan,    Q b0_dir = b0_dir of the network

Q is the smallest rotation that does so: for a B0 along another voxel axis it is a turn by 90 degrees, which keeps every
voxel's value. Positions are in mm along the voxel axes. Interpolation is by cubic splines; a finer scan is smoothed to
the network's voxels first, since what they can't hold would fold back.
"""

import dataclasses

import jax
import numpy as np
from jax.typing import ArrayLike
from scipy import ndimage

from qsmjax.numerics.arrays import VectorLike
from qsmjax.numerics.box import bounding_box
from qsmjax.physics.geometry import Geometry

SAME_SIZE = 0.02
"""Relative difference in voxel size that a network does not notice."""

SAME_DIRECTION = np.cos(np.radians(1.0))
"""Cosine of the tilt that a network does not notice."""

MARGIN = 2
"""Voxels around the head on the network's grid."""


@dataclasses.dataclass(frozen=True)
class Regrid:
    """The way from a scan's grid to a network's.

    Attributes:
      matrix: 3x3, index on the network's grid to index on the scan's.
      offset: index on the scan's grid of the network's first voxel.
      shape: of the network's grid.
      scan_shape: of the scan's grid.
      coarser: voxels of the scan in one of the network's, along the scan's axes, at least 1.
      degrees: by which the volume is turned.
    """

    matrix: np.ndarray
    offset: np.ndarray
    shape: tuple[int, ...]
    scan_shape: tuple[int, ...]
    coarser: tuple[float, ...]
    degrees: float

    def to_network(self, volume: ArrayLike) -> np.ndarray:
        """Bring a volume to the network's grid; raises ValueError if it is traced."""
        _check_known("field", volume)
        array = np.asarray(volume, np.float32)
        if max(self.coarser) > 1:
            array = ndimage.gaussian_filter(array, [(c - 1) / 2 for c in self.coarser])
        return ndimage.affine_transform(array, self.matrix, self.offset, self.shape, np.float32, order=3)

    def mask_to_network(self, mask: ArrayLike) -> np.ndarray:
        """Bring a mask to the network's grid."""
        part = ndimage.affine_transform(np.asarray(mask, np.float32), self.matrix, self.offset, self.shape, order=1)
        return part > 0.5

    def to_scan(self, volume: ArrayLike) -> np.ndarray:
        """Bring a volume back to the scan's grid."""
        back = np.linalg.inv(self.matrix)
        array = np.asarray(volume, np.float32)
        return ndimage.affine_transform(array, back, -back @ self.offset, self.scan_shape, np.float32, order=3)


def plan(mask: ArrayLike, scan: Geometry, voxel_size: VectorLike, b0_dir: VectorLike) -> Regrid | None:
    """Plan the way to a network's grid; None if the scan is on it.

    Args:
      mask: where the head is, on the scan's grid; the network's grid holds its box.
      scan: the scan's grid.
      voxel_size: of the network [mm].
      b0_dir: direction of B0 that the network knows, in voxel axes.

    Raises:
      ValueError: if the scan's grid is traced, or, where the scan isn't on the network's, the mask; or if it is empty.
    """
    _check_known("geometry", scan.voxel_size, scan.b0_dir)
    size, target = np.asarray(scan.voxel_size, float), np.asarray(voxel_size, float)
    cosine = float(np.asarray(scan.b0_dir, float) @ np.asarray(b0_dir, float))
    if np.allclose(size, target, rtol=SAME_SIZE) and cosine > SAME_DIRECTION:
        return None
    _check_known("mask", mask)
    turn = rotation_between(np.asarray(scan.b0_dir, float), np.asarray(b0_dir, float))
    box = bounding_box(np.asarray(mask))
    low, high = np.asarray([part.start for part in box]), np.asarray([part.stop - 1 for part in box])
    corners = np.array(np.meshgrid(*zip(low, high), indexing="ij")).reshape(3, -1)
    placed = turn @ (corners * size[:, None])
    first = placed.min(axis=1) - MARGIN * target
    shape = np.ceil((placed.max(axis=1) - placed.min(axis=1)) / target - 1e-6).astype(int) + 1 + 2 * MARGIN
    to_scan = turn.T / size[:, None]
    matrix = to_scan * target
    # along each axis of the scan, the network's voxel as seen from there
    coarser = np.abs(turn.T) @ target / size
    x, y, z = (max(float(c), 1.0) for c in coarser)
    return Regrid(
        matrix=matrix,
        offset=to_scan @ first,
        shape=tuple(int(n) for n in shape),
        scan_shape=tuple(scan.shape),
        coarser=(x, y, z),
        degrees=float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _check_known(name: str, *arrays: ArrayLike) -> None:
    """Refuse what is traced: the way between two grids is planned and gone on the host."""
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        raise ValueError(
            f"{name} must be known for a scan to be brought to the network's grid, got a traced one: do so outside of "
            "jit, vmap and grad, and inside apply the network on its own grid (models.scaling.predict)"
        )


def rotation_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the smallest rotation that turns one direction into another.

    Q = I + [v]ₓ + [v]ₓ² / (1 + c),    v = start × end, c = start · end
    """
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cosine = float(start @ end)
    if cosine < -1 + 1e-9:
        # half a turn, about any axis across
        across = np.eye(3)[np.argmin(np.abs(start))]
        across = across - (across @ start) * start
        across /= np.linalg.norm(across)
        return 2 * np.outer(across, across) - np.eye(3)
    v = np.cross(start, end)
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)
