"""GRAPPA: what the coils did not sample, from what their neighbours did.

    S_c(k + t) = Σ_c' Σ_d W_t(c, c', d) S_c'(k + d)

k runs over the sampled lattice, t over the places of its cell that are missing, d over the nearest lattice places. W is
fitted by least squares to the fully sampled centre. k-space is (coil, x, y, z), k = 0 at n // 2, x the readout, and the
lattice spans y and z. Weights and filling are pure functions of static shapes.
"""

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex

from qsmjax.recon.sampling import Sampling, find_sampling

KSpace = Complex[Array, "coil x y z"]
Weights = Complex[Array, "tap target coil coil"]
HIGHEST = jax.lax.Precision.HIGHEST


def grappa(
    kspace: ArrayLike,
    *,
    sampling: Sampling | None = None,
    calibration: ArrayLike | None = None,
    kernel_size: tuple[int, int, int] = (5, 4, 4),
    regularisation: float = 1e-3,
) -> KSpace:
    """Fill an undersampled k-space; measured samples are kept as they are.

    Args:
      kspace: coil x y z, zero where nothing was sampled.
      sampling: lattice and calibration region; None to find them (on the host).
      calibration: a full region measured apart, coil x y z, of any size and the field of view of `kspace`; None for the
        centre of `kspace`.
      kernel_size: source samples along x, y, z; those along y and z are a lattice step apart.
      regularisation: Tikhonov weight, as a part of the mean diagonal of the normal matrix.

    Returns:
      The full k-space.

    Raises:
      ValueError: if the calibration region is too small for the kernel, or the kernel is not three counts.

    References:
      Griswold et al., Magn. Reson. Med. 47:1202 (2002), doi:10.1002/mrm.10171.
      Blaimer et al., Magn. Reson. Med. 56:1359 (2006), doi:10.1002/mrm.21071.
    """
    full = jnp.asarray(kspace, jnp.complex64)
    if sampling is None:
        sampling = find_sampling(full, full_centre=calibration is None)
    if sampling.acceleration == (1, 1):
        return full
    if calibration is None:
        (y0, y1), (z0, z1) = sampling.calibration
        region = full[:, :, y0:y1, z0:z1]
    else:
        region = jnp.asarray(calibration, jnp.complex64)
    size = trim_kernel(kernel_size, full.shape)
    weights = grappa_weights(region, sampling.acceleration, kernel_size=size, regularisation=regularisation)
    return grappa_fill(full, weights, sampling.acceleration, sampling.offset, kernel_size=size)


def grappa_weights(
    calibration: ArrayLike,
    acceleration: tuple[int, int],
    *,
    kernel_size: tuple[int, int, int] = (5, 4, 4),
    regularisation: float = 1e-3,
) -> Weights:
    """Fit the weights to a fully sampled region.

    Args:
      calibration: coil x y z.
      acceleration: steps of the lattice along y and z.
      kernel_size: source samples along x, y, z.
      regularisation: Tikhonov weight, as a part of the mean diagonal of the normal matrix.

    Returns:
      Weights by source place, missing place, coil made, coil used.

    Raises:
      ValueError: if the region is too small for the kernel.
    """
    region = jnp.asarray(calibration, jnp.complex64)
    coils = region.shape[0]
    sources = _sources(kernel_size, acceleration)
    targets = _targets(acceleration)
    # the window that holds every source and target, and how often it fits
    places = [[s[a] for s in sources] + [t[a] for t in targets] for a in range(3)]
    low = [min(p) for p in places]
    fits = [n - (max(p) - min(p)) for n, p in zip(region.shape[1:], places)]
    unknowns = coils * len(sources)
    if min(fits) < 1 or fits[0] * fits[1] * fits[2] < unknowns:
        raise ValueError(
            f"calibration must hold at least {unknowns} kernels of {kernel_size} at acceleration {acceleration}, got "
            f"{max(0, min(fits)) and fits[0] * fits[1] * fits[2]} in {region.shape[1:]}: use a smaller kernel_size"
        )

    def pick(x: Array, at: tuple[int, int, int]) -> Array:
        """Cut one readout position's samples that stand `at` from every anchor."""
        line = jax.lax.dynamic_index_in_dim(region, x + at[0] - low[0], axis=1, keepdims=False)
        y, z = at[1] - low[1], at[2] - low[2]
        return line[:, y : y + fits[1], z : z + fits[2]].reshape(coils, -1)

    def accumulate(sums, x):
        a = jnp.concatenate([pick(x, s) for s in sources])
        b = jnp.concatenate([pick(x, t) for t in targets])
        normal = jnp.matmul(a, jnp.conj(a.T), precision=HIGHEST)
        return (sums[0] + normal, sums[1] + jnp.matmul(b, jnp.conj(a.T), precision=HIGHEST)), None

    zeros = [jnp.zeros((rows, unknowns), jnp.complex64) for rows in (unknowns, coils * len(targets))]
    (normal, cross), _ = jax.lax.scan(accumulate, tuple(zeros), jnp.arange(fits[0]))
    ridge = regularisation * jnp.trace(normal).real / unknowns
    normal = normal + ridge * jnp.eye(unknowns, dtype=jnp.float32)
    # W (A Aᴴ) = B Aᴴ, and A Aᴴ is Hermitian; `solve` of such matrices has a wrong gradient where they are complex
    solved = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(normal), jnp.conj(cross.T))
    weights = jnp.conj(solved.T).reshape(len(targets), coils, len(sources), coils)
    return jnp.transpose(weights, (2, 0, 1, 3))


