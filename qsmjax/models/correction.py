"""The network of the learned inversion: a residual U-Net that corrects a map of which it sees what the physics sees.

What it is shown is `models.unrolled.look`'s; its output begins at zero, so that untrained it leaves the map as it is.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qsmjax.models.layers import Conv3d
from qsmjax.models.unrolled import ABOUT, FEATURES, OFFSET, UNIT
from qsmjax.numerics.arrays import Volume

SIZES = (0.5, 0.035, 0.05, 0.2, 0.015, 0.36, 0.1, 1.0)
"""Typical sizes of the volumes (medians of their deviations over the training scans)."""
UNCALIBRATED = (0.0, 1.0)
"""Calibration that leaves the spread as it is."""


class Correction(nn.Module):
    """A residual U-Net on volumes that are folded by two, so that most of its work is done at half resolution.

    Attributes:
      width: channels at half, quarter and eighth resolution.
      blocks: residual blocks at each, on the way down and on the way up.
      dtype: of the arithmetic; parameters and output are float32.
    """

    width: tuple[int, ...] = (32, 64, 96)
    blocks: int = 1
    dtype: DTypeLike = jnp.float32

    @property
    def stride(self) -> int:
        """Return the multiple that the volumes' sizes must be of."""
        return 2 ** len(self.width)

    @nn.compact
    def __call__(
        self, features: Float[Array, "n x y z f"], numbers: Float[Array, "n k"]
    ) -> tuple[Float[Array, "n x y z"], Float[Array, "n x y z"]]:
        """Correct a map.

        Args:
          features: from `look`; sizes are multiples of `stride`.
          numbers: from `about`.

        Returns:
          What is to be added to the sharp map [ppm], and the logarithm of the standard deviation that is left
          [log ppm].
        """
        chi = UNIT * jnp.sinh(features[..., 0])
        maps = Conv3d(self.width[0], 3, self.dtype)(space_to_depth(levelled(features).astype(self.dtype)))
        kept = []
        for level, width in enumerate(self.width):
            if level:
                maps = Conv3d(width, 1, self.dtype)(space_to_depth(maps))
            maps = self._blocks(maps, numbers, width)
            kept.append(maps)
        for level in reversed(range(len(self.width) - 1)):
            width = self.width[level]
            raised = depth_to_space(Conv3d(8 * width, 1, self.dtype)(maps))
            maps = self._blocks(kept[level] + raised, numbers, width)
        # normalised, so that a step of the optimiser is small beside the errors however large the maps have grown
        maps = nn.relu(nn.LayerNorm()(maps.astype(jnp.float32)))
        change = depth_to_space(_Zero(8)(maps))[..., 0]
        # what is uncertain is read off what the map needs: it must not pull the network its own way
        seen = nn.relu(nn.Dense(self.width[0])(jax.lax.stop_gradient(maps)))
        spread = depth_to_space(_Zero(8)(seen))[..., 0]
        # errors grow with the source: near lesions they are a part of it
        scale = UNIT * jnp.sqrt(1 + (chi / (4 * UNIT)) ** 2)
        return 0.2 * scale * change, jnp.log(0.2 * scale) + 4 * jnp.tanh(spread / 4)

    def _blocks(self, maps, numbers, width: int):
        for _ in range(self.blocks):
            told = nn.Dense(width, dtype=self.dtype)(numbers)[:, None, None, None]
            inner = Conv3d(width, 3, self.dtype)(nn.relu(maps + told))
            inner = nn.LayerNorm(dtype=self.dtype)(inner)
            maps = maps + Conv3d(width, 3, self.dtype)(nn.relu(inner))
        return maps


def deviation(spread: Volume, calibration: Float[Array, "2"]) -> Volume:
    """Return the standard deviation that is left [ppm]: its logarithm is linear in the spread.

    Args:
      spread: from the last stage.
      calibration: constant, and factor of the spread (`training.calibration.calibrate`).
    """
    return jnp.exp(calibration[0] + calibration[1] * spread)


def check_params(network: Correction, params: Mapping[str, Any]) -> None:
    """Check that parameters are a network's.

    Raises:
      ValueError: if their names or shapes are others.
    """
    box, numbers = jnp.zeros((1, *(network.stride,) * 3, FEATURES)), jnp.zeros((1, ABOUT))
    expected = jax.eval_shape(network.init, jax.random.key(0), box, numbers)["params"]
    shapes = lambda tree: jax.tree.map(lambda array: str(array.shape), dict(tree))
    if shapes(params) != shapes(expected):
        raise ValueError("weights must be those of the network in their card, got others: train it again")


@partial(jax.jit, static_argnums=0)
def correct(
    network: Correction, params: Any, features: Float[Array, "x y z f"], numbers: Float[Array, " k"]
) -> tuple[Volume, Volume]:
    """Apply a correction to one scan: change [ppm] and spread [log ppm]."""
    x, y, z = features.shape[:3]
    padded = jnp.pad(features, [*[(0, -n % network.stride) for n in (x, y, z)], (0, 0)])
    made: Any = network.apply({"params": params}, padded[None], numbers[None])
    change, spread = made
    return change[0, :x, :y, :z], spread[0, :x, :y, :z]


def levelled(features: Float[Array, "n x y z f"]) -> Float[Array, "n x y z d"]:
    """Bring what was looked at to the same size, the rare strong value nearer; the mask becomes a volume of its own.

    A step towards the data is a hundredth of the noise's logarithm, and is what a correction is made of.
    """
    inside = (features[..., -1:] > 0).astype(features.dtype)
    noise = features[..., -1:] - OFFSET * inside
    parts = jnp.concatenate([features[..., :-1], noise], -1) / jnp.asarray(SIZES, features.dtype)
    return jnp.concatenate([jnp.arcsinh(parts), inside], -1)


class _Zero(nn.Module):
    """Product over channels that begins at zero: an untrained network leaves the map as it is."""

    features: int

    @nn.compact
    def __call__(self, maps: Float[Array, "n x y z c"]) -> Float[Array, "n x y z d"]:
        kernel = self.param("kernel", nn.initializers.zeros, (maps.shape[-1], self.features), jnp.float32)
        return maps @ kernel + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


def space_to_depth(maps: Float[Array, "n x y z c"]) -> Float[Array, "n x2 y2 z2 d"]:
    """Fold blocks of 2x2x2 voxels into channels."""
    n, x, y, z, channels = maps.shape
    blocks = maps.reshape(n, x // 2, 2, y // 2, 2, z // 2, 2, channels)
    return blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, x // 2, y // 2, z // 2, 8 * channels)


def depth_to_space(maps: Float[Array, "n x y z c"]) -> Float[Array, "n x2 y2 z2 d"]:
    """Unfold channels into blocks of 2x2x2 voxels: the inverse of `space_to_depth`."""
    n, x, y, z, channels = maps.shape
    blocks = maps.reshape(n, x, y, z, 2, 2, 2, channels // 8)
    return blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, 2 * x, 2 * y, 2 * z, channels // 8)
