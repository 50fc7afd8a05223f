"""A volume in overlapping tiles: what memory does not hold whole goes through a network piece by piece.

Each tile is computed with a halo of its surroundings, and only its inside is kept. Tiles start at multiples of the
network's total stride, so that its poolings fall on the same voxels as in the whole volume, and none reaches beyond it:
a layer sees the same border. Where the halo covers the network's field of view, tiles and whole volume agree.
"""

import itertools
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from qsmjax.numerics.memory import exhausted

Made = TypeVar("Made")
TILE = 96
"""Edge of the tiles [voxels] of a volume that turned out not to fit."""


def whole_or_tiled(whole: Callable[[], Made], tiled: Callable[[int], Made], *, tile: int | None = None) -> Made:
    """Compute volumes whole; in tiles where they are asked for, or where the device's memory does not hold the whole.

    Args:
      whole: computes it at once.
      tiled: the same in tiles of an edge [voxels].
      tile: the edge that is asked for; None to try the whole first.
    """
    if tile is not None:
        return tiled(tile)
    try:
        # what is computed aside raises where it is waited for
        return jax.block_until_ready(whole())
    except RuntimeError as error:
        if not exhausted(error):
            raise
    return tiled(TILE)


def apply_tiled(
    function: Callable[..., ArrayLike], volumes: tuple[np.ndarray, ...], *, tile: int, halo: int, stride: int = 1
) -> np.ndarray:
    """Apply a function that keeps the grid, tile by tile.

    Args:
      function: volumes (x, y, z) of one shape -> one of that shape, axes may follow; called with one shape only.
      volumes: on one grid; zeros are put after their ends, up to a multiple of the stride.
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
    up = lambda n: -(-n // stride) * stride
    tile, halo = up(tile), up(halo)
    shape = volumes[0].shape
    whole_shape = [up(n) for n in shape]
    padded = [np.pad(volume, [(0, m - n) for m, n in zip(whole_shape, shape)]) for volume in volumes]
    size = [min(tile + 2 * halo, n) for n in whole_shape]
    whole: np.ndarray | None = None
    for index in itertools.product(*(range(0, n, tile) for n in whole_shape)):
        first = [min(max(at - halo, 0), n - s) for at, n, s in zip(index, whole_shape, size)]
        made = np.asarray(function(*(volume[tuple(slice(f, f + s) for f, s in zip(first, size))] for volume in padded)))
        if whole is None:
            whole = np.zeros((*whole_shape, *made.shape[3:]), np.float32)
        kept = [slice(at, min(at + tile, n)) for at, n in zip(index, whole_shape)]
        whole[tuple(kept)] = made[tuple(slice(k.start - f, k.stop - f) for k, f in zip(kept, first))]
    assert whole is not None
    return whole[tuple(slice(0, n) for n in shape)]
