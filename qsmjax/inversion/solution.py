"""What every inversion returns."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from qsmjax.numerics.arrays import Volume
from qsmjax.physics.field_map import FieldMap


def _zero() -> Int[Array, ""]:
    return jnp.asarray(0, jnp.int32)


def _nought() -> Float[Array, "..."]:
    return jnp.asarray(0, jnp.float32)


def _true() -> Bool[Array, "..."]:
    return jnp.asarray(True)


@flax.struct.dataclass
class Solution:
    """A susceptibility map, and how it was come by.

    Attributes:
      chi: [ppm], zero outside the mask.
      std: standard deviation of chi [ppm], where the method knows it.
      iterations: how many were taken; 0 for a closed form.
      residual: the last relative change of chi, or the relative residual of a linear solve; 0 for a closed form.
      converged: whether the residual came down to the tolerance (a fixed count of iterations has none to miss).
      weight: regularisation weight that was used, where the method has one: the number that stands for "auto".
      condition: condition number of the orientations, where there are several.
      local: the field that was inverted, where background was found in the one that was given and was taken out.
    """

    chi: Volume
    std: Volume | None = None
    iterations: Int[Array, "..."] = flax.struct.field(default_factory=_zero)
    residual: Float[Array, "..."] = flax.struct.field(default_factory=_nought)
    converged: Bool[Array, "..."] = flax.struct.field(default_factory=_true)
    weight: Float[Array, "..."] | None = None
    condition: Float[Array, "..."] | None = None
    local: FieldMap | None = None
