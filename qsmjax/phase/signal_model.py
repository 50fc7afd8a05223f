"""One voxel's echoes as a decaying, turning signal, fitted by Gauss-Newton.

    S(TE) = A exp(-R2* TE) exp(i (phase₀ + c(TE) field)),    c(TE) = 2π gamma B0 TE · 1e-6

The decay is fitted to the magnitude. With it as weights A_n = A exp(-R2* TE_n) the phase is fitted to the complex
signal: with s_n = Im(S_n exp(-i model phase_n)) each step solves

    min Σ_n (s_n - A_n (d phase₀ + c_n d field))²

whose fixed point is the maximum-likelihood estimate under complex Gaussian noise, and whose normal matrix bounds the
field's variance from below (Cramér-Rao): σ² / Σ A_n² (c_n - c̄)², or σ² / Σ A_n² c_n² where the initial phase is known.
Everything here is differentiable and maps over voxels. Echoes stand on the first axis, the field is in ppm.
"""

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import scipy.special
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.operators import root
from qsmjax.numerics.quantiles import masked_quantile
from qsmjax.numerics.solvers import iterate
from qsmjax.phase.unwrap import wrap
from qsmjax.physics.units import radians_per_ppm

Echoes = Complex[Array, "echo x y z"]
STEEPEST = 2000.0
"""R2* above which no signal is left at any echo [1/s]."""
NOTHING = 1e-6
"""Part of the largest signal below which a voxel counts as empty."""
POOL = 7
"""Edge of the box [voxels] over which residuals are pooled to the noise."""
FLAT = 1e-5
"""Part by which a magnitude varies that was not measured, but is one everywhere."""
SHORTEST = 4
"""Voxels of an axis below which no second difference is taken along it."""
INTERPOLATED = 0.5
"""Residuals whose finest detail is below this part of their own size are of an image of fewer voxels."""
QUIET = 0.1
"""Part of the boxes that counts as quiet, where the noise is read off the image's finest detail."""
SHORTFALL = 0.88
"""Standard deviation that this quantile of boxes of noise alone shows, of the true one (measured)."""
OUTLIER = 10.0
"""Squared residuals above this many times the variance (flow, a wrong model) are counted as that many."""


@flax.struct.dataclass
class EchoFit:
    """What echoes tell, voxel by voxel.

    Attributes:
      field: total field [ppm of B0].
      noise: standard deviation of the field's noise [ppm].
      initial_phase: phase at TE = 0 [rad].
      r2star: decay of the magnitude [1/s]; zero for one echo.
      amplitude: magnitude at TE = 0, in the signal's units.
      relative_residual: |S - model| / |S| over the echoes; the consensus leaves out voxels above 0.3.
    """

    field: Volume
    noise: Volume
    initial_phase: Volume
    r2star: Volume
    amplitude: Volume
    relative_residual: Volume


def fit_signal(
    signal: Echoes,
    te: Sequence[float] | ArrayLike,
    b0: ArrayLike,
    start: Volume,
    *,
    initial_phase: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    mask: Mask | None = None,
    iterations: int = 5,
) -> EchoFit:
    """Fit field and initial phase together from a field that is right to within half a turn at every echo.

    Args:
      signal: complex echoes.
      te: echo times [s].
      b0: field strength [T].
      start: field to start from [ppm].
      initial_phase: phase at TE = 0 where it is known [rad]; one echo alone takes it as zero.
      noise: standard deviation of the real and of the imaginary part, one number or a volume; None to find it from the
        residuals, or from the image's finest detail where no residual is left.
      mask: voxels from which the noise is found; None for all.
      iterations: Gauss-Newton steps.

    References:
      Liu et al., Magn. Reson. Med. 69:467 (2013), doi:10.1002/mrm.24272.
    """
    times = jnp.asarray(te, jnp.float32)
    c = radians_per_ppm(b0, times)[:, None, None, None]
    amplitude, r2star = fit_decay(jnp.abs(signal), times)
    weight = amplitude * jnp.exp(-r2star * times[:, None, None, None])
    # a voxel without signal tells nothing; what rounding leaves of one would overflow in the gradient
    level = jnp.max(jnp.abs(signal), axis=0)
    weight = jnp.where(level > NOTHING * jnp.max(level), weight, 0)
    power = jnp.sum(weight**2, axis=0)
    known = initial_phase is not None or len(times) == 1
    middle = 0.0 if known else _ratio(jnp.sum(weight**2 * c, axis=0), power)
    spread = jnp.sum(weight**2 * (c - middle) ** 2, axis=0)

    def step(state):
        field, phase = state
        off = weight * jnp.imag(signal * jnp.exp(-1j * (phase + c * field)))
        change = _ratio(jnp.sum(off * (c - middle), axis=0), spread)
        turn = 0.0 if known else _ratio(jnp.sum(off, axis=0), power) - middle * change
        return field + change, phase + turn

    if known:
        phase = jnp.zeros_like(start) + jnp.asarray(0 if initial_phase is None else initial_phase, jnp.float32)
    else:
        phase = angle(jnp.sum(weight * signal * jnp.exp(-1j * c * start), axis=0))
    field, phase = iterate(step, (start, phase), max_iterations=iterations).state
    model = weight * jnp.exp(1j * (phase + c * field))
    if noise is None:
        off = jnp.imag(signal * jnp.exp(-1j * (phase + c * field)))
        noise = _noise(signal, off, weight, c - middle, mask, with_phase=not known)
    # phase that is lost altogether is spread evenly over a turn
    lost = math.pi / math.sqrt(3) / jnp.maximum(jnp.max(c) - (0.0 if known else jnp.min(c)), 1e-6)
    return EchoFit(
        field=field,
        noise=jnp.minimum(_ratio(jnp.asarray(noise, jnp.float32), root(spread), jnp.inf), lost),
        initial_phase=jnp.angle(jnp.exp(1j * phase)),
        r2star=r2star,
        amplitude=amplitude,
        relative_residual=root(
            _ratio(jnp.sum(jnp.abs(signal - model) ** 2, axis=0), jnp.sum(jnp.abs(signal) ** 2, axis=0), 1.0)
        ),
    )


