"""Stored phase to radians, by rule and never by stretching the observed range.

What a scanner stores is known from the header's scale factor and the manufacturer. The values are only held against the
rule: those that fit none, or more than one, are refused, since a wrong factor makes a plausible and wrong map. Phase of
scanners that count it the other way round (GE) is negated, so that paramagnetic tissue is positive. A sign that
alternates from slice to slice is found in the image itself, since no header tells of it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

PhaseUnits = Literal["auto", "rad", "stored-rad", "mrad", "siemens", "raw12"]
RADIAN_LIMIT = 1.01 * math.pi
LEAST_RADIANS = 0.1
"""Phase in radians that reaches no further is taken for scaled twice: a whole head at any echo time spans more."""
TWELVE_BITS = 4096
ALTERNATING = -0.5
"""Mean cosine of the step between neighbours below which a sign alternates: no field turns a whole head so far."""
CURE = (
    "say what they are with --phase-units (rad, stored-rad, mrad, siemens or raw12) and, of GE's, "
    '"Manufacturer": "GE" in --params, or bring them to radians first'
)
ENDS = {"units of pi": (-1.0, 1.0), "turns, from 0 to 1": (0.0, 1.0), "turns, from -0.5 to 0.5": (-0.5, 0.5)}
"""Where phase ends that small numbers may be in place of radians, and these by rare chance alone."""
WHOLE_ENDS = {
    "8 bits": (0.0, 255.0),
    "degrees, from 0 to 360": (0.0, 360.0),
    "degrees, from -180 to 180": (-180.0, 180.0),
    "12 bits with a sign": (-2048.0, 2047.0),
}
"""The same of whole numbers, in place of 0..4095 or -4096..4094."""
NEAR = 0.005
"""How near to these ends it does, as a part of the way between them."""


WORDS = {
    "rad": "radians",
    "stored-rad": "radians before the header's scale factor {slope:.6g}",
    "mrad": "milliradians, v/1000",
    "siemens": "Siemens -4096..4094, v pi/4096",
    "raw12": "raw 0..4095, v 2 pi/4096 - pi",
}
"""The rules in words, for the sidecar."""


class PhaseRule(NamedTuple):
    """How stored phase becomes radians: the rule's name, the header's factor and intercept, and the sign."""

    name: str
    slope: float
    inter: float
    inverted: bool
    words: str

    def radians(self, values: ArrayLike) -> Float[Array, "*shape"]:
        """Bring phase, after the header's factor, to radians: all of it, or an echo of it."""
        phase = _apply(self.name, np.asarray(values, np.float64), self.slope, self.inter)
        return jnp.asarray(-phase if self.inverted else phase, jnp.float32)


def phase_rule(
    values: ArrayLike,
    *,
    units: PhaseUnits | str = "auto",
    scl_slope: float | None = None,
    scl_inter: float | None = None,
    stored_as_float: bool = False,
    manufacturer: str | None = None,
    inverted: bool | None = None,
) -> PhaseRule:
    """Find the rule that brings phase, as a header scales it, to radians: of all echoes, to be applied to any.

    - rad: floating point within ±π·1.01
    - siemens: -4096..4094, v π/4096 (by the header's slope of 2, its manufacturer, or beyond what mrad can reach)
    - raw12: 0..4095, v 2π/4096 - π (without the header's factor)
    - mrad: within ±3142, v/1000 (GE and Philips)
    - stored-rad: radians before the header's factor, which is wrong (never chosen by itself)

    Args:
      values: phase after the header's slope and intercept, of any shape.
      units: the rule, where it is known; "auto" to find it.
      scl_slope: the header's factor, already applied to `values`; None, NaN or 0 for none.
      scl_inter: the header's intercept.
      stored_as_float: whether the file holds floating point; a factor on top of that is suspicious.
      manufacturer: as the sidecar spells it, where known.
      inverted: whether the scanner counts phase negatively; None to go by the manufacturer (GE does).

    Returns:
      The rule: its `radians` takes all of the phase, or an echo of it.

    Raises:
      ValueError: if no rule fits, or more than one; the header's factor and `--phase-units` are named.
    """
    if units not in get_args(PhaseUnits):
        raise ValueError(f"units must be one of {', '.join(get_args(PhaseUnits))}, got {units!r}")
    values = np.asarray(values)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("phase must be finite, got NaN, infinity or nothing at all: mend the file")
    slope = 1.0 if scl_slope is None or not math.isfinite(scl_slope) or scl_slope == 0 else float(scl_slope)
    inter = 0.0 if scl_inter is None or not math.isfinite(scl_inter) else float(scl_inter)
    maker = (manufacturer or "").strip().lower()
    rule = _find_rule(values, slope, inter, stored_as_float=stored_as_float, maker=maker) if units == "auto" else units
    words = WORDS[rule].format(slope=slope)
    if inverted is None:
        inverted = maker.startswith("ge")
    words += ", negated (phase counted the other way round)" if inverted else ""
    return PhaseRule(rule, slope, inter, inverted, words + ("" if units == "auto" else ", as told"))


def complex_from_parts(
    real: ArrayLike,
    imaginary: ArrayLike,
    *,
    manufacturer: str | None = None,
    inverted: bool | None = None,
) -> Complex[Array, "*shape"]:
    """Put real and imaginary parts together, with the sign that everything else follows.

    Args:
      real: real part, of any scale.
      imaginary: imaginary part, of the same scale and shape.
      manufacturer: as the sidecar spells it, where known.
      inverted: whether the scanner counts phase negatively; None to go by the manufacturer (GE does).

    Raises:
      ValueError: if the shapes differ.
    """
    real, imaginary = jnp.asarray(real, jnp.float32), jnp.asarray(imaginary, jnp.float32)
    if real.shape != imaginary.shape:
        raise ValueError(f"imaginary.shape must equal real.shape, got {imaginary.shape} and {real.shape}")
    maker = (manufacturer or "").strip().lower()
    signal = real + 1j * imaginary
    if maker.startswith("ge") if inverted is None else inverted:
        signal = jnp.conj(signal)
    return signal


