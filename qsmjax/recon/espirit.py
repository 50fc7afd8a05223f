"""ESPIRiT: coil sensitivities as the eigenvectors that k-space itself keeps.

    A = calibration matrix (its rows are windows of k-space),  A = U S Vᴴ,  V∥ = columns with S > threshold · max S
    G(r)_cc' = 1/|K| Σ_κκ' (V∥ V∥ᴴ)_(cκ)(c'κ') exp(2πi r·(κ - κ'))

The sensitivities at r are the eigenvector of G(r) whose eigenvalue is one; where no signal is, no eigenvalue is. The
sum is a polynomial in few frequencies, evaluated plane by plane, so no image a kernel is ever stored. k-space is
(coil, x, y, z) with k = 0 at n // 2; maps have their centre at n // 2 too.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.numerics.arrays import Shape
from qsmjax.numerics.options import Number
from qsmjax.recon.grappa import HIGHEST, trim_kernel

SQUARINGS = 7
"""The matrix to the power 2^7 leaves the largest eigenvector where the second eigenvalue is below 0.95 of the first."""


@flax.struct.dataclass
class Sensitivities:
    """Coil sensitivities.

    Attributes:
      maps: coil x y z, of unit norm over coils; their phase is relative to the coils' principal combination, in which
        the strongest coil is real.
      eigenvalue: x y z, one where the maps hold.
      weight: x y z, 0 to 1, falling softly with the eigenvalue.
    """

    maps: Complex[Array, "coil x y z"]
    eigenvalue: Float[Array, "x y z"]
    weight: Float[Array, "x y z"]


def espirit(
    calibration: ArrayLike,
    shape: Shape,
    *,
    kernel_size: tuple[int, int, int] = (6, 6, 6),
    threshold: float = 0.02,
    soft: tuple[float, float] = (0.8, 0.95),
) -> Sensitivities:
    """Find the sensitivities from the fully sampled centre of k-space.

    Differentiable while the same singular values stand above the threshold; the maps jump where one passes it.

    Args:
      calibration: coil x y z, k = 0 at its centre.
      shape: voxels of the maps along x, y, z.
      kernel_size: samples of a window along x, y, z.
      threshold: singular values above this part of the largest count as signal.
      soft: eigenvalues at which the weight leaves 0 and reaches 1.

    Raises:
      ValueError: if the region is smaller than the kernel, or the kernel is not three counts.

    References:
      Uecker et al., Magn. Reson. Med. 71:990 (2014), doi:10.1002/mrm.24751.
    """
    region = jnp.asarray(calibration, jnp.complex64)
    if region.ndim != 4:
        raise ValueError(
            f"calibration must have the axes coil x y z, got shape {region.shape}: give 2-D data a z of one"
        )
    size = trim_kernel(kernel_size, region.shape)
    if any(n < k for n, k in zip(region.shape[1:], size)):
        raise ValueError(f"calibration must be at least the kernel's {size}, got {region.shape[1:]}: use a smaller one")
    rows = _windows(region, size)
    lags = _sum_lags(_projector(_gram(rows), threshold), region.shape[0], size)
    # by squaring too: the phase of eigh's vectors is LAPACK's, and its slope is not
    reference = _largest(_gram(region.reshape(region.shape[0], -1)))
    waves = [_waves(n, k) for n, k in zip(shape, size)]

    def plane(x_wave: Array) -> tuple[Array, Array]:
        at_x = jnp.einsum("abijk,i->abjk", lags, x_wave, precision=HIGHEST)
        matrix = jnp.einsum("abjk,jy,kz->yzab", at_x, waves[1], waves[2], precision=HIGHEST)
        return _principal(matrix, reference)

    maps, eigenvalue = jax.lax.map(plane, waves[0].T)
    rise = jnp.clip((eigenvalue - soft[0]) / (soft[1] - soft[0]), 0, 1)
    return Sensitivities(jnp.moveaxis(maps, -1, 0), eigenvalue, rise**2 * (3 - 2 * rise))


def _windows(region: Complex[Array, "coil x y z"], size: tuple[int, int, int]) -> Complex[Array, "sample window"]:
    """List every window of the region, its samples down the rows (coil first)."""
    fits = [n - k + 1 for n, k in zip(region.shape[1:], size)]
    cut = [
        region[:, i : i + fits[0], j : j + fits[1], k : k + fits[2]]
        for i in range(size[0])
        for j in range(size[1])
        for k in range(size[2])
    ]
    return jnp.stack(cut, axis=1).reshape(region.shape[0] * len(cut), -1)


def _gram(rows: Complex[Array, "row sample"]) -> Complex[Array, "row row"]:
    return jnp.matmul(rows, jnp.conj(rows.T), precision=HIGHEST)


@jax.custom_jvp
def _projector(gram: Complex[Array, "row row"], threshold: Number) -> Complex[Array, "row row"]:
    """Project on the eigenvectors whose eigenvalues are above the threshold's square of the largest."""
    values, vectors = jnp.linalg.eigh(gram)
    return _gram(jnp.where(values > threshold**2 * values[-1], vectors, 0))


