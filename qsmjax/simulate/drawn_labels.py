"""A label map out of nothing: a head with cortex, nuclei and ventricles for those who have no label map at hand.

The structures of `procedural`, painted as FreeSurfer's numbers: each a shaken ellipsoid, the cortex a ribbon folded
along the zero set of a random field. What follows (`anatomy`, `scan`) is the same as for a label map of a person.
"""

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Float, Int32, Key

from qsmjax.simulate.procedural import BRAIN, STRUCTURES
from qsmjax.simulate.tissue import FREESURFER

# FreeSurfer has none for these: `anatomy` places them itself
UNLABELLED = ("red_nucleus", "substantia_nigra", "dentate")
DIENCEPHALON = ((7, -16, -9), (7, 8, 7))
"""Where red nucleus and substantia nigra are placed: centre and half axes, as in `STRUCTURES`."""
RIBBON = 3.0
"""Thickness of the cortex [mm]."""


def drawn_labels(
    key: Key[Array, ""], voxel_size: float = 1.5
) -> tuple[Int32[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Draw a label map.

    Args:
      key: random key; the same key gives the same map.
      voxel_size: edge of its voxels [mm].

    Returns:
      Labels in FreeSurfer's numbers, air around them, and their affine (voxel index to world [mm]).
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    half = np.asarray(BRAIN) * rng.uniform(0.93, 1.07, 3)
    shape = tuple(int(n) for n in np.ceil((2 * half + 24) / voxel_size))
    axes = [(np.arange(n) - (n - 1) / 2) * voxel_size * b / h for n, b, h in zip(shape, BRAIN, half)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"))
    for axis in range(3):
        points[axis] += 2.0 * _smooth(rng, shape, 25.0 / voxel_size)
    depth = -_distance(points, np.zeros(3), np.asarray(BRAIN))
    sulcus = 4.0 * np.abs(_smooth(rng, shape, 5.0 / voxel_size)) + np.maximum(depth - rng.uniform(10, 16), 0)
    outer = np.minimum(depth, sulcus)
    labels = np.select([depth < 0, outer < 1.0, outer < 1.0 + RIBBON], [0, 24, 3], 2).astype(np.int32)
    between = tuple((c, r, name) for _, c, r, name in STRUCTURES if name not in UNLABELLED)
    both = [bool(m) for m, *_, name in STRUCTURES if name not in UNLABELLED]
    structures = (*between, (*DIENCEPHALON, "diencephalon"))
    for (centre, radii, name), mirrored in zip(structures, (*both, True)):
        number = FREESURFER["ventricle" if name == "csf" else name][0]
        side = np.stack([np.abs(points[0]) if mirrored else points[0], points[1], points[2]])
        shaken = np.asarray(centre) + rng.normal(size=3) * (0.5 if mirrored else (0, 0.5, 0.5))
        labels[(_distance(side, shaken, np.asarray(radii) * rng.uniform(0.9, 1.1)) < 0) & (depth > 0)] = number
    affine = np.diag([voxel_size] * 3 + [1.0])
    affine[:3, 3] = -voxel_size * (np.asarray(shape) - 1) / 2
    return labels, affine


def _distance(points: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return about the distance from an ellipsoid's surface, negative inside [mm]."""
    scaled = [(points[i] - centre[i]) / radii[i] for i in range(3)]
    near = np.sqrt(sum(s**2 for s in scaled) + 1e-6)
    steep = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii)) + 1e-9)
    return near * (near - 1) / steep


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    """Draw a smooth field of unit variance."""
    field = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="wrap")
    return (field - field.mean()) / field.std()
