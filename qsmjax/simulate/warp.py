"""Elastic warps of label maps, so that no two heads are alike."""

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Key, Shaped


def warp_labels(
    key: Key[Array, ""],
    labels: Shaped[np.ndarray, "x y z"],
    affine: np.ndarray,
    *,
    reach: float = 3.0,
    scale: float = 36.0,
) -> Shaped[np.ndarray, "x y z"]:
    """Bend a label map by a smooth random displacement.

    Args:
      key: random key.
      labels: integers.
      affine: voxel index to world [mm]; its voxel sizes alone matter.
      reach: standard deviation of the displacement along each axis at the knots of a grid, between which it is less
        [mm]; at most a twelfth of `scale`, so that nothing folds.
      scale: distance of the knots [mm].

    Returns:
      The bent map; what came from beyond the edge is what lay at the edge.

    Raises:
      ValueError: if reach is negative, or more than a twelfth of scale.
    """
    if not 0 <= reach <= scale / 12:
        raise ValueError(f"reach must be from 0 to a twelfth of scale, {scale / 12:g} mm, got {reach}")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    voxel = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    # drawn on a coarse grid, whose cubic interpolation is smooth
    coarse = [max(round(n * d / scale), 1) + 1 for n, d in zip(labels.shape, voxel)]
    index = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in labels.shape], indexing="ij", sparse=True)
    # the interpolation's matrix along each axis: three small products in place of one over the whole volume
    spline = [
        scipy.ndimage.zoom(np.eye(c, dtype=np.float32), (n / c, 1), order=3) for n, c in zip(labels.shape, coarse)
    ]
    places = []
    for axis in range(3):
        knots = np.clip(rng.normal(size=coarse), -2.5, 2.5) * reach / voxel[axis]
        moved = np.einsum("ijk,xi,yj,zk->xyz", np.float32(knots), *spline, optimize=True)
        places.append(index[axis] + moved)
    return scipy.ndimage.map_coordinates(labels, places, order=0, mode="nearest")
