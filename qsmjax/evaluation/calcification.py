"""What a reconstruction makes of a calcification: its moment, and the streaks around it.

The lesion is looked for in a cube that leaves 3 voxels around the true one; a rim of 4 more voxels holds the streaks;
a further 4 tell how negative the map gets where no calcification is.

References:
  QSM Challenge 2.0 Organization Committee, Magn. Reson. Med. 86:1241 (2021), doi:10.1002/mrm.28754.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qsmjax.evaluation.moments import count, mean, slope, std, total
from qsmjax.numerics.arrays import as_mask, as_volume, check_grid

CUBE, RIM, OUTER = 3, 7, 11
"""Voxels around the calcification's box, counted from the box."""
THRESHOLDS = 351
"""Steps of 0.01 ppm from 0 down to -3.5."""


class CalcificationError(NamedTuple):
    """Error of a calcification.

    Attributes:
      moment: |moment - true moment| [ppm · voxels].
      streak: standard deviation in the rim over the calcification's mean; NaN where none is found.
    """

    moment: Float[Array, ""]
    streak: Float[Array, ""]


def calcification_error(chi: ArrayLike, truth: ArrayLike, calcification: ArrayLike) -> CalcificationError:
    """Compare the moment of a calcification with the true one, and weigh the streaks that it throws.

    The reconstructed calcification is what lies, within the cube, below the threshold that nothing around the cube
    reaches: the highest of 0, -0.01, ..., -3.5 ppm. Its moment is its sum. The streak index is the standard deviation
    of the rim about its regression line on the truth, divided by the calcification's mean.

    Args:
      chi: the map to judge [ppm], (x, y, z).
      truth: the reference [ppm].
      calcification: mask of the true one.

    Returns:
      Both; NaN where there is no calcification.

    Raises:
      ValueError: if the grids differ.
    """
    chi, truth = as_volume("chi", chi), as_volume("truth", truth)
    check_grid("truth", truth, chi.shape)
    lesion = as_mask("calcification", calcification, chi.shape)
    cube, rim, outer = (_box_around(lesion, margin) for margin in (CUBE, RIM, OUTER))
    rim, outer = rim & ~cube, outer & ~cube
    lowest = jnp.min(jnp.where(outer, chi, jnp.inf))
    thresholds = jnp.arange(THRESHOLDS) * -0.01
    unreached = lowest >= thresholds
    threshold = jnp.where(unreached.any(), thresholds[jnp.argmax(unreached)], thresholds[-1])
    found = cube & (chi < threshold)
    true_moment = total(jnp.where(lesion, truth, 0))
    moment = jnp.abs(true_moment - total(jnp.where(found, chi, 0)))
    line = slope(truth, chi, rim)
    # a constant rim has no slope: the line is then flat
    residual = chi - jnp.where(jnp.isfinite(line), line, 0) * truth
    streak = std(residual, rim) / jnp.abs(mean(chi, found))
    known = count(lesion) > 0
    return CalcificationError(jnp.where(known, moment, jnp.nan), jnp.where(known, streak, jnp.nan))


def _box_around(lesion: Bool[Array, "x y z"], margin: int) -> Bool[Array, "x y z"]:
    """Mask the box that leaves `margin` voxels around the lesion."""
    box = jnp.ones(lesion.shape, bool)
    for axis in range(3):
        line = lesion.any(tuple(a for a in range(3) if a != axis))
        at = jnp.arange(line.size)
        first, last = jnp.argmax(line), line.size - 1 - jnp.argmax(line[::-1])
        inside = (at >= first - margin) & (at <= last + margin)
        box = box & inside.reshape([-1 if a == axis else 1 for a in range(3)])
    return box
