"""From echoes to the total field and its noise: unwrap once, then fit the complex signal.

    phase(TE) = phase₀ + 2π gamma B0 TE · 1e-6 field

Echoes stand on the first axis of (echo, x, y, z), the field is in ppm. The whole turns are found on the host, where
jax.grad may look and jax.jit may not; the fit that follows is differentiable and compiles (`signal_model`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.numerics.arrays import Volume, as_mask, as_volume, native
from qsmjax.phase.host import on_host
from qsmjax.phase.signal_model import EchoFit, fit_signal
from qsmjax.phase.turns import settle_turns
from qsmjax.phase.unwrap import check_echo_times, finite_inside, unwrap_echoes
from qsmjax.physics.units import radians_per_ppm


def fit_echoes(
    signal: ArrayLike,
    te: Sequence[float] | ArrayLike,
    b0: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    initial_phase: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    iterations: int = 5,
) -> EchoFit:
    """Make the total field and its noise from one echo or many.

    Args:
      signal: complex echoes, echo x y z (`echoes_from_phase` makes them from phase and magnitude).
      te: echo times [s], increasing, evenly spaced or not.
      b0: field strength [T].
      mask: where to unwrap and to find the noise; None for everywhere.
      initial_phase: phase at TE = 0 where it is known [rad], such as zero after offsets were removed: the noise falls
        by about half. None to fit it; one echo alone takes it as zero.
      noise: standard deviation of the signal's real and imaginary part; None to find it.
      iterations: Gauss-Newton steps.

    Returns:
      The fit, zero outside the mask.

    Raises:
      ValueError: if the axes or the echo times do not fit, or the signal is not finite inside the mask.
    """
    echoes = as_echoes("signal", signal)
    times = check_echo_times(te, echoes.shape[0])
    inside = jnp.ones(echoes.shape[1:], bool) if mask is None else as_mask("mask", mask, echoes.shape)
    finite_inside("signal", on_host("signal", echoes), on_host("mask", inside))
    echoes = jnp.where(inside, echoes, 0)
    if initial_phase is not None:
        initial_phase = jnp.broadcast_to(jnp.asarray(initial_phase, jnp.float32), echoes.shape[1:])
        echoes = echoes * jnp.exp(-1j * initial_phase)
    # the fit's result does not depend on where it started, so that neither does its gradient
    seen, per_second = jax.lax.stop_gradient((echoes, radians_per_ppm(b0, 1.0)))
    unwrapped = unwrap_echoes(jnp.angle(seen), times, inside, magnitude=jnp.abs(seen))
    power = jnp.abs(seen) ** 2
    start, at_zero = _line_through(unwrapped, power, per_second * jnp.asarray(times, jnp.float32))
    known = None if initial_phase is None else jnp.zeros_like(start)
    start = settle_turns(start, at_zero, jnp.sum(power, axis=0), times, per_second, inside, known)
    fit = fit_signal(echoes, jnp.asarray(times), b0, start, initial_phase=known, noise=noise, mask=inside,
                     iterations=iterations)  # fmt: skip
    values = vars(fit) if initial_phase is None else vars(fit) | {"initial_phase": initial_phase}
    return EchoFit(**{name: jnp.where(inside, value, 0) for name, value in values.items()})


def echoes_from_phase(phase: ArrayLike, magnitude: ArrayLike | None = None) -> Complex[Array, "echo x y z"]:
    """Make complex echoes from phase [rad] and magnitude; without a magnitude all voxels and echoes count alike.

    One volume counts as one echo.

    Raises:
      ValueError: if the shapes differ.
    """
    phase = as_volume("phase", phase)
    magnitude = jnp.ones_like(phase) if magnitude is None else as_volume("magnitude", magnitude)
    if magnitude.shape != phase.shape:
        raise ValueError(f"magnitude.shape must equal phase.shape, got {magnitude.shape} and {phase.shape}")
    return as_echoes("phase", magnitude * jnp.exp(1j * phase))


def as_echoes(name: str, signal: ArrayLike) -> Complex[Array, "echo x y z"]:
    """Convert to complex echoes; one volume counts as one echo.

    Raises:
      ValueError: if the values are real, or the axes are not echo x y z.
    """
    echoes = jnp.asarray(native(signal))
    if not jnp.iscomplexobj(echoes):
        raise ValueError(f"{name} must be complex, got {echoes.dtype}: see echoes_from_phase and complex_from_parts")
    if echoes.ndim == 3:
        echoes = echoes[None]
    if echoes.ndim != 4:
        raise ValueError(f"{name} must have the axes echo x y z, got shape {echoes.shape}")
    return echoes.astype(jnp.complex64)


def _line_through(
    phase: Float[Array, "echo x y z"], weight: Float[Array, "echo x y z"], c: Float[Array, " echo"]
) -> tuple[Volume, Volume]:
    """Return the weighted line's slope over c, and its height at zero."""
    c = c[:, None, None, None]
    if phase.shape[0] == 1:
        return phase[0] / c[0], jnp.zeros_like(phase[0])
    # a voxel without signal still needs a line
    weight = weight + 1e-6 * jnp.max(weight) + jnp.finfo(jnp.float32).tiny
    total = jnp.sum(weight, axis=0)
    middle, height = (jnp.sum(weight * a, axis=0) / total for a in (c, phase))
    slope = jnp.sum(weight * (c - middle) * (phase - height), axis=0) / jnp.sum(weight * (c - middle) ** 2, axis=0)
    return slope, height - slope * middle