def grappa_fill(
    kspace: ArrayLike,
    weights: Weights,
    acceleration: tuple[int, int],
    offset: tuple[int, int],
    *,
    kernel_size: tuple[int, int, int] = (5, 4, 4),
) -> KSpace:
    """Fill the missing samples with the weights of `grappa_weights` for the same acceleration and kernel.

    Args:
      kspace: coil x y z, zero where nothing was sampled.
      weights: for the same coils.
      acceleration: steps of the lattice along y and z.
      offset: its first sample along y and z.
      kernel_size: source samples along x, y, z.

    Raises:
      ValueError: if the weights were made for another kernel or other coils.
    """
    full = jnp.asarray(kspace, jnp.complex64)
    coils, nx, ny, nz = full.shape
    (ry, rz), (oy, oz) = acceleration, offset
    expected = (kernel_size[0] * kernel_size[1] * kernel_size[2], ry * rz - 1, coils, coils)
    if weights.shape != expected:
        raise ValueError(f"weights.shape must be {expected} for this kernel and these coils, got {weights.shape}")
    # one cell more before the first sample: its missing places may lie inside
    lattice = jnp.pad(full[:, :, oy::ry, oz::rz], [(0, 0), (0, 0), (1, 0), (1, 0)])
    margins = [((k - 1) // 2, k // 2) for k in kernel_size]
    padded = jnp.pad(lattice, [(0, 0), *margins])
    steps = [(i, j, k) for i in range(kernel_size[0]) for j in range(kernel_size[1]) for k in range(kernel_size[2])]

    def add(total, tap):
        weight, (i, j, k) = tap
        source = jax.lax.dynamic_slice(padded, (0, i, j, k), lattice.shape)
        return total + jnp.einsum("toc,cxyz->toxyz", weight, source, precision=HIGHEST), None

    start = jnp.zeros((ry * rz - 1, *lattice.shape), jnp.complex64)
    missing, _ = jax.lax.scan(add, start, (weights, tuple(jnp.asarray(s) for s in zip(*steps))))
    cells = jnp.concatenate([lattice[None], missing]).reshape(ry, rz, *lattice.shape)
    dense = jnp.transpose(cells, (2, 3, 4, 0, 5, 1)).reshape(coils, nx, lattice.shape[2] * ry, lattice.shape[3] * rz)
    dense = dense[:, :, ry - oy : ry - oy + ny, rz - oz : rz - oz + nz]
    return jnp.where(jnp.any(full != 0, axis=(0, 1)), full, dense)


def trim_kernel(
    kernel_size: Sequence[int], shape: tuple[int, ...], *, name: str = "kernel_size"
) -> tuple[int, int, int]:
    """Shrink a kernel to one sample along axes of one sample.

    Raises:
      ValueError: if it is not three positive counts; the line calls it by its name.
    """
    if len(kernel_size) != 3 or not all(isinstance(k, numbers.Integral) and k > 0 for k in kernel_size):
        raise ValueError(f"{name} must be three positive counts, along x, y, z, got {kernel_size}")
    x, y, z = (1 if n == 1 else k for k, n in zip(kernel_size, shape[-3:]))
    return x, y, z


def _sources(kernel_size: tuple[int, int, int], acceleration: tuple[int, int]) -> list[tuple[int, int, int]]:
    x, y, z = (range(-((k - 1) // 2), k // 2 + 1) for k in kernel_size)
    return [(i, j * acceleration[0], k * acceleration[1]) for i in x for j in y for k in z]


def _targets(acceleration: tuple[int, int]) -> list[tuple[int, int, int]]:
    return [(0, j, k) for j in range(acceleration[0]) for k in range(acceleration[1])][1:]
