"""Masks: where there is signal, and where the phase can be trusted (on the host).

A mask that the user gives is only ever reduced, never grown or replaced, and what was taken away is returned beside it.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from qsmjax.numerics.arrays import as_mask, as_volume, check_grid
from qsmjax.numerics.options import check_option
from qsmjax.phase.host import on_host

CONSENSUS_RESIDUAL = 0.3
"""Relative residual above which the consensus leaves a voxel out."""
BINS = 256


class Masks(NamedTuple):
    """The mask that remains, what was taken from the one given, and which part of that was its rim."""

    mask: Bool[Array, "x y z"]
    removed: Bool[Array, "x y z"]
    rim: Bool[Array, "x y z"]


def magnitude_mask(magnitude: ArrayLike, *, threshold: float | None = None, erode: int = 0) -> Bool[Array, "x y z"]:
    """Find the object in a magnitude image.

    Voxels above the threshold, opened by one voxel so that thin bridges break, the largest piece, its holes filled,
    eroded. It holds all that gives signal, skin and muscle too: a brain mask must come from a brain extraction.

    Args:
      magnitude: x y z, or echoes first (their root mean square is taken).
      threshold: part of the 99th percentile; None for Otsu's.
      erode: voxels to erode by.

    Raises:
      ValueError: if nothing remains, the axes do not fit, or an option is out of its range.

    References:
      Otsu, IEEE Trans. Syst. Man Cybern. 9:62 (1979), doi:10.1109/TSMC.1979.4310076.
    """
    check_option("erode", erode, zero=True)
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, a part of the largest, got {threshold}")
    image = on_host("magnitude", as_volume("magnitude", magnitude))
    if image.ndim > 4 or not np.isfinite(image).all() or image.min() < 0:
        raise ValueError(f"magnitude must be x y z or echo x y z, finite and not negative, got shape {image.shape}")
    if not image.any():
        raise ValueError("magnitude must hold signal, got zeros alone: give a mask")
    image = np.sqrt(np.mean(image**2, axis=0)) if image.ndim == 4 else image
    image = image / np.percentile(image[image > 0], 99)
    bright = image > (_otsu(np.clip(image, 0, 1)) if threshold is None else threshold)
    opened = scipy.ndimage.binary_opening(bright, _ball(image.shape))
    filled = scipy.ndimage.binary_fill_holes(_largest(opened))
    mask = erode_mask(filled, erode)
    if not mask.any():
        raise ValueError("magnitude must leave a mask, got none: give one, or a lower threshold or erosion")
    return jnp.asarray(mask)


def reduce_mask(
    mask: ArrayLike,
    relative_residual: ArrayLike | None = None,
    *,
    threshold: float = CONSENSUS_RESIDUAL,
    erode: int = 0,
) -> Masks:
    """Take from a mask what cannot be trusted: an outer rim, and voxels whose echoes the fit does not explain.

    Args:
      mask: not zero inside, x y z.
      relative_residual: `EchoFit.relative_residual`; None to leave the phase's quality out.
      threshold: relative residual above which a voxel is taken out.
      erode: voxels to take off the rim, before the quality counts.

    Returns:
      What remains, what was removed, and the rim.

    Raises:
      ValueError: if the grids differ, or nothing remains.
    """
    given = on_host("mask", as_mask("mask", mask, jnp.shape(mask)))
    kept = inner = erode_mask(given, erode)
    if relative_residual is not None:
        residual = as_volume("relative_residual", relative_residual)
        check_grid("relative_residual", residual, given.shape)
        kept = kept & (on_host("relative_residual", residual) <= threshold)
    if not kept.any():
        raise ValueError(f"mask must keep voxels, got none of {int(given.sum())}: lower erode, or raise the threshold")
    return Masks(jnp.asarray(kept), jnp.asarray(given & ~kept), jnp.asarray(given & ~inner))


def erode_mask(mask: ArrayLike, voxels: int) -> np.ndarray:
    """Take `voxels` off the rim, by a ball; the faces of the volume count as inside, as the object goes on there."""
    inside = on_host("mask", mask) != 0
    if voxels <= 0:
        return inside
    away = scipy.ndimage.distance_transform_edt(np.pad(inside, voxels, mode="edge")) > voxels
    return away[tuple(slice(voxels, -voxels) for _ in range(3))]


def _otsu(image: np.ndarray) -> float:
    counts, edges = np.histogram(image, BINS, (0, 1))
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    apart = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(centres[np.argmax(np.where(both, below * above * apart**2, 0))])


def _ball(shape: tuple[int, ...]) -> np.ndarray:
    ball = scipy.ndimage.generate_binary_structure(3, 1)
    # a thin axis has nothing to open along
    return ball[tuple(slice(None) if n > 2 else slice(1, 2) for n in shape)]


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = scipy.ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (labels == sizes.argmax()) & mask
