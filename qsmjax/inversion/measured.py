"""What a field map knows, as the methods use it: the field in its mask, trust in each voxel, noise, and the weight."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion.weighting import BALANCE, auto_weight, data_weights, noise_level
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.physics.geometry import Geometry


class Measured(NamedTuple):
    """A field and how far to trust it.

    Attributes:
      field: [ppm], zero outside the mask.
      trust: data weights, of mean one in the mask.
      level: standard deviation of the noise [ppm].
      weight: of the regulariser: the one that was asked for, or the one that the noise asks for [ppm mm].
    """

    field: Volume
    trust: Volume
    level: Float[Array, ""]
    weight: ArrayLike


def measured(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    noise: Volume | None,
    magnitude: Volume | None,
    weight: ArrayLike | None = None,
    balance: float = BALANCE,
) -> Measured:
    """Prepare a field for a method that regularises."""
    field = jnp.where(mask, field, 0)
    level = noise_level(field, mask, geometry, noise)
    weight = auto_weight(level, field, mask, geometry, balance) if weight is None else weight
    return Measured(field, data_weights(mask, noise, magnitude), level, weight)
