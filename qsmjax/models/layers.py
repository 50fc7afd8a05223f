"""Layers with weights, on (n, x, y, z, c): parameters in float32, arithmetic in the layer's dtype."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from qsmjax.models.convolution import convolve3d, upsample3d

Maps = Float[Array, "n x y z c"]
Out = Float[Array, "n x2 y2 z2 d"]


def draw_kernel(key: Key[Array, ""], shape: tuple[int, ...], gain: float) -> Array:
    """Draw a kernel of variance gain / fan-in, uniformly; the fan-in is the size of all axes but the last.

    The numbers are drawn in one row: XLA takes ten times as long to compile random numbers on five axes.

    References:
      He et al., ICCV (2015), doi:10.1109/ICCV.2015.123 (gain 2, for rectified units).
    """
    limit = (3 * gain / math.prod(shape[:-1])) ** 0.5
    return jax.random.uniform(key, (math.prod(shape),), jnp.float32, -limit, limit).reshape(shape)


class Conv3d(nn.Module):
    """Convolution that keeps the shape, plus a bias.

    Attributes:
      features: channels out.
      size: edge of the kernel, odd.
      dtype: of the arithmetic.
    """

    features: int
    size: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> Out:
        """Convolve."""
        shape = (self.size,) * 3
        kernel = self.param("kernel", draw_kernel, (*shape, maps.shape[-1], self.features), 2.0).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        maps = maps.astype(self.dtype)
        # one voxel alone is a product over channels
        return (maps @ kernel[0, 0, 0] if self.size == 1 else convolve3d(maps, kernel)) + bias


class Upsample3d(nn.Module):
    """Transposed convolution, 2x2x2 at stride 2, plus a bias.

    Attributes:
      features: channels out.
      dtype: of the arithmetic.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: Maps) -> Out:
        """Double the resolution."""
        # an output voxel sees one tap, an eighth of the fan-in that is counted
        shape = (2, 2, 2, maps.shape[-1], self.features)
        kernel = self.param("kernel", draw_kernel, shape, 8.0).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return upsample3d(maps.astype(self.dtype), kernel) + bias
