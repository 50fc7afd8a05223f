"""A head turned in the scanner: what several orientations of one head are, and where each lies.

    r' = R (r - c) + c,    R by the angle about an axis across B0, c the brain's centre

B0 keeps to world z: what turns is the head with all that is in it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from qsmjax.simulate.anatomy import Anatomy

ORIENTATIONS = ((0, 0), (1, 0), (1, 90), (1, 180), (1, 270), (0.6, 45), (0.6, 135), (0.6, 225), (0.6, 315))
"""Parts of the largest tilt, and the direction of its axis [degrees], in the order in which they are taken."""


def posture(head: Anatomy, index: int, tilt: float) -> Float[np.ndarray, "4 4"]:
    """Return the motion that brings a head into one of its orientations, the first the neutral one.

    Args:
      head: whose brain's centre stays where it is.
      index: of the orientation, in `ORIENTATIONS`.
      tilt: the largest angle [rad].

    Returns:
      4x4, world to world [mm].
    """
    part, direction = ORIENTATIONS[index]
    axis = np.cos(np.radians(direction)), np.sin(np.radians(direction)), 0.0
    turn = turn_about(axis, part * tilt)
    centre = head.affine[:3, :3] @ np.argwhere(head.brain).mean(0) + head.affine[:3, 3]
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, centre - turn @ centre
    return motion


def turn_about(axis: Sequence[float], angle: float) -> Float[np.ndarray, "3 3"]:
    """Return the rotation by an angle [rad] about an axis, by the right-hand rule and in double precision."""
    return Rotation.from_rotvec(angle * np.asarray(axis, float) / np.linalg.norm(axis)).as_matrix()


def moved(head: Anatomy, motion: Float[np.ndarray, "4 4"]) -> Anatomy:
    """Move a head rigidly in the world.

    Args:
      head: the anatomy.
      motion: 4x4, world to world [mm].
    """
    centres = head.balls.centre @ motion[:3, :3].T + motion[:3, 3]
    return dataclasses.replace(head, affine=motion @ head.affine, balls=head.balls._replace(centre=centres))
