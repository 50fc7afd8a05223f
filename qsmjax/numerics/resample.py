"""Band-limited resampling: cut the centre of k-space out of a volume, as a scanner does.

    b = F⁻¹ W C F a,    W(k) = 1 below 0.8 k_N, then falling as a raised cosine to 0 at k_N

C keeps the frequencies below k_N, the Nyquist frequency of the coarser of the two grids; the grids cover the same field
of view. Convolutions commute with it, so a susceptibility map and its field that are cut alike obey the same dipole
before and after. Means over blocks do not: what lies beyond the Nyquist frequency folds back with another D(k).
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Shape, Volume

ROLLOFF = 0.2
"""Part of the band, at its outer end, over which the raised cosine falls."""


def resample_k(volume: ArrayLike, shape: Shape, *, rolloff: float = ROLLOFF) -> Array:
    """Bring volumes to another number of voxels over the same field of view, in the band that both grids hold.

    The voxels' edges are kept, so their centres move by half of the change in size. The volume counts as periodic. Axis
    after axis, so that the memory needed is little more than the volumes'.

    Args:
      volume: real or complex, over the last three axes.
      shape: voxels along x, y, z to bring it to; finer or coarser.
      rolloff: outer part of the band over which the weights fall to zero, above 0 and at most 1.

    Returns:
      The volume on the new grid, of the same scale.

    Raises:
      ValueError: if there are fewer than three axes, or the rolloff is out of range.
    """
    array = jnp.asarray(volume)
    if array.ndim < 3:
        raise ValueError(f"volume must have the axes x, y, z (others may lead), got shape {array.shape}")
    if not 0 < rolloff <= 1:
        raise ValueError(f"rolloff must be above 0 and at most 1, got {rolloff}")
    # the axis that loses most first: the others then cost less
    for axis in sorted((-3, -2, -1), key=lambda a: shape[a] / array.shape[a]):
        array = _resample_axis(array, axis, shape[axis], rolloff)
    return array


def band_limit(volume: Volume, *, rolloff: float = ROLLOFF) -> Volume:
    """Weigh real volumes by W over the band of their own grid: `resample_k` to the same shape, in one transform."""
    shape = volume.shape[-3:]
    weights = [jnp.asarray(_window(np.fft.fftfreq(n) * n, n, rolloff)) for n in shape]
    window = weights[0][:, None, None] * weights[1][:, None] * weights[2][: shape[2] // 2 + 1]
    return jnp.fft.irfftn(window * jnp.fft.rfftn(volume, axes=(-3, -2, -1)), shape, axes=(-3, -2, -1))


def _resample_axis(array: Array, axis: int, target: int, rolloff: float) -> Array:
    n = array.shape[axis]
    cells = np.arange(-((min(n, target) - 1) // 2), (min(n, target) - 1) // 2 + 1)
    # edges coincide, so centres shift by (1/target - 1/n)/2 of the field of view
    shift = np.exp(2j * np.pi * cells * 0.5 * (1 / target - 1 / n))
    factor = (_window(cells, min(n, target), rolloff) * shift * target / n).astype(np.complex64)
    moved = jnp.moveaxis(array, axis, -1)
    if jnp.iscomplexobj(array):
        spectrum = jnp.fft.fft(moved)[..., cells] * factor
        wide = jnp.zeros((*moved.shape[:-1], target), spectrum.dtype).at[..., cells].set(spectrum)
        return jnp.moveaxis(jnp.fft.ifft(wide), -1, axis)
    half = cells >= 0
    spectrum = jnp.fft.rfft(moved.astype(jnp.float32))[..., : half.sum()] * factor[half]
    return jnp.moveaxis(jnp.fft.irfft(spectrum, target), -1, axis)


def _window(cells: np.ndarray, n: int, rolloff: float) -> Float[np.ndarray, " k"]:
    """Weigh frequencies, given in cycles per field of view, for a grid of n voxels."""
    fall = np.clip((np.abs(cells) / (n / 2) - (1 - rolloff)) / rolloff, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32)
