"""Phase that is not field: the coils' offsets, and what a bipolar readout adds to every other echo.

    phase_c(TE) = offset_c + 2π gamma B0 TE · 1e-6 field,
    offset_c = phase_c(TE₁) - TE₁ / (TE₂ - TE₁) · U(Σ_c S_c(TE₂) conj S_c(TE₁))

with U the unwrapped phase. The offset is that of the receive coil and smooth, so it is smoothed as a complex image. A
bipolar readout shifts odd and even echoes against each other: α + β · r on every other echo.
Axes: echo, coil, x, y, z.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.numerics.arrays import VectorLike, as_mask, as_vector
from qsmjax.numerics.operators import root
from qsmjax.numerics.options import check_option
from qsmjax.numerics.smooth import gaussian_smooth
from qsmjax.phase.echoes import as_echoes
from qsmjax.phase.signal_model import angle
from qsmjax.phase.unwrap import check_echo_times, unwrap

HIGHEST = jax.lax.Precision.HIGHEST
TURNS, CLEARLY = (0, 1, -1, 2, -2), 1.01
"""Whole turns between the first and third echo that are tried, and how much better than none one must be."""
Coils = Complex[Array, "echo coil x y z"]


class Bipolar(NamedTuple):
    """Echoes freed of the bipolar readout's phase: constant [rad] and slopes [rad/voxel] that every other one had."""

    signal: Complex[Array, "echo x y z"]
    constant: Float[Array, ""]
    slopes: Float[Array, "3"]


def mcpc_3ds(
    signal: Coils | Sequence[ArrayLike],
    te: Sequence[float] | ArrayLike,
    mask: ArrayLike | None = None,
    voxel_size: VectorLike = (1.0, 1.0, 1.0),
    bipolar: bool = False,
    *,
    smoothing: float = 6.0,
) -> Complex[Array, "echo x y z"]:
    """Combine images of single coils: their offsets from two echoes, then each echo by itself (MCPC-3D-S).

    Args:
      signal: complex, echo coil x y z. A sequence may make its echoes as they are asked for: one is held at a time,
        beside the first.
      te: echo times [s], increasing.
      mask: where to unwrap; None for everywhere.
      voxel_size: edges of a voxel [mm].
      bipolar: whether every other echo was read backwards: the offsets then come from the first and third.
      smoothing: standard deviation of the Gaussian that the offsets are smoothed by [mm].

    Returns:
      Echoes whose phase at TE = 0 is close to zero.

    Raises:
      ValueError: if there are fewer than two echoes (three of a bipolar readout), or the axes do not fit.

    References:
      Eckstein et al., Magn. Reson. Med. 79:2996 (2018), doi:10.1002/mrm.26963.
    """
    check_option("smoothing", smoothing, zero=True)
    times, second = check_echo_times(te, len(signal)), 2 if bipolar else 1
    if len(times) <= second:
        raise ValueError(
            f"te must hold at least {second + 1} echoes to tell the offset from the field, got {len(times)}"
        )
    first = jnp.asarray(signal[0])
    beside = lambda n: jnp.stack([first, jnp.asarray(signal[n])])
    offsets = coil_offsets(
        beside(second), (times[0], times[second]), mask, smoothing=smoothing, voxel_size=voxel_size
    )  # fmt: skip
    return jnp.stack([combine_coils(beside(n), offsets)[1] for n in range(len(times))])


def coil_offsets(
    signal: ArrayLike,
    te: Sequence[float] | ArrayLike,
    mask: ArrayLike | None = None,
    *,
    smoothing: float = 6.0,
    voxel_size: VectorLike = (1.0, 1.0, 1.0),
) -> Float[Array, "coil x y z"]:
    """Find each coil's phase offset from the first two echoes (MCPC-3D-S; the unwrapping is on the host).

    A combined image counts as one coil.

    Args:
      signal: complex, echo coil x y z.
      te: echo times [s]; for a bipolar readout pass echoes of one polarity.
      mask: where to unwrap; None for everywhere.
      smoothing: standard deviation of the Gaussian [mm].
      voxel_size: edges of a voxel [mm].

    Returns:
      The offsets [rad].

    Raises:
      ValueError: if there are fewer than two echoes, or the axes do not fit.

    References:
      Eckstein et al., Magn. Reson. Med. 79:2996 (2018), doi:10.1002/mrm.26963.
    """
    coils = _as_coils(signal)
    times = check_echo_times(te, coils.shape[0])
    if len(times) < 2:
        raise ValueError("te must hold at least two echoes to tell the offset from the field, got one")
    together = jnp.sum(coils[1] * jnp.conj(coils[0]), axis=0)
    inside = jnp.ones(coils.shape[2:], bool) if mask is None else as_mask("mask", mask, coils.shape)
    turned = unwrap(angle(together), inside)
    at_zero = coils[0] * jnp.exp(-1j * turned * (times[0] / (times[1] - times[0])))
    return angle(gaussian_smooth(jnp.where(inside, at_zero, 0), smoothing / as_vector("voxel_size", voxel_size)))


