"""Regions of interest: their means and standard deviations, and how linear the means are in the truth's."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.evaluation.moments import count, mean, std
from qsmjax.numerics.arrays import as_volume, check_grid

Regions = Float[Array, "region"]


def region_means(volume: ArrayLike, labels: ArrayLike, numbers: Sequence[int]) -> Regions:
    """Average a volume (x, y, z) over each region; NaN where a region is empty.

    Args:
      volume: what to average, for example chi [ppm].
      labels: whole numbers on the same grid.
      numbers: the labels of the regions.

    Raises:
      ValueError: if the grids differ.
    """
    return _each(mean, volume, labels, numbers)


def region_stds(volume: ArrayLike, labels: ArrayLike, numbers: Sequence[int]) -> Regions:
    """Return the standard deviation of a volume within each region; arguments as in `region_means`."""
    return _each(std, volume, labels, numbers)


def region_counts(labels: ArrayLike, numbers: Sequence[int]) -> Regions:
    """Count the voxels of each region."""
    return _each(lambda _, mask: count(mask), jnp.zeros(jnp.shape(labels)), labels, numbers)


def linearity(chi: ArrayLike, truth: ArrayLike, labels: ArrayLike, numbers: Sequence[int]) -> Float[Array, ""]:
    """Return |1 - slope| of the line through the regions' means, chi against truth; NaN for fewer than two regions.

    References:
      QSM Challenge 2.0 Organization Committee, Magn. Reson. Med. 86:1241 (2021), doi:10.1002/mrm.28754.
    """
    x, y = region_means(truth, labels, numbers), region_means(chi, labels, numbers)
    present = region_counts(labels, numbers) > 0
    centred = [jnp.where(present, v - jnp.mean(v, where=present), 0) for v in (x, y)]
    return jnp.abs(1 - jnp.sum(centred[0] * centred[1]) / jnp.sum(centred[0] ** 2))


def _each(statistic, volume: ArrayLike, labels: ArrayLike, numbers: Sequence[int]) -> Regions:
    volume, labels = as_volume("volume", volume), jnp.asarray(labels)
    check_grid("labels", labels, volume.shape)
    return jax.lax.map(lambda number: statistic(volume, labels == number), jnp.asarray(numbers))
