"""What a network sees: field and susceptibility with mean zero and variance one over the training set's masks."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.numerics.arrays import Mask, Volume


@flax.struct.dataclass
class Scaling:
    """Means and standard deviations within the training set's masks [ppm]."""

    # not typed by shape: it travels in trees that JAX fills with other things than arrays too
    field_mean: Any = 0.0
    field_std: Any = 1.0
    chi_mean: Any = 0.0
    chi_std: Any = 1.0

    def field_in(self, field: Volume, mask: Mask) -> Volume:
        """Normalise a field; zero outside the mask."""
        return jnp.where(mask, (field - self.field_mean) / self.field_std, 0)

    def chi_in(self, chi: Volume, mask: Mask) -> Volume:
        """Normalise a susceptibility map; zero outside the mask."""
        return jnp.where(mask, (chi - self.chi_mean) / self.chi_std, 0)

    def chi_out(self, normalised: Volume, mask: Mask) -> Volume:
        """Bring a network's output to ppm; zero outside the mask."""
        return jnp.where(mask, normalised * self.chi_std + self.chi_mean, 0)


def predict(
    network: nn.Module, variables: Mapping[str, Any], scaling: Scaling, field: ArrayLike, mask: ArrayLike
) -> Volume:
    """Apply a trained network.

    Args:
      network: from `build`.
      variables: its parameters and running statistics.
      scaling: the one it was trained with.
      field: local field [ppm], (..., x, y, z), on the grid that the network was trained for.
      mask: where it is known.

    Returns:
      Susceptibility [ppm], zero outside the mask.
    """
    field = jnp.asarray(field, jnp.float32)
    mask = jnp.broadcast_to(jnp.asarray(mask) != 0, field.shape)
    weights = jax.tree.map(jnp.asarray, dict(variables))
    seen = scaling.field_in(field, mask).reshape(-1, *field.shape[-3:], 1)
    return scaling.chi_out(jnp.asarray(network.apply(weights, seen)).reshape(field.shape), mask)
