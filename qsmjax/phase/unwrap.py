"""Unwrapping: the multiples of 2π that the scanner cannot see.

Two families. The exact one adds multiples of 2π only, on the host, and has the wrapped phase's gradient: `unwrap`
follows the most reliable path through one volume, `unwrap_echoes` does so once for all echoes and carries the result
along echo time. The Laplacian one,

    ∇²φ = div W(grad φ_wrapped),    W(d) = d wrapped to ±π,

solves for the phase with those differences: one transform, which compiles, but no longer congruent to the measured
phase. Phase [rad] is (x, y, z), echoes lead: (echo, x, y, z).
"""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from skimage.restoration import unwrap_phase

from qsmjax.numerics.arrays import VectorLike, Volume, as_mask, as_vector, as_volume
from qsmjax.phase.host import on_host

TURN = 2 * np.pi
SAME_SPACING = 0.01
"""Pairs of echoes whose spacing exceeds the shortest by this part count as equally spaced."""
TURNS = range(-3, 4)
"""Whole turns of the first difference that uneven echo times are asked to tell apart."""
SAMPLED = 20_000


def unwrap(phase: ArrayLike, mask: ArrayLike | None = None) -> Float[Array, "x y z"]:
    """Unwrap one volume along its most reliable path (on the host).

    Regions of the mask that do not touch are unwrapped apart; each is then moved by whole turns to where its median
    comes closest to that of the largest, whose own median is brought to within half a turn of zero.

    Args:
      phase: wrapped [rad], x y z.
      mask: where it is to be unwrapped; None for everywhere. The phase outside is returned as it came.

    Returns:
      The phase [rad], congruent to the input modulo 2π.

    References:
      Herraez et al., Appl. Opt. 41:7437 (2002), doi:10.1364/AO.41.007437.
      Abdul-Rahman et al., Appl. Opt. 46:6623 (2007), doi:10.1364/AO.46.006623.
    """
    phase = as_volume("phase", phase)
    if phase.ndim != 3:
        raise ValueError(f"phase must be one volume x y z, got shape {phase.shape}: see unwrap_echoes for several")
    wrapped, inside = on_host("phase", phase), _inside(mask, phase.shape)
    if not inside.any():
        return phase
    known = finite_inside("phase", wrapped, inside)
    unwrapped = np.where(inside, _follow_paths(known, inside), wrapped)
    labels, count = scipy.ndimage.label(inside)
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    middles = np.asarray(scipy.ndimage.median(unwrapped, labels, np.arange(1, count + 1)))
    aim = middles[largest] - TURN * np.round(middles[largest] / TURN)
    turns = np.round((middles - aim) / TURN)
    return _turned(phase, unwrapped - TURN * np.append(0, turns)[labels], inside)


