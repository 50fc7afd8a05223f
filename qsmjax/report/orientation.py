"""Turn volumes for display: voxel axes in the order right, anterior, superior, each growing that way.

An oblique volume is not resampled: each of its axes is shown as the world axis that it lies closest to.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Upright(NamedTuple):
    """A volume in display order, and its voxel edges in the same order [mm]."""

    volume: NDArray
    voxel_size: tuple[float, float, float]


def upright(volume: ArrayLike, affine: ArrayLike) -> Upright:
    """Permute and flip the axes x, y, z of a volume until they run right, anterior and superior.

    Args:
      volume: (x, y, z).
      affine: 4x4 or its 3x3, voxel index to world [mm] (NIfTI: x right, y anterior, z superior).

    Raises:
      ValueError: if the volume has not three axes.
    """
    array, matrix = np.asarray(volume), np.asarray(affine, float)[:3, :3]
    if array.ndim != 3:
        raise ValueError(f"volume must have the axes x, y, z alone, got shape {array.shape}: pick one of its volumes")
    size = np.linalg.norm(matrix, axis=0)
    cosines = matrix / size
    # world axes take their voxel axes in the order of how clear the match is, so that no voxel axis is taken twice
    order, left = [-1, -1, -1], np.abs(cosines)
    for _ in range(3):
        world, voxel = np.unravel_index(np.argmax(left), left.shape)
        order[world] = int(voxel)
        left[world, :], left[:, voxel] = -1, -1
    backwards = tuple(world for world, voxel in enumerate(order) if cosines[world, voxel] < 0)
    x, y, z = (float(size[voxel]) for voxel in order)
    return Upright(np.flip(array.transpose(order), backwards), (x, y, z))
