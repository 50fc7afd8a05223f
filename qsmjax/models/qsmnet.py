"""QSMnet: a 3-D U-Net from the local field to susceptibility.

    depth times:  [conv - norm - activation] twice, max pool      width · 2^i channels
    at the bottom: [conv - norm - activation] twice
    depth times:  transposed conv, concatenation, [conv - norm - activation] twice
    last:         1x1x1 convolution

Volumes are (n, x, y, z, 1), field and susceptibility both normalised (`models.scaling`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from qsmjax.models.convolution import max_pool3d
from qsmjax.models.layers import Conv3d, Upsample3d

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "leaky_relu": lambda values: nn.leaky_relu(values, 0.1),
    "silu": nn.silu,
}
"""ReLU is the paper's; its published code has the leaky one, of slope 0.1."""


class QSMnet(nn.Module):
    """The network of the paper, its sizes free; by default its own: 99.5 million weights.

    Attributes:
      width: channels of the finest level, doubled at each coarser one.
      depth: number of poolings.
      kernel: edge of the convolutions.
      activation: a name in `ACTIVATIONS`.
      momentum: of the batch norms' running statistics.
      dtype: of the arithmetic; parameters and statistics stay float32.
      remat: compute each level anew for the gradient, instead of keeping its activations.

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
    """

    width: int = 32
    depth: int = 4
    kernel: int = 5
    activation: str = "relu"
    momentum: float = 0.99
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, field: Float[Array, "n x y z 1"], train: bool = False, axis_name: str | None = None
    ) -> Float[Array, "n x y z 1"]:
        """Map fields of any size: they are padded with zeros to a multiple of the coarsest voxel and cropped back.

        Args:
          field: normalised field.
          train: normalise by the batch's own statistics, and update the running ones.
          axis_name: of the devices that share the batch, where there are several.

        Returns:
          Normalised susceptibility, float32.
        """
        level = nn.remat(Level) if self.remat else Level
        block = lambda channels, name: level(
            channels, self.kernel, self.activation, self.momentum, self.dtype, train, axis_name, name=name
        )
        margins = [(-n) % 2**self.depth for n in field.shape[1:4]]
        maps = jnp.pad(field, [(0, 0), *[(m // 2, m - m // 2) for m in margins], (0, 0)]).astype(self.dtype)
        skips = []
        for i in range(self.depth):
            skips.append(block(self.width * 2**i, f"down_{i}")(maps))
            maps = max_pool3d(skips[-1])
        maps = block(self.width * 2**self.depth, "bottom")(maps)
        for i in reversed(range(self.depth)):
            maps = Upsample3d(self.width * 2**i, self.dtype, name=f"rise_{i}")(maps)
            maps = block(self.width * 2**i, f"up_{i}")(jnp.concatenate([skips[i], maps], -1))
        maps = Conv3d(1, 1, self.dtype, name="last")(maps).astype(jnp.float32)
        inner = [slice(m // 2, m // 2 + n) for m, n in zip(margins, field.shape[1:4])]
        return maps[(slice(None), *inner)]


class Level(nn.Module):
    """Twice: convolution, batch norm, activation."""

    channels: int
    kernel: int
    activation: str
    momentum: float
    dtype: DTypeLike
    train: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, maps: Float[Array, "n x y z c"]) -> Float[Array, "n x y z d"]:
        """Apply both."""
        for i in range(2):
            maps = Conv3d(self.channels, self.kernel, self.dtype, name=f"conv_{i}")(maps)
            maps = nn.BatchNorm(
                use_running_average=not self.train,
                momentum=self.momentum,
                dtype=self.dtype,
                axis_name=self.axis_name if self.train else None,
                name=f"norm_{i}",
            )(maps)
            maps = ACTIVATIONS[self.activation](maps)
        return maps
