"""Coils to one image.

    ρ(r) = w(r) Σ_c s_c(r)* I_c(r) / Σ_c |s_c(r)|²

which is the estimate of least variance once the coils' noise is white. k-space has k = 0 at n // 2, and images their
centre there too. Coils stand before x, y, z; other axes (echoes) may lead.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.numerics.kspace import AXES

Coils = Complex[Array, "*batch coil x y z"]
INDEPENDENT = 1e-5
"""Least eigenvalue of the correlation of coils' noise, one if they are independent: what float32 still tells."""


def kspace_to_image(kspace: ArrayLike) -> Complex[Array, "*batch x y z"]:
    """Transform centred k-space to images, without a change of norm."""
    centred = jnp.fft.ifftshift(jnp.asarray(kspace, jnp.complex64), axes=AXES)
    return jnp.fft.fftshift(jnp.fft.ifftn(centred, axes=AXES, norm="ortho"), axes=AXES)


def image_to_kspace(image: ArrayLike) -> Complex[Array, "*batch x y z"]:
    """Transform images to centred k-space: the inverse and the adjoint of `kspace_to_image`."""
    centred = jnp.fft.ifftshift(jnp.asarray(image, jnp.complex64), axes=AXES)
    return jnp.fft.fftshift(jnp.fft.fftn(centred, axes=AXES, norm="ortho"), axes=AXES)


def combine(images: ArrayLike, maps: ArrayLike, weight: ArrayLike | None = None) -> Complex[Array, "*batch x y z"]:
    """Combine coil images with their sensitivities.

    Args:
      images: (...) coil x y z.
      maps: sensitivities, coil x y z (`espirit.Sensitivities.maps`).
      weight: x y z, such as `espirit.Sensitivities.weight`; None for one everywhere.

    Returns:
      Images in the units of the coils', (...) x y z.

    Raises:
      ValueError: if the shapes do not fit.

    References:
      Roemer et al., Magn. Reson. Med. 16:192 (1990), doi:10.1002/mrm.1910160203.
    """
    coils, maps = jnp.asarray(images, jnp.complex64), jnp.asarray(maps, jnp.complex64)
    if coils.shape[-4:] != maps.shape:
        raise ValueError(f"images.shape must end in the maps' {maps.shape}, got {coils.shape}")
    power = jnp.sum(jnp.abs(maps) ** 2, axis=0)
    image = jnp.sum(jnp.conj(maps) * coils, axis=-4)
    image = jnp.where(power > 0, image / jnp.where(power > 0, power, 1), 0)
    return image if weight is None else image * jnp.asarray(weight, jnp.float32)


def root_sum_of_squares(images: ArrayLike) -> Float[Array, "*batch x y z"]:
    """Combine the coils' magnitudes alone."""
    return jnp.sqrt(jnp.sum(jnp.abs(jnp.asarray(images)) ** 2, axis=-4))


def whiten(data: ArrayLike, noise: ArrayLike) -> Coils:
    """Mix coils so that their noise is white and of unit variance: L⁻¹ d with L Lᴴ the noise's covariance.

    What is zero in all coils stays zero.

    Args:
      data: k-space or images, (...) coil x y z.
      noise: samples without signal, coil first.

    Raises:
      ValueError: if there are other coils, fewer samples than coils, or a coil without noise of its own (which is
        not looked at where it is traced).
    """
    coils, samples = jnp.asarray(data, jnp.complex64), jnp.asarray(noise, jnp.complex64)
    samples = samples.reshape(samples.shape[0], -1)
    if samples.shape[0] != coils.shape[-4] or samples.shape[1] <= samples.shape[0]:
        raise ValueError(f"noise must hold more samples than its {coils.shape[-4]} coils, got shape {samples.shape}")
    covariance = jnp.matmul(samples, jnp.conj(samples.T), precision=jax.lax.Precision.HIGHEST) / samples.shape[1]
    if not isinstance(covariance, jax.core.Tracer):
        deviation = np.sqrt(np.diagonal(np.asarray(covariance)).real)
        correlation = np.asarray(covariance) / np.maximum(np.outer(deviation, deviation), np.finfo(np.float32).tiny)
        if not np.linalg.eigvalsh(correlation)[0] > INDEPENDENT:
            raise ValueError(
                "noise must be each coil's own, got a coil without any, or one that the others tell: leave it out, in "
                "kspace too"
            )
    lower = jnp.linalg.cholesky(covariance)
    flat = jnp.moveaxis(coils, -4, 0).reshape(coils.shape[-4], -1)
    white = jax.scipy.linalg.solve_triangular(lower, flat, lower=True)
    moved = jnp.moveaxis(coils, -4, 0)
    return jnp.moveaxis(white.reshape(moved.shape), 0, -4)