def finite_inside(name: str, volume: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Set to zero what lies outside a mask; unwrapping would never end on NaN.

    Args:
      name: for the message.
      volume: x y z, others may lead.
      inside: the mask.

    Raises:
      ValueError: if NaN or infinity lies inside.
    """
    kept = np.where(inside, volume, 0)
    if not np.isfinite(kept).all():
        wrong = int((~np.isfinite(kept)).sum())
        raise ValueError(f"{name} must be finite inside the mask, got {wrong} values of NaN or infinity: mask them out")
    return kept


def unwrap_echoes(
    phase: ArrayLike,
    te: Sequence[float] | ArrayLike,
    mask: ArrayLike | None = None,
    *,
    magnitude: ArrayLike | None = None,
) -> Float[Array, "echo x y z"]:
    """Unwrap all echoes consistently (on the host).

    The phase between the two echoes that stand closest, summed over all pairs as close, is unwrapped in space; it gives
    the field. The first of these echoes is unwrapped in space too, and every other takes the whole turns that bring it
    closest to the line through the ones unwrapped before it, nearest echo time first. Evenly spaced echoes cannot tell
    a turn that is common to all differences; the median of the difference is then taken to lie within half a turn of
    zero.

    Args:
      phase: wrapped [rad], echo x y z.
      te: echo times [s], increasing, evenly spaced or not.
      mask: where to unwrap.
      magnitude: image of any scale, shaped like the phase, to weight the echoes by.

    Returns:
      The phase [rad], each echo congruent to its input modulo 2π.

    Raises:
      ValueError: if the echo times are not as many as the echoes, or do not increase.
    """
    phase = as_volume("phase", phase)
    if phase.ndim != 4:
        raise ValueError(f"phase must have the axes echo x y z, got shape {phase.shape}")
    times = check_echo_times(te, phase.shape[0])
    inside = _inside(mask, phase.shape)
    if len(times) == 1:
        return unwrap(phase[0], inside)[None]
    wrapped = on_host("phase", phase)
    amplitude = np.ones_like(wrapped) if magnitude is None else on_host("magnitude", as_volume("magnitude", magnitude))
    weight = amplitude**2
    if weight.shape != wrapped.shape:
        raise ValueError(f"magnitude.shape must equal phase.shape, got {weight.shape} and {wrapped.shape}")
    wrapped, weight = finite_inside("phase", wrapped, inside), finite_inside("magnitude", weight, inside)
    # a voxel without signal still needs a line
    weight = weight + np.float32(1e-6) * weight.max() + np.finfo(np.float32).tiny
    first, pairs = closest_pairs(times)
    turning = sum(np.sqrt(weight[i] * weight[i + 1]) * np.exp(1j * (wrapped[i + 1] - wrapped[i])) for i in pairs)
    difference, base = (np.asarray(unwrap(volume, inside)) for volume in (np.angle(turning), wrapped[first]))
    rest = [n for n in range(len(times)) if n not in (first, first + 1)]
    centre = (times[first] + times[first + 1]) / 2
    order = [first, first + 1, *sorted(rest, key=lambda n: abs(times[n] - centre))]
    # in units of the last, so that squares stay well within single precision
    scaled = [np.float32(t / times[-1]) for t in times]
    turns = _common_turns(difference, base, wrapped, weight, scaled, order, inside)
    unwrapped, _ = _along_time(difference + TURN * turns, base, wrapped, weight, scaled, order)
    return _turned(phase, unwrapped, inside)


def unwrap_laplacian(phase: ArrayLike, voxel_size: VectorLike = (1.0, 1.0, 1.0)) -> Volume:
    """Unwrap by the phase's wrapped differences, in one transform (differentiable).

    No flux crosses the volume's faces (a cosine transform). Where the differences close around every loop the result is
    the unwrapped phase; elsewhere it is the closest in least squares, and differs from the measured phase by more than
    whole turns.

    Args:
      phase: wrapped [rad]; other axes may lead.
      voxel_size: edges of a voxel [mm]; may be traced.

    Returns:
      The phase [rad], with the constant that agrees best with the measured one.

    References:
      Schofield & Zhu, Opt. Lett. 28:1194 (2003), doi:10.1364/OL.28.001194.
      Ghiglia & Romero, J. Opt. Soc. Am. A 11:107 (1994), doi:10.1364/JOSAA.11.000107.
    """
    phase, size = as_volume("phase", phase), as_vector("voxel_size", voxel_size)
    source, symbol = jnp.zeros_like(phase), jnp.zeros(phase.shape[-3:], jnp.float32)
    for axis, d in zip((-3, -2, -1), size):
        n = phase.shape[axis]
        edges = [(1, 1) if a == axis + phase.ndim else (0, 0) for a in range(phase.ndim)]
        source = source + jnp.diff(jnp.pad(wrap(jnp.diff(phase, axis=axis)) / d**2, edges), axis=axis)
        along = (2 * jnp.cos(jnp.pi * jnp.arange(n) / n) - 2) / d**2
        symbol = symbol + jnp.expand_dims(along, [a for a in (-3, -2, -1) if a != axis])
    spectrum = _cosines(source)
    smooth = _cosines(jnp.where(symbol < 0, spectrum / jnp.where(symbol < 0, symbol, 1), 0), inverse=True)
    off = jnp.sum(jnp.exp(1j * (phase - smooth)), axis=(-3, -2, -1), keepdims=True)
    return smooth + jnp.angle(off)


def wrap(phase: Array) -> Array:
    """Bring phase to [-π, π] by whole turns; its gradient is one."""
    return phase - TURN * jax.lax.stop_gradient(jnp.round(phase / TURN))


def check_echo_times(te: Sequence[float] | ArrayLike, echoes: int) -> list[float]:
    """Return the echo times as numbers, one an echo.

    Raises:
      ValueError: if they are not as many as the echoes, not positive, or do not increase.
    """
    times = [float(t) for t in np.asarray(te, np.float64).reshape(-1)]
    if len(times) != echoes:
        raise ValueError(f"te must hold one time an echo, got {len(times)} for {echoes} echoes")
    if times[0] <= 0 or any(b <= a for a, b in pairwise(times)):
        raise ValueError(f"te must be positive and increase, got {times}: sort the echoes by their time")
    if times[-1] > 1:
        raise ValueError(f"te must be in seconds, got {times}: divide milliseconds by 1000")
    return times


def closest_pairs(times: Sequence[float]) -> tuple[int, list[int]]:
    """Return the first echo of the closest pair, and the first echoes of all pairs as close."""
    gaps = [b - a for a, b in pairwise(times)]
    pairs = [i for i, gap in enumerate(gaps) if gap <= min(gaps) * (1 + SAME_SPACING)]
    return pairs[0], pairs


def _cosines(volume: Volume, *, inverse: bool = False) -> Volume:
    """Take the orthonormal cosine transform (type II) over the last three axes, as products with its matrix."""
    for axis in (-3, -2, -1):
        n = volume.shape[axis]
        matrix = np.sqrt(2 / n) * np.cos(np.pi * np.arange(n)[:, None] * (np.arange(n) + 0.5) / n)
        matrix[0] /= np.sqrt(2)
        rows = jnp.asarray(matrix.T if inverse else matrix, jnp.float32)
        moved = jnp.matmul(rows, jnp.moveaxis(volume, axis, -2), precision=jax.lax.Precision.HIGHEST)
        volume = jnp.moveaxis(moved, -2, axis)
    return volume


def _inside(mask: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape[-3:], bool) if mask is None else on_host("mask", as_mask("mask", mask, shape))


def _turned(phase: Volume, unwrapped: np.ndarray, inside: np.ndarray) -> Volume:
    """Return what the host unwrapped with the phase's own derivative, and the phase as it came outside."""
    return jnp.where(inside, jnp.asarray(unwrapped, jnp.float32) + (phase - jax.lax.stop_gradient(phase)), phase)


def _follow_paths(wrapped: np.ndarray, inside: np.ndarray) -> np.ndarray:
    # axes of one voxel have no neighbours to follow
    image = np.squeeze(wrapped)
    if image.ndim == 0:
        return wrapped
    if image.ndim > 1:
        image = np.ma.masked_array(image, mask=~np.squeeze(inside))
    return np.asarray(np.ma.getdata(unwrap_phase(image, rng=0))).reshape(wrapped.shape)


def _along_time(difference, base, phase, weight, times, order):
    """Unwrap echo after echo to the line through those before; return them and their weighted misfit to the line."""
    done = {order[0]: base}
    for n in order[1:]:
        if len(done) == 1:
            predicted = base + difference
        else:
            middle, height, slope = _line([times[m] for m in done], list(done.values()), [weight[m] for m in done])
            predicted = height + slope * (times[n] - middle)
        done[n] = phase[n] + TURN * np.round((predicted - phase[n]) / TURN)
    unwrapped = np.stack([done[n] for n in range(len(times))])
    middle, height, slope = _line(times, unwrapped, weight)
    misfit = sum(w * (u - height - slope * (t - middle)) ** 2 for t, u, w in zip(times, unwrapped, weight))
    return unwrapped, float(np.sum(misfit))


def _line(times, values, weight):
    """Fit height + slope (t - middle) to each voxel's values."""
    total = sum(weight)
    middle = sum(w * t for w, t in zip(weight, times)) / total
    height = sum(w * v for w, v in zip(weight, values)) / total
    spread = sum(w * (t - middle) ** 2 for w, t in zip(weight, times))
    return middle, height, sum(w * (t - middle) * (v - height) for w, t, v in zip(weight, times, values)) / spread


def _common_turns(difference, base, phase, weight, times, order, inside) -> int:
    """Find the whole turns that the first difference lacks, from the echoes that are spaced unevenly."""
    picked = np.flatnonzero(inside)[:: max(1, int(inside.sum()) // SAMPLED)]
    few = [a.reshape(*a.shape[:-3], -1)[..., picked] for a in (difference, base, phase, weight)]
    misfits = {k: _along_time(few[0] + TURN * k, few[1], few[2], few[3], times, order)[1] for k in TURNS}
    bound = 1.05 * min(misfits.values()) + 1e-6 * float(few[3].sum())
    return min((k for k in TURNS if misfits[k] <= bound), key=abs)