def _noise(signal: Echoes, off: Array, weight: Array, c: Array, mask: Mask | None, *, with_phase: bool) -> Array:
    """Find the noise in what a fit of field and phase left: with echoes to spare, less what bends over time."""
    inside = jnp.ones(off.shape[1:], bool) if mask is None else mask
    fitted = [weight, weight * c] if with_phase else [weight * c]
    if len(signal) > len(fitted) + 1:
        bend = weight * c**2
        off, fitted = _less_the_bend(off, bend, fitted), [*fitted, bend]
    return noise_level(signal, off, inside, parameters=len(fitted))


def fit_decay(magnitude: Float[Array, "echo x y z"], te: Float[Array, " echo"]) -> tuple[Volume, Volume]:
    """Fit A exp(-R2* TE) to the magnitude: a line through its logarithm, twice, weighted by the squared signal.

    Returns:
      A in the magnitude's units, and R2* [1/s], not negative; one echo alone gives its own magnitude and zero.
    """
    if len(te) == 1:
        return magnitude[0], jnp.zeros_like(magnitude[0])
    t = te[:, None, None, None]
    level = jnp.where(magnitude > 0, magnitude, 1e-12 * jnp.max(magnitude) + jnp.finfo(jnp.float32).tiny)
    log, weight = jnp.log(level), level
    for _ in range(2):
        # scaled to one, so that squares of any unit stay within single precision
        w = (weight / jnp.max(weight, axis=0)) ** 2
        middle = jnp.sum(w * t, axis=0) / jnp.sum(w, axis=0)
        height = jnp.sum(w * log, axis=0) / jnp.sum(w, axis=0)
        slope = _ratio(jnp.sum(w * (t - middle) * (log - height), axis=0), jnp.sum(w * (t - middle) ** 2, axis=0))
        r2star = jnp.clip(-slope, 0, STEEPEST)
        weight = jnp.exp(height - r2star * (t - middle))
    return jnp.exp(height + r2star * middle), r2star


def _less_the_bend(off: Float[Array, "echo x y z"], bend: Float[Array, "echo x y z"], fitted: list) -> Array:
    """Take off residuals what a phase bent over echo time leaves: that of voxels within which it turns, not noise."""
    project = lambda onto, a: onto * _ratio(jnp.sum(onto * a, axis=0), jnp.sum(onto**2, axis=0))
    for one in fitted:
        bend = bend - project(one, bend)
    return off - project(bend, off)


def noise_level(signal: Echoes, off: Float[Array, "echo x y z"], mask: Mask, *, parameters: int) -> Volume:
    """Find the standard deviation of the signal's parts from what the fitted phase leaves over.

    Squared residuals are pooled over a box, since parallel imaging makes the noise differ from place to place. What the
    model misses (phase that turns within a voxel) is much alike in neighbours, so it is their second difference that is
    pooled, unless that is so small that the image must have been interpolated.

    With as many parameters as echoes nothing is left over: then one number is found from the finest detail of the image
    where it is quiet. That is too small for images that were interpolated, and a constant in gradients, as is the level
    beyond which residuals are outliers.

    Args:
      signal: complex echoes.
      off: their components across the fitted phase.
      mask: voxels to go by.
      parameters: how many the phase was fitted with.
    """
    free = signal.shape[0] - parameters
    if free == 0:
        return jnp.broadcast_to(_finest_detail(signal, mask), mask.shape)
    whole, whole_typical = _pooled(off, mask, free)
    fine, fine_typical = _pooled(*_mixed_difference(off, mask), free)
    level = jnp.where(fine_typical > INTERPOLATED**2 * whole_typical, fine, whole)
    return root(jnp.where(mask, level, whole_typical))


