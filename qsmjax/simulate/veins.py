"""Branching veins: what label maps of the brain lack.

A vein is a walk that keeps its direction but for a little noise, gets thinner on its way, and sends off branches. It is
kept as the balls that it is made of, in world coordinates [mm], so that it can be painted on a grid of any orientation.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Float

STEP = 0.4
"""Distance between the balls [mm]."""


class Balls(NamedTuple):
    """Spheres in world coordinates.

    Attributes:
      centre: [mm].
      radius: [mm].
      chi: susceptibility [ppm].
    """

    centre: Float[np.ndarray, "n 3"]
    radius: Float[np.ndarray, " n"]
    chi: Float[np.ndarray, " n"]


def grow_veins(
    rng: np.random.Generator, inside: np.ndarray, affine: np.ndarray, *, count: int = 110, chi: float = 0.3
) -> Balls:
    """Grow veins from the surface of the brain and of its ventricles into the tissue.

    Args:
      rng: of the random walk.
      inside: tissue where veins may run, on the label map's grid.
      affine: of that grid.
      count: how many trees.
      chi: mean susceptibility of venous blood [ppm relative to CSF].
    """
    inverse = np.linalg.inv(affine)
    rim = np.argwhere(inside & ~scipy.ndimage.binary_erosion(inside))
    roots = rim[rng.integers(len(rim), size=count)] @ affine[:3, :3].T + affine[:3, 3]
    middle = np.argwhere(inside).mean(0) @ affine[:3, :3].T + affine[:3, 3]
    walks = [(root, _unit(_unit(middle - root) + 0.6 * rng.normal(size=3)), rng.uniform(0.5, 1.3), 0) for root in roots]
    centres, radii, values = [], [], []
    while walks:
        place, direction, radius, generation = walks.pop()
        strength = chi * rng.uniform(0.7, 1.2)
        for _ in range(int(rng.uniform(12, 45) / STEP)):
            place, direction = place + STEP * direction, _unit(direction + 0.09 * rng.normal(size=3))
            radius *= 0.9925
            cell = np.round(inverse[:3, :3] @ place + inverse[:3, 3]).astype(int)
            outside = (cell < 0).any() or (cell >= inside.shape).any() or not inside[tuple(cell)]
            if outside or radius < 0.2:
                break
            centres.append(place)
            radii.append(radius)
            values.append(strength)
            if generation < 3 and rng.uniform() < 0.03:
                branch = _unit(direction + 0.7 * rng.normal(size=3))
                walks.append((place, branch, 0.75 * radius, generation + 1))
    return Balls(np.reshape(centres, (-1, 3)), np.asarray(radii), np.asarray(values))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)
