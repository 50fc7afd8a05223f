"""Undersampled multi-coil k-space of one echo or many to one complex image an echo.

    image_n = combine(F⁻¹ grappa(L⁻¹ S_n), maps),    maps from the first echo's centre, for all echoes

A calibration scan may stand for that centre, and L Lᴴ is the covariance of the coils' noise, where that was measured.
One set of sensitivities for all echoes: what phase the maps hold is then the same at every echo time and falls to the
initial phase, not to the field. GRAPPA's weights are fitted to the first echo too, which has the most signal: what they
know is the coils. k-space is (echo, coil, x, y, z), k = 0 at n // 2, x the readout.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex

from qsmjax.numerics.options import check_option
from qsmjax.recon.combine import combine, kspace_to_image, whiten
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa_fill, grappa_weights, trim_kernel
from qsmjax.recon.sampling import check_centred, find_sampling

CENTRE = 24
"""Most samples of the centre along each axis that the sensitivities are found from: more cost time and tell no more."""


def reconstruct(
    kspace: ArrayLike,
    *,
    calibration: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    kernel_size: tuple[int, int, int] = (5, 4, 4),
    regularisation: float = 1e-3,
    map_kernel: tuple[int, int, int] = (6, 6, 6),
    map_threshold: float = 0.02,
) -> Complex[Array, "echo x y z"]:
    """Fill k-space by GRAPPA and combine the coils with ESPIRiT's sensitivities.

    Args:
      kspace: complex, echo coil x y z, zero where nothing was sampled; all echoes are sampled alike.
      calibration: complex, coil x y z, a scan measured apart of the same field of view: fully sampled, k = 0 at n // 2,
        along no axis longer than `kspace`, whose own centre then need not be full; None for the first echo's centre.
      noise: complex, coil first, samples without signal: the coils are whitened by it before all else.
      kernel_size: of GRAPPA, along x, y, z.
      regularisation: of GRAPPA's weights, as a part of the mean diagonal of the normal matrix.
      map_kernel: window of ESPIRiT, along x, y, z.
      map_threshold: of ESPIRiT: singular values above this part of the largest count as signal.

    Returns:
      One image an echo, echo x y z, in the units of the coils' images, or of their noise's standard deviation where
      `noise` is given.

    Raises:
      ValueError: if the axes or coils do not fit, echoes are sampled differently, the full centre is too small, a
        calibration has gaps, noise is not one a coil, a kernel is not three counts, or an option is out of its range.

    References:
      Griswold et al., Magn. Reson. Med. 47:1202 (2002), doi:10.1002/mrm.10171.
      Uecker et al., Magn. Reson. Med. 71:990 (2014), doi:10.1002/mrm.24751.
      Roemer et al., Magn. Reson. Med. 16:192 (1990), doi:10.1002/mrm.1910160203.
    """
    echoes = np.asarray(kspace)
    if echoes.ndim != 5 or not np.iscomplexobj(echoes):
        raise ValueError(
            f"kspace must be complex with the axes echo coil x y z, got {echoes.dtype} of shape {echoes.shape}"
        )
    size = trim_kernel(kernel_size, echoes.shape)
    map_size = trim_kernel(map_kernel, echoes.shape, name="map_kernel")
    if not 0 < map_threshold < 1:
        raise ValueError(f"map_threshold must be above 0 and below 1, a part of the largest, got {map_threshold}")
    check_option("regularisation", regularisation, zero=True)
    sampling = find_sampling(echoes[0], full_centre=calibration is None)
    sampled = np.any(echoes != 0, axis=(1, 2))
    other = np.flatnonzero(np.any(sampled != sampled[0], axis=(1, 2)))
    if other.size:
        raise ValueError(f"kspace must be sampled alike in all echoes, got another pattern in echo {other[0] + 1}")
    if calibration is None:
        (y0, y1), (z0, z1) = sampling.calibration
        region = echoes[0][:, :, y0:y1, z0:z1]
    else:
        region = _calibration_of(calibration, echoes.shape[1:])
    white = (lambda coils: coils) if noise is None else partial(whiten, noise=_noise_of(noise, echoes.shape[1]))
    region = white(region)
    maps = _espirit(_middle(region), echoes.shape[2:], kernel_size=map_size, threshold=map_threshold).maps
    # echo after echo: the coils of one are most of what has to be in memory
    if sampling.acceleration == (1, 1):
        return jnp.stack([_combine(white(echo), maps) for echo in echoes])
    acceleration = sampling.acceleration
    weights = _weights(region, acceleration, kernel_size=size, regularisation=regularisation)
    filled = (_fill(white(echo), weights, acceleration, sampling.offset, kernel_size=size) for echo in echoes)
    return jnp.stack([_combine(echo, maps) for echo in filled])


_espirit = jax.jit(espirit, static_argnums=1, static_argnames=("kernel_size", "threshold"))
_weights = jax.jit(grappa_weights, static_argnums=1, static_argnames=("kernel_size", "regularisation"))
_fill = jax.jit(grappa_fill, static_argnums=(2, 3), static_argnames=("kernel_size",))
_combine = jax.jit(lambda kspace, maps: combine(kspace_to_image(kspace), maps))


def _calibration_of(calibration: ArrayLike, scan: tuple[int, ...]) -> np.ndarray:
    """Return a calibration after checking that it fits a scan of coil x y z."""
    region = np.asarray(calibration)
    fits = region.ndim == 4 and region.shape[0] == scan[0] and np.iscomplexobj(region)
    # a plane calibrates a plane
    if not fits or any(n > m or (n == 1) != (m == 1) for n, m in zip(region.shape[1:], scan[1:])):
        raise ValueError(
            f"calibration must be complex with the axes coil x y z, of kspace's {scan[0]} coils and within its "
            f"{scan[1:]}, got {region.dtype} of shape {region.shape}"
        )
    if gaps := int((~np.any(region != 0, axis=(0, 1))).sum()):
        raise ValueError(f"calibration must be fully sampled, got {gaps} empty lines along x: cut it to its middle")
    check_centred("calibration", region)
    return region


def _noise_of(noise: ArrayLike, coils: int) -> np.ndarray:
    """Return samples of noise after checking that they are the coils'."""
    samples = np.asarray(noise)
    if samples.ndim < 2 or samples.shape[0] != coils or not np.iscomplexobj(samples):
        raise ValueError(
            f"noise must be complex, kspace's {coils} coils first and then samples, got {samples.dtype} of shape "
            f"{samples.shape}"
        )
    return samples


def _middle(region: np.ndarray | Array) -> np.ndarray | Array:
    """Cut the middle of a region to at most `CENTRE` samples along each axis."""
    starts = [max(0, (n - CENTRE) // 2) for n in region.shape[1:]]
    return region[(slice(None), *(slice(s, s + min(n, CENTRE)) for s, n in zip(starts, region.shape[1:])))]