def combine_coils(signal: ArrayLike, offsets: ArrayLike) -> Complex[Array, "echo x y z"]:
    """Combine the coils after their offsets are removed, each weighted by its magnitude at the first echo.

    Args:
      signal: complex, echo coil x y z.
      offsets: `coil_offsets` [rad], coil x y z.

    Returns:
      Echoes whose phase at TE = 0 is close to zero.

    Raises:
      ValueError: if the axes do not fit.
    """
    coils, offsets = _as_coils(signal), jnp.asarray(offsets, jnp.float32)
    if offsets.shape != coils.shape[1:]:
        raise ValueError(f"offsets.shape must be {coils.shape[1:]}, got {offsets.shape}")
    weight = jnp.abs(coils[0])
    total = root(jnp.sum(weight**2, axis=0))
    combined = jnp.sum(coils * (weight * jnp.exp(-1j * offsets)), axis=1)
    return jnp.where(total > 0, combined / jnp.where(total > 0, total, 1), 0)


def remove_bipolar(signal: ArrayLike, te: Sequence[float] | ArrayLike, mask: ArrayLike | None = None) -> Bipolar:
    """Remove the phase that a bipolar readout adds to every other echo: a constant and a slope along each axis.

    The field is known from the first and third echo, which share a polarity; what each next echo has beyond it
    alternates in sign. Its slopes are found from neighbours, weighted by the signal, and need no unwrapping. Whole
    turns between those two echoes are those by which the pairs agree best. Of echoes that are evenly spaced all turns
    agree alike: there the field's median must stay below half a turn between the two (0.24 ppm at 3 T and 16 ms), or
    the constant is off by half a turn.

    Args:
      signal: complex, echo x y z, at least three echoes.
      te: echo times [s].
      mask: voxels to go by; None for all.

    Returns:
      The echoes, the second, fourth, ... corrected, with what was removed (constant at the volume's centre).

    Raises:
      ValueError: if there are fewer than three echoes, or the axes do not fit.

    References:
      Li et al., MAGMA 28:347 (2015), doi:10.1007/s10334-014-0470-3.
    """
    echoes = as_echoes("signal", signal)
    times = check_echo_times(te, echoes.shape[0])
    if len(times) < 3:
        raise ValueError(f"te must hold three echoes to tell a bipolar readout from the field, got {len(times)}")
    inside = jnp.ones(echoes.shape[1:], bool) if mask is None else as_mask("mask", mask, echoes.shape)
    rate = unwrap(angle(echoes[2] * jnp.conj(echoes[0])), inside) / (times[2] - times[0])

    def alternating(turns: int) -> Complex[Array, "x y z"]:
        total = jnp.zeros(echoes.shape[1:], jnp.complex64)
        for n, step in enumerate(later - earlier for earlier, later in pairwise(times)):
            turned = rate * step + 2 * np.pi * turns * step / (times[2] - times[0])
            pair = echoes[n + 1] * jnp.conj(echoes[n]) * jnp.exp(-1j * turned)
            total = total + (pair if n % 2 == 0 else jnp.conj(pair))
        return jnp.where(inside, total, 0)

    found = jnp.stack([alternating(turns) for turns in TURNS])
    agreement = jnp.sum(jnp.abs(found), axis=(1, 2, 3))
    # evenly spaced, they differ by rounding
    beyond = found[jnp.where(jnp.max(agreement) > CLEARLY * agreement[0], jnp.argmax(agreement), 0)]
    constant, slopes, plane = _fit_plane(beyond)
    odd = (jnp.arange(len(times)) % 2)[:, None, None, None]
    return Bipolar(echoes * jnp.exp(-1j * odd * plane), constant, slopes)


def _fit_plane(
    image: Complex[Array, "x y z"],
) -> tuple[Float[Array, ""], Float[Array, "3"], Float[Array, "x y z"]]:
    """Fit constant + slopes · r to the angle of an image, weighted by its magnitude, through wraps."""
    places = jnp.meshgrid(*[jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 for n in image.shape], indexing="ij")
    r = jnp.stack([jnp.ones(image.shape, jnp.float32), *places]).reshape(4, -1)
    steps = [jax.lax.slice_in_dim(image, 1, n, axis=a) * jnp.conj(jax.lax.slice_in_dim(image, 0, n - 1, axis=a))
             for a, n in enumerate(image.shape)]  # fmt: skip
    plane = jnp.stack([jnp.float32(0), *[angle(jnp.sum(step)) for step in steps]])
    flat, weight = image.ravel(), jnp.abs(image).ravel()
    height = lambda plane: jnp.matmul(plane, r, precision=HIGHEST)
    plane = plane.at[0].set(angle(jnp.sum(flat * jnp.exp(-1j * height(plane)))))
    # the angles left are small: their weighted plane is the best estimate. Axes of one voxel have no slope
    left = angle(flat * jnp.exp(-1j * height(plane)))
    normal = jnp.matmul(r * weight, r.T, precision=HIGHEST) + 1e-6 * jnp.sum(weight) * jnp.eye(4, dtype=jnp.float32)
    plane = plane + jnp.linalg.solve(normal, jnp.matmul(r * weight, left, precision=HIGHEST))
    return plane[0], plane[1:], height(plane).reshape(image.shape)


def _as_coils(signal: ArrayLike) -> Coils:
    coils = jnp.asarray(signal)
    if coils.ndim != 5 or not jnp.iscomplexobj(coils):
        raise ValueError(f"signal must be complex with axes echo coil x y z, got {coils.dtype} of shape {coils.shape}")
    return coils.astype(jnp.complex64)
