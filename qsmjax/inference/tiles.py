"""A volume in overlapping tiles: what memory does not hold whole goes through a network piece by piece.

Each tile is computed with a halo of its surroundings, and only its inside is kept. Tiles start at multiples of the
network's total stride, so that its poolings fall on the same voxels as in the whole volume: where the halo covers the
network's field of view, tiles and whole volume agree.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jax.typing import ArrayLike


def apply_tiled(
    function: Callable[..., ArrayLike], volumes: tuple[np.ndarray, ...], *, tile: int, halo: int, stride: int = 1
) -> np.ndarray:
    """Apply a function that keeps the grid, tile by tile.

    Args:
      function: volumes (x, y, z) of one shape -> one of that shape, axes may follow; called with one shape only.
      volumes: on one grid; zeros are put around them.
      tile: edge of what is kept of each tile, in voxels; rounded up to the stride.
      halo: voxels around it that are computed and thrown away; rounded up to the stride.
      stride: the network's total stride.

    Returns:
      The volume put together.

    Raises:
      ValueError: if tile or stride is not positive, or the halo negative.
    """
    if tile < 1 or stride < 1 or halo < 0:
        raise ValueError(f"tile and stride must be positive and halo not negative, got {tile}, {stride} and {halo}")
    tile, halo = (-(-n // stride) * stride for n in (tile, halo))
    shape = volumes[0].shape
    counts = [-(-n // tile) for n in shape]
    around = [(halo, count * tile - n + halo) for count, n in zip(counts, shape)]
    padded = [np.pad(volume, around) for volume in volumes]
    whole: np.ndarray | None = None
    for index in itertools.product(*(range(count) for count in counts)):
        cut = tuple(slice(i * tile, (i + 1) * tile + 2 * halo) for i in index)
        made = np.asarray(function(*(volume[cut] for volume in padded)))
        inside = made[tuple(slice(halo, halo + tile) for _ in index)]
        if whole is None:
            whole = np.zeros((*(count * tile for count in counts), *made.shape[3:]), np.float32)
        whole[tuple(slice(i * tile, (i + 1) * tile) for i in index)] = inside
    assert whole is not None
    return whole[tuple(slice(0, n) for n in shape)]
