"""Rigid transforms as FSL's FLIRT writes them: 4x4 text, moving to fixed, in FSL's own millimetres.

    fsl = voxel index · voxel size, with x counted from the other end where the affine's determinant is positive

References:
  Jenkinson et al., NeuroImage 17:825 (2002), doi:10.1006/nimg.2002.1132.
"""

import os

import numpy as np
from jax.typing import ArrayLike

from qsmjax.registration.resample import check_matrix


def to_flirt(
    transform: ArrayLike,
    moving_affine: ArrayLike,
    moving_shape: tuple[int, ...],
    fixed_affine: ArrayLike,
    fixed_shape: tuple[int, ...],
) -> np.ndarray:
    """Turn a transform (fixed world to moving world) into FLIRT's matrix (moving to fixed).

    Args:
      transform: 4x4 [mm], as `rigid.register_rigid` gives it.
      moving_affine: voxel index to world [mm], FLIRT's -in.
      moving_shape: its voxels.
      fixed_affine: voxel index to world [mm], FLIRT's -ref.
      fixed_shape: its voxels.
    """
    moving, fixed = _fsl_to_world(moving_affine, moving_shape), _fsl_to_world(fixed_affine, fixed_shape)
    forward = np.linalg.inv(np.asarray(check_matrix("transform", transform), np.float64))
    return np.linalg.inv(fixed) @ forward @ moving


def from_flirt(
    matrix: ArrayLike,
    moving_affine: ArrayLike,
    moving_shape: tuple[int, ...],
    fixed_affine: ArrayLike,
    fixed_shape: tuple[int, ...],
) -> np.ndarray:
    """Turn FLIRT's matrix (moving to fixed) into a transform (fixed world to moving world): `to_flirt`'s inverse."""
    moving, fixed = _fsl_to_world(moving_affine, moving_shape), _fsl_to_world(fixed_affine, fixed_shape)
    forward = fixed @ np.asarray(check_matrix("matrix", matrix), np.float64) @ np.linalg.inv(moving)
    return np.linalg.inv(forward)


def write_flirt(path: str | os.PathLike[str], matrix: ArrayLike) -> None:
    """Write FLIRT's matrix as text."""
    np.savetxt(path, np.asarray(check_matrix("matrix", matrix), np.float64), fmt="%.10f", delimiter="  ")


def read_flirt(path: str | os.PathLike[str]) -> np.ndarray:
    """Read FLIRT's matrix from text.

    Raises:
      ValueError: if the file does not hold 4x4 numbers ending in the row 0 0 0 1.
    """
    try:
        matrix = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)} must hold 4x4 numbers as FLIRT writes them: {error}") from error
    if matrix.shape != (4, 4) or not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise ValueError(f"{os.fspath(path)} must hold 4x4 numbers ending in 0 0 0 1, got shape {matrix.shape}")
    return matrix


def _fsl_to_world(affine: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    matrix = np.asarray(check_matrix("affine", affine), np.float64)
    voxels = np.diag([*(1 / np.linalg.norm(matrix[:3, :3], axis=0)), 1.0])
    if np.linalg.det(matrix[:3, :3]) > 0:
        voxels[0] *= -1
        voxels[0, 3] = shape[0] - 1
    return matrix @ voxels
