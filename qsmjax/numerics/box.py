"""The box of a mask: volumes cut to it and padded to a fast size, and put back.

    leave(enter(volume)) = volume inside the box, zero outside

What is far outside a mask carries nothing. Work done in the mask's own box, padded with a margin that keeps the
periodic images off, depends neither on where the head lies in its grid nor on how the grid was padded.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qsmjax.numerics.arrays import Shape, VectorLike
from qsmjax.numerics.kspace import crop_to, fast_shape, pad_to

Box = tuple[slice, slice, slice]


def bounding_box(mask: Array | np.ndarray) -> Box:
    """Return the smallest box around the mask (of any volume of a batch), or the whole grid if the mask is traced.

    Raises:
      ValueError: if the mask is empty.
    """
    if isinstance(mask, jax.core.Tracer):
        x, y, z = (slice(0, n) for n in mask.shape[-3:])
        return x, y, z
    inside = np.asarray(mask).reshape(-1, *mask.shape[-3:]).any(axis=0)
    if not inside.any():
        raise ValueError(f"mask must have at least one voxel, got none in {mask.shape}: check its threshold and grid")
    edges = [np.flatnonzero(np.any(inside, axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (slice(int(at[0]), int(at[-1]) + 1) for at in edges)
    return x, y, z


def frame_shape(box: Box, margin: float, voxel_size: VectorLike | None = None, *, least: int = 0) -> Shape:
    """Return the fast shape that holds a box and the margin that keeps its periodic images off.

    The margin is a part of the box along each axis. Along one that is much shorter than the longest [mm], as of a slab,
    it is twice that part of what it lacks: the field reaches as far as the slab is wide. A head's box has none such.

    Args:
      box: of the mask.
      margin: the part.
      voxel_size: edges of a voxel [mm]; voxels are taken for cubes where it is traced. None for the part alone.
      least: voxels of margin at least.
    """
    x, y, z = counts = [part.stop - part.start for part in box]
    wanted = [n * margin for n in counts]
    if voxel_size is not None:
        size = np.ones(3) if isinstance(voxel_size, jax.core.Tracer) else np.asarray(voxel_size, np.float64)
        longest = max(n * d for n, d in zip(counts, size))
        wanted = [max(part, 2 * margin * (longest / d - n)) for part, n, d in zip(wanted, counts, size)]
    a, b, c = (max(least, round(part)) for part in wanted)
    return fast_shape((x, y, z), (a, b, c))


def enter(part: Array | None, box: Box, shape: Shape) -> Array | None:
    """Bring a volume to the frame; what is not a volume (a number, nothing) stays as it is."""
    return part if part is None or jnp.ndim(part) < 3 else pad_to(part[(..., *box)], shape)


def leave(volume: Array, box: Box, shape: Shape) -> Array:
    """Put a volume back on its whole grid, zero outside the box: the inverse of `enter`."""
    x, y, z = (part.stop - part.start for part in box)
    inside = crop_to(volume, (x, y, z))
    widths = [(part.start, n - part.stop) for part, n in zip(box, shape)]
    return jnp.pad(inside, [(0, 0)] * (inside.ndim - 3) + widths)