def undo_alternation(signal: ArrayLike, mask: ArrayLike) -> tuple[Complex[Array, "echo x y z"], tuple[int, ...]]:
    """Undo a sign that alternates from slice to slice, as 3-D scans of GE have it, or a transform without its shift.

        Σ Re(s(r + e) s*(r)) / Σ |s(r + e) s(r)|

    over the mask, at the first echo, is near one along every axis e of a head, and near minus one where it alternates.

    Args:
      signal: complex echoes.
      mask: not zero in the head.

    Returns:
      The echoes, and the axes along which every other slice was negated.
    """
    signal = jnp.asarray(signal, jnp.complex64)
    axes = alternating_axes(signal[0], mask)
    return negate_alternate(signal, axes), axes


def negate_alternate(signal: ArrayLike, axes: Sequence[int]) -> Complex[Array, "*batch x y z"]:
    """Negate every other slice along some of the axes x, y, z (0, 1, 2)."""
    signal = jnp.asarray(signal, jnp.complex64)
    for axis in axes:
        slices = jnp.arange(signal.shape[axis - 3]).reshape(*[-1 if a == axis else 1 for a in range(3)])
        signal = signal * (1.0 - 2.0 * (slices % 2))
    return signal


def alternating_axes(image: ArrayLike, mask: ArrayLike) -> tuple[int, ...]:
    """Find the axes along which an image's sign alternates; of several coils' images, by their sum.

    Args:
      image: complex, x y z or coil x y z.
      mask: not zero in the head.
    """
    image, inside, axes = jnp.asarray(image, jnp.complex64), jnp.asarray(mask) != 0, []
    for axis in range(3):
        first = jnp.moveaxis(jnp.where(inside, image, 0), axis - 3, -1)
        products = first[..., 1:] * jnp.conj(first[..., :-1])
        # a comparison has a value beneath jax.grad too
        if bool(jnp.sum(products.real) < ALTERNATING * jnp.sum(jnp.abs(products))):
            image = negate_alternate(image, (axis,))
            axes.append(axis)
    return tuple(axes)


def _find_rule(values: np.ndarray, slope: float, inter: float, *, stored_as_float: bool, maker: str) -> str:
    low, high = float(values.min()), float(values.max())
    reach = max(-low, high)
    header = f"the header's scale factor is {slope:.6g} (intercept {inter:.6g})"
    found = f"got {low:.6g} to {high:.6g} where {header}"
    # volume by volume: the first tells of most phase that it is not
    whole = all(bool(np.all(part == np.round(part))) for part in np.atleast_1d(values))
    if reach <= RADIAN_LIMIT and not (whole and reach > 0):
        if stored_as_float and slope != 1:
            raise ValueError(
                f"phase stored in floating point must have no scale factor, but {header}, which leaves {low:.4g} to "
                f"{high:.4g}: {CURE}; stored-rad ignores the factor"
            )
        if reach < LEAST_RADIANS:
            raise ValueError(f"phase in radians must reach beyond ±{LEAST_RADIANS}, {found}: {CURE}")
        _refuse_ends(low, high, ENDS, found)
        return "rad"
    if slope == 1:
        _refuse_ends(low, high, WHOLE_ENDS, found)
    fits = _fitting(low, high, slope, inter, whole=whole, maker=maker)
    if len(fits) != 1:
        could = f"which could be {' or '.join(fits)}" if fits else "which fits no scanner's rule"
        raise ValueError(f"phase must be in a scanner's known units, {found}, {could}: {CURE}")
    return fits[0]


def _refuse_ends(low: float, high: float, ends: Mapping[str, tuple[float, float]], found: str) -> None:
    for unit, (least, most) in ends.items():
        if max(abs(low - least), abs(high - most)) < NEAR * (most - least):
            raise ValueError(f"phase must be in a scanner's known units, {found}, which could be {unit}: {CURE}")


def _fitting(low: float, high: float, slope: float, inter: float, *, whole: bool, maker: str) -> list[str]:
    """List the rules that values beyond radians may follow: the header's signature first, then the manufacturer."""
    millis = 1000 * RADIAN_LIMIT
    if slope == 2 and inter == -TWELVE_BITS and low >= -TWELVE_BITS and high <= TWELVE_BITS:
        return ["siemens"]
    # Philips' factor is not a whole number, so only its values need not be
    if low >= -millis and high <= millis and (maker.startswith("philips") or _close(slope, 2 * math.pi / 4.095)):
        return ["mrad"]
    if not whole:
        return []
    fits = []
    if low >= 0 and high < TWELVE_BITS and high > RADIAN_LIMIT and not maker.startswith("ge"):
        fits.append("raw12")
    if low < 0 and low >= -TWELVE_BITS and high <= TWELVE_BITS and not maker.startswith("ge"):
        fits.append("siemens")
    if low < 0 and low >= -millis and high <= millis and not maker.startswith("siemens"):
        fits.append("mrad")
    return fits


def _close(a: float, b: float) -> bool:
    return abs(a - b) < 1e-3 * abs(b)


def _apply(rule: str, values: np.ndarray, slope: float, inter: float) -> np.ndarray:
    if rule == "rad":
        return values
    if rule == "stored-rad":
        return (values - inter) / slope
    if rule == "mrad":
        return values / 1000
    if rule == "siemens":
        return values * (math.pi / TWELVE_BITS)
    return values * (2 * math.pi / TWELVE_BITS) - math.pi
