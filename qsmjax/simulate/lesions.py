"""Lesions: bleeds, calcifications and plaques, as balls that are painted over the tissue one after another."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from qsmjax.simulate.veins import Balls

Kind = Literal["microbleed", "haemorrhage", "calcification", "plaque"]
RADIUS = {"microbleed": (0.8, 2.0), "haemorrhage": (3.5, 8.0), "calcification": (1.5, 3.5), "plaque": (2.5, 6.0)}
"""Least and largest radius [mm]."""
CHI = {"microbleed": (0.3, 1.5), "haemorrhage": (0.9, 1.4), "calcification": (-2.0, -0.4), "plaque": (0.03, 0.08)}
"""Least and largest susceptibility [ppm relative to CSF]; a plaque's is that of its rim."""


PARTS = {"microbleed": 1, "haemorrhage": 5, "calcification": 1, "plaque": 2}
"""Balls that each kind is made of."""


class Lesion(NamedTuple):
    """A lesion to place.

    Attributes:
      kind: what it is.
      chi: [ppm relative to CSF]; None to draw it.
      radius: [mm]; None to draw it.
      tissue: where its centre lies.
    """

    kind: Kind
    chi: float | None = None
    radius: float | None = None
    tissue: str = "white"


def place_lesions(
    rng: np.random.Generator, lesions: Sequence[Lesion], classes: np.ndarray, names: Sequence[str], affine: np.ndarray
) -> Balls:
    """Place lesions at random in their tissues.

    A plaque is a rim with a centre of a fifth of its susceptibility. A haemorrhage is a cluster of balls about one
    centre, so that it is no sphere.

    Args:
      rng: of the places, sizes and strengths.
      lesions: which.
      classes: tissue numbers on the label map's grid.
      names: tissue of each number.
      affine: of that grid.

    Raises:
      ValueError: if a kind is unknown, or its tissue is nowhere.
    """
    balls = []
    for lesion in lesions:
        if lesion.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {lesion.kind!r}")
        home = np.argwhere(classes == names.index(lesion.tissue)) if lesion.tissue in names else np.zeros((0, 3))
        if not len(home):
            raise ValueError(f"tissue must be in the label map, got {lesion.tissue!r}: choose another for the lesion")
        centre = affine[:3, :3] @ home[rng.integers(len(home))] + affine[:3, 3]
        radius = rng.uniform(*RADIUS[lesion.kind]) if lesion.radius is None else lesion.radius
        chi = rng.uniform(*CHI[lesion.kind]) if lesion.chi is None else lesion.chi
        balls.append((centre, radius, chi))
        if lesion.kind == "plaque":
            balls.append((centre, 0.65 * radius, 0.2 * chi))
        if lesion.kind == "haemorrhage":
            around = centre + 0.6 * radius * rng.normal(size=(PARTS["haemorrhage"] - 1, 3))
            balls += [(near, 0.6 * radius, chi) for near in around]
    centres, radii, values = ([ball[i] for ball in balls] for i in range(3))
    return Balls(np.reshape(centres, (-1, 3)), np.asarray(radii, float), np.asarray(values, float))
