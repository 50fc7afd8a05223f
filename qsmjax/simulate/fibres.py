"""White matter whose susceptibility depends on its fibres' direction, which no single orientation can tell.

    X = chi + Δ (v vᵀ - 1/3),    v along the fibres, Δ = X along them - X across them

The mean over all directions stays chi. Where the fibres of a head run is not in its label map: they follow the slope of
its texture at 8 mm, which is smooth, random, and the same in every scan of the head.

References:
  Li et al., NeuroImage 59:2088 (2012), doi:10.1016/j.neuroimage.2011.10.038 (anisotropy of white matter in vivo).
"""

import numpy as np
import scipy.ndimage
from jaxtyping import Float, UInt8

from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.sample import interpolate

SMOOTH = 8.0
"""Standard deviation over which the fibres keep their direction [mm]."""
WHITE = ("white", "callosum", "cerebellar_white", "brainstem", "optic")


def fibre_magnetisation(
    head: Anatomy, affine: np.ndarray, classes: UInt8[np.ndarray, "x y z"], anisotropy: float
) -> Float[np.ndarray, "3 x y z"]:
    """Return what the fibres add to the magnetisation, in voxel axes.

    Args:
      head: the anatomy.
      affine: of the grid: voxel index to world [mm]; B0 lies along the world's z.
      classes: tissue of each voxel.
      anisotropy: Δ [ppm].

    Returns:
      Δ (v (v · b) - b / 3) in white matter, zero elsewhere: what `physics.tensor.tensor_field` takes.
    """
    voxel = np.linalg.norm(head.affine[:3, :3], axis=0)
    smooth = scipy.ndimage.gaussian_filter(head.texture, SMOOTH / voxel)
    to_labels = np.linalg.inv(head.affine) @ affine
    # the slope along each axis of the label map, sampled on the grid, then turned into the grid's axes
    slopes = [
        interpolate(part, to_labels[:3, :3], to_labels[:3, 3], classes.shape) / d
        for part, d in zip(np.gradient(smooth), voxel)
    ]
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    turn = (axes.T @ (head.affine[:3, :3] / voxel)).astype(np.float32)
    v = np.tensordot(turn, np.stack(slopes), 1)
    v /= np.maximum(np.linalg.norm(v, axis=0), 1e-12)
    b = axes.T[:, 2].astype(np.float32)
    white = np.isin(classes, [head.names.index(name) for name in WHITE if name in head.names])
    return anisotropy * white * (v * np.tensordot(b, v, 1) - b[:, None, None, None] / 3)
