"""Units of the field, and the sign that everything else follows.

    phase = phase₀ + 2π gamma B0 (ppm · 1e-6) TE

with a plus: paramagnetic tissue (iron) is positive in the field and in chi. Fields and chi are in ppm inside; another
unit shows in the name.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

GAMMA = 42.577478518e6
"""Gyromagnetic ratio of the proton over 2π [Hz/T]. CODATA 2018."""

UNITS = ("ppm", "hz", "rad")


def hz_per_ppm(b0: ArrayLike) -> Float[Array, "*shape"]:
    """Return the frequency that one ppm makes at B0 [T]: gamma B0 · 1e-6 [Hz]."""
    return jnp.asarray(b0, jnp.float32) * (GAMMA * 1e-6)


def radians_per_ppm(b0: ArrayLike, te: ArrayLike) -> Float[Array, "*shape"]:
    """Return the phase that one ppm makes at B0 [T] after TE [s]: 2π gamma B0 TE · 1e-6 [rad]."""
    return 2 * jnp.pi * hz_per_ppm(b0) * jnp.asarray(te, jnp.float32)


def to_ppm(
    field: ArrayLike, units: str, *, b0: ArrayLike | None = None, te: ArrayLike | None = None
) -> Float[Array, "*shape"]:
    """Bring a field of known units to ppm of B0.

    Args:
      field: the field, of any shape.
      units: "ppm", "hz", or "rad" (unwrapped phase at the echo time).
      b0: field strength [T], needed for hz and rad.
      te: echo time [s], needed for rad.

    Raises:
      ValueError: if the units are unknown, or need a B0 or TE that is not given or not positive.
    """
    return jnp.asarray(field, jnp.float32) / _scale(units, b0, te)


def from_ppm(
    field: ArrayLike, units: str, *, b0: ArrayLike | None = None, te: ArrayLike | None = None
) -> Float[Array, "*shape"]:
    """Bring a field in ppm to other units: the inverse of `to_ppm`, with the same arguments and errors."""
    return jnp.asarray(field, jnp.float32) * _scale(units, b0, te)


def _scale(units: str, b0: ArrayLike | None, te: ArrayLike | None) -> ArrayLike:
    if units not in UNITS:
        raise ValueError(f"units must be one of {', '.join(UNITS)}, got {units!r}")
    if units == "ppm":
        return 1.0
    if b0 is None:
        raise ValueError(f"b0 must be given for a field in {units}: the field strength in tesla")
    _check_positive("b0", b0)
    if units == "hz":
        return hz_per_ppm(b0)
    if te is None:
        raise ValueError("te must be given for a field in rad: the echo time in seconds")
    _check_positive("te", te)
    return radians_per_ppm(b0, te)


def _check_positive(name: str, value: ArrayLike) -> None:
    if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be above zero, got {value}")
