"""k-space of real volumes: frequency grids, fast sizes, padding, and the product with a kernel.

    convolve(a, kernel) = F⁻¹ (kernel_k · F a)

The transform runs over the last three axes, with k = 0 at index 0; k in cycles/mm. Volumes are real, so only the half
spectrum that `rfftn` returns is kept.
"""

import jax.numpy as jnp
import scipy.fft
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Shape, Spectrum, VectorLike, Volume, as_vector

AXES = (-3, -2, -1)


def frequencies(
    shape: Shape, voxel_size: VectorLike
) -> tuple[Float[Array, "x 1 1"], Float[Array, "1 y 1"], Float[Array, "1 1 zhalf"]]:
    """Return the frequencies of the half spectrum along each axis [cycles/mm], ready to broadcast.

    Nyquist is negative on every axis, as `fftfreq` has it, so that half spectrum and full one sample the same points.

    Args:
      shape: voxels along x, y, z.
      voxel_size: edges of a voxel [mm]; may be traced.
    """
    size = as_vector("voxel_size", voxel_size)
    kx, ky, kz = (jnp.fft.fftfreq(n).astype(jnp.float32) / d for n, d in zip(shape, size))
    return kx[:, None, None], ky[None, :, None], kz[None, None, : shape[2] // 2 + 1]


def rfft3(volume: Volume) -> Spectrum:
    """Transform real volumes over the last three axes."""
    return jnp.fft.rfftn(volume, axes=AXES)


def irfft3(spectrum: Spectrum, shape: tuple[int, ...]) -> Volume:
    """Transform back to real volumes whose last three axes are `shape`'s."""
    return jnp.fft.irfftn(spectrum, tuple(shape[-3:]), axes=AXES)


def multiply_k(volume: Volume, kernel_k: Array) -> Volume:
    """Convolve by a product in k-space, periodically.

    Raises:
      ValueError: if the kernel was made for another shape.
    """
    expected = half_shape(volume.shape)
    if kernel_k.shape[-3:] != expected:
        raise ValueError(f"kernel.shape must be {expected} for a volume of {volume.shape[-3:]}, got {kernel_k.shape}")
    return irfft3(kernel_k * rfft3(volume), volume.shape)


def half_shape(shape: tuple[int, ...]) -> Shape:
    """Return the shape of the half spectrum of a volume."""
    x, y, z = shape[-3:]
    return x, y, z // 2 + 1


def fast_size(n: int) -> int:
    """Return the next size >= n whose FFT is fast on every platform (factors 2, 3, 5)."""
    return int(scipy.fft.next_fast_len(n, real=True))


def fast_shape(shape: tuple[int, ...], margin: tuple[int, int, int] = (0, 0, 0)) -> Shape:
    """Return the next fast shape that leaves at least `margin` voxels free along each axis."""
    x, y, z = (fast_size(n + m) for n, m in zip(shape[-3:], margin))
    return x, y, z


def pad_to(volume: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Centre a volume in zeros of a larger shape; `crop_to` is its inverse for odd and even sizes.

    Raises:
      ValueError: if `shape` is smaller along an axis.
    """
    array = jnp.asarray(volume)
    extra = [target - n for n, target in zip(array.shape[-3:], shape[-3:])]
    if min(extra) < 0:
        raise ValueError(f"shape must be at least {array.shape[-3:]} to pad into, got {tuple(shape[-3:])}")
    return jnp.pad(array, [(0, 0)] * (array.ndim - 3) + [(e // 2, e - e // 2) for e in extra])


def crop_to(volume: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Cut out the centre that `pad_to` filled.

    Raises:
      ValueError: if `shape` is larger along an axis.
    """
    array = jnp.asarray(volume)
    extra = [n - target for n, target in zip(array.shape[-3:], shape[-3:])]
    if min(extra) < 0:
        raise ValueError(f"shape must be at most {array.shape[-3:]} to crop to, got {tuple(shape[-3:])}")
    return array[(..., *(slice(e // 2, e // 2 + n) for e, n in zip(extra, shape[-3:])))]