def _pooled(off: Float[Array, "echo x y z"], mask: Mask, free: int) -> tuple[Volume, Float[Array, ""]]:
    """Return the residuals' variance pooled over a box, and its typical value over the mask."""
    variance = jnp.sum(off**2, axis=0) / free
    # the root's median, squared: what is found to a part of the largest is of a range half as many decades wide
    middle = masked_quantile(root(variance), mask & jnp.isfinite(variance), 0.5) ** 2
    typical = middle / float(2 * scipy.special.gammaincinv(free / 2, 0.5) / free)
    kept = jnp.where(mask, jnp.minimum(variance, OUTLIER * typical), 0)
    return _ratio(_box_sum(kept), _box_sum(mask.astype(jnp.float32)), typical), typical


def _finest_detail(signal: Echoes, mask: Mask) -> Float[Array, ""]:
    """Read the noise off the mixed second difference of one echo's logarithm, or of the ratio of two.

    Tissue differs in signal from voxel to voxel by far more than the noise; two echoes share most of that, and the
    phase has next to none of it. What detail is left is in some places and not in others: the noise is that of the
    quiet ones, by the phase or by the magnitude, whichever is the quieter.
    """
    strength = jnp.abs(signal)
    inside = mask & jnp.all(strength > NOTHING * jnp.max(strength), axis=0)
    strength = jnp.where(inside, strength, 1)
    gain = _detail_gain(strength)

    def quiet(echoes: Float[Array, "echo x y z"], *, turning: bool) -> Float[Array, ""]:
        """Return the deviation of the signal's parts that the logarithm's real or imaginary part tells."""
        # one echo's own, or the last's less the first's
        part = echoes[-1] - echoes[0] if len(echoes) > 1 else echoes[0]
        detail, known = _mixed_difference(part, inside, turning=turning)
        power = _box_sum(jnp.where(known, detail**2 / gain, 0))
        return masked_quantile(root(_ratio(power, _box_sum(known.astype(jnp.float32)))), known, QUIET) / SHORTFALL

    by_phase = quiet(jnp.angle(jnp.where(inside, signal, 1)), turning=True)
    by_magnitude = quiet(jnp.log(strength), turning=False)
    # a magnitude that was not measured is flat, and tells of no noise
    least, largest = jnp.min(strength, where=inside, initial=jnp.inf), jnp.max(strength, where=inside, initial=0)
    return jnp.where(largest > least * (1 + FLAT), jnp.minimum(by_phase, by_magnitude), by_phase)


def _detail_gain(strength: Float[Array, "echo x y z"]) -> Volume:
    """Return the variance of the logarithm's mixed difference, in that of the signal's parts."""
    gain = jnp.sum(1 / strength**2, axis=0)
    for axis in _long_axes(gain.shape):
        # at the faces no difference is known
        gain = (jnp.roll(gain, 1, axis) + 4 * gain + jnp.roll(gain, -1, axis)) / 6
    return gain


def _mixed_difference(
    volume: Float[Array, "*echo x y z"], mask: Mask, *, turning: bool = False
) -> tuple[Float[Array, "*echo x y z"], Mask]:
    """Return the second difference along all axes, of the noise's own size, and where it is known.

    Args:
      volume: echoes may lead.
      mask: where it is known.
      turning: whether it is a phase, which may turn on between voxels; its slope does not.
    """
    for axis in _long_axes(mask.shape):
        steps = jnp.diff(volume, axis=axis)
        if turning:
            steps, turning = wrap(steps), False
        rim = [(1, 1) if a == axis else (0, 0) for a in range(-volume.ndim, 0)]
        volume, mask = jnp.pad(jnp.diff(steps, axis=axis) / math.sqrt(6), rim), _between(mask, axis)
    return volume, mask


def _between(mask: Mask, axis: int) -> Mask:
    """Return the voxels that lie in a mask with both their neighbours along an axis."""
    n = mask.shape[axis]
    padded = jnp.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(-3, 0)])
    return jnp.stack([jax.lax.slice_in_dim(padded, k, n + k, axis=axis) for k in range(3)]).all(0)


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    return [axis for axis in (-3, -2, -1) if shape[axis] >= SHORTEST]


def _box_sum(volume: Volume) -> Volume:
    for axis in range(3):
        window = tuple(POOL if a == axis else 1 for a in range(3))
        volume = jax.lax.reduce_window(volume, 0.0, jax.lax.add, window, (1, 1, 1), "SAME")
    return volume


def _ratio(above: Array, below: Array, otherwise: ArrayLike = 0.0) -> Array:
    # a safe denominator inside as well: `where` alone still sends NaN through the gradient
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1), otherwise)


def angle(values: Array) -> Array:
    """Return the angle of complex values [rad]; at zero it is zero, and so is its gradient."""
    return jnp.angle(jnp.where(values == 0, 1, values))