@_projector.defjvp
def _turn_projector(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Turn the space by what mixes it with its complement: dP = Σ v_i (v_iᴴ dG v_j) v_jᴴ / (λ_i - λ_j) + its adjoint.

    eigh's own rule also divides by differences within either, which cancel out where they are not zero; in the null
    space they are, and it gives NaN.
    """
    gram, threshold = primals
    values, vectors = jnp.linalg.eigh(gram)
    above = values > threshold**2 * values[-1]
    across = above[:, None] & ~above
    mixed = jnp.matmul(jnp.conj(vectors.T), jnp.matmul(tangents[0], vectors, precision=HIGHEST), precision=HIGHEST)
    mixed = jnp.where(across, mixed / jnp.where(across, values[:, None] - values, 1), 0)
    half = jnp.matmul(jnp.matmul(vectors, mixed, precision=HIGHEST), jnp.conj(vectors.T), precision=HIGHEST)
    return _gram(jnp.where(above, vectors, 0)), half + jnp.conj(half.T)


def _sum_lags(projector: Array, coils: int, size: tuple[int, int, int]) -> Complex[Array, "coil coil lx ly lz"]:
    """Sum the projector over pairs of samples the same distance apart."""
    sums = projector.reshape(coils, *size, coils, *size)
    pairs = []
    for k in size:
        lag = np.arange(k)[:, None] - np.arange(k) + k - 1
        pairs.append(jnp.asarray(lag[..., None] == np.arange(2 * k - 1), jnp.complex64))
    sums = jnp.einsum("aijkbpqr,ipl->ajkbqrl", sums, pairs[0], precision=HIGHEST)
    sums = jnp.einsum("ajkbqrl,jqm->akbrlm", sums, pairs[1], precision=HIGHEST)
    return jnp.einsum("akbrlm,krn->ablmn", sums, pairs[2], precision=HIGHEST) / (size[0] * size[1] * size[2])


def _waves(n: int, k: int) -> Complex[Array, "lag voxel"]:
    lags, places = np.arange(2 * k - 1) - (k - 1), np.arange(n) - n // 2
    return jnp.asarray(np.exp(2j * np.pi * lags[:, None] * places / n), jnp.complex64)


def _largest(matrix: Complex[Array, "*batch coil coil"]) -> Complex[Array, "*batch coil"]:
    """Return the largest eigenvector, real at its strongest coil, by squaring the matrix."""
    power = matrix
    for _ in range(SQUARINGS):
        power = power / _tiny(jnp.trace(power, axis1=-2, axis2=-1).real)[..., None, None]
        power = jnp.matmul(power, power, precision=HIGHEST)
    best = jnp.argmax(jnp.diagonal(power, axis1=-2, axis2=-1).real, axis=-1)
    vector = jnp.take_along_axis(power, best[..., None, None], axis=-1)[..., 0]
    return vector / _tiny(jnp.linalg.norm(vector, axis=-1))[..., None]


def _principal(matrix: Complex[Array, "y z coil coil"], reference: Complex[Array, " coil"]) -> tuple[Array, Array]:
    """Return the largest eigenvector, real along the reference, and its eigenvalue."""
    vector = _largest(matrix)
    turned = jnp.einsum("yzab,yzb->yza", matrix, vector, precision=HIGHEST)
    eigenvalue = jnp.sum(jnp.conj(vector) * turned, axis=-1).real
    along = jnp.einsum("a,yza->yz", jnp.conj(reference), vector, precision=HIGHEST)
    return vector * jnp.exp(-1j * jnp.angle(along))[..., None], eigenvalue


def _tiny(size: Array) -> Array:
    return jnp.maximum(size, jnp.finfo(jnp.float32).tiny)
