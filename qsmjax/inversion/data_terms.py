"""Data terms: how what chi makes is held against the field, each as the proximal map of one voxel.

    prox(s) = argmin_y E(y - f) + penalty/2 (y - s)²

    linear      E(d) = ½ W² d²                          noise is Gaussian in the field
    nonlinear   E(d) = W² (1 - cos r d) / r²            noise is Gaussian in the complex signal; from a quarter turn on
                                                        the pull stays what it is there
    robust      E(d) = κ W |d|                          outliers: the pull of a voxel does not grow with its error

All three have the same curvature at small d when κ = √(π/2) noise level, so that one regularisation weight, and one set
of penalties, serves all. r is in radians per ppm.

A local field is known up to a constant: the scanner's frequency is off by some, and no source in the mask makes one.
`up_to_constant` finds it; a map that had to make 3 ppb of it would be off by its own size.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qsmjax.numerics.arrays import Volume
from qsmjax.numerics.operators import centred, masked_mean
from qsmjax.numerics.solvers import soft_threshold

DataTerm = Callable[[Volume], Volume]

DATA_PENALTY = 0.3
"""Penalty of the data split, for data weights about one (measured: 30 to 50 iterations)."""

LARGEST_MEAN = 0.1
"""Largest mean of a field without a constant, over its standard deviation: heads have up to half of that."""

ROBUST_PENALTY = 0.05
"""Penalty of the split for the robust term: its steps are threshold / penalty, so outliers are let go soon."""

PHASE_NOISE = 0.02
"""Noise in radians that is assumed of a field whose echo is not known: a first-echo SNR of 50."""

DESCENTS = 3

SERIES = 8
"""Terms of the sine's series."""


def linear(field: Volume, weights: Volume, penalty: ArrayLike = DATA_PENALTY) -> DataTerm:
    """Pull towards the field as least squares do."""
    pull = weights**2 / (weights**2 + penalty)
    return lambda made: made + pull * (field - made)


def nonlinear(field: Volume, weights: Volume, radians: ArrayLike, penalty: ArrayLike = DATA_PENALTY) -> DataTerm:
    """Pull towards the field as least squares of the complex signal do.

    The voxel's equation d - d_s + c sin d = 0 is descended by quadratics that lie above 1 - cos: their curvature is
    sin(d)/d. Three of them are exact to rounding but for errors of a quarter turn and more.

    References:
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
    """
    stiffness = weights**2 / penalty

    def prox(made: Volume) -> Volume:
        asked = jnp.asarray(radians) * (made - field)
        off = asked / (1 + stiffness)
        for _ in range(DESCENTS):
            off = asked / (1 + stiffness * curvature(off**2))
        return field + off / radians

    return prox


def curvature(squared: Volume) -> Volume:
    """Return sin(d)/d of d², by its series: to 3e-7, and a third of the time of a sine; beyond a quarter turn 1/d.

    The pull of a voxel then neither grows nor turns round: an unwrapped field gains nothing by a wrap, and
    beside a calcification at 7 T, many turns from zero, the map would not find its way.
    """
    value = jnp.zeros_like(squared)
    for power in reversed(range(SERIES)):
        value = (-1) ** power / math.factorial(2 * power + 1) + squared * value
    far = squared > (math.pi / 2) ** 2
    return jnp.where(far, 1 / jnp.sqrt(jnp.where(far, squared, 1)), value)


def robust(field: Volume, weights: Volume, level: Float[Array, ""], penalty: float = ROBUST_PENALTY) -> DataTerm:
    """Pull towards the field as least absolute errors do.

    References:
      Milovic et al., Magn. Reson. Med. 87:457 (2022), doi:10.1002/mrm.28957.
    """
    threshold = jnp.sqrt(jnp.pi / 2) * level * weights / penalty
    return lambda made: jnp.where(weights > 0, field + soft_threshold(made - field, threshold), made)


def up_to_constant(
    term: DataTerm, field: Volume, weights: Volume, penalty: ArrayLike = DATA_PENALTY, *, steps: int = 1
) -> DataTerm:
    """Hold a data term against the field up to a constant: min over c of E(y + c - f), if it `holds_constant`.

    Its proximal map is prox(s + c) - c, c where the pulls of all voxels on it balance. c is found by steps with the
    curvature of the linear term, for which one is exact, and which no other exceeds.
    """
    pull = weights**2 / (weights**2 + penalty)
    whole, free = jnp.maximum(jnp.sum(pull), 1e-30), holds_constant(field, weights)

    def prox(made: Volume) -> Volume:
        constant = jnp.float32(0)
        for _ in range(steps):
            # what is not trusted is not moved
            constant += jnp.sum(term(made + constant) - (made + constant)) / whole
        constant = jnp.where(free, constant, 0)
        return term(made + constant) - constant

    return prox


def linear_up_to_constant(
    field: Volume, weights: Volume, penalty: ArrayLike = DATA_PENALTY, *, free: ArrayLike | None = None
) -> DataTerm:
    """Pull towards the field as least squares do, up to a constant: `up_to_constant` of `linear`, by one product.

    With `free` it is known whether there is a constant.
    """
    pull = weights**2 / (weights**2 + penalty)
    asked, whole = jnp.sum(pull * field), jnp.maximum(jnp.sum(pull), 1e-30)
    free = holds_constant(field, weights) if free is None else free

    def prox(made: Volume) -> Volume:
        constant = (asked - jnp.vdot(pull, made, precision=jax.lax.Precision.HIGHEST)) / whole
        return made + pull * (field - jnp.where(free, constant, 0) - made)

    return prox


def holds_constant(field: Volume, weights: Volume) -> Bool[Array, ""]:
    """Say whether a field's mean is more than the tissue's own field may have: `LARGEST_MEAN` of its deviation."""
    known = weights > 0
    size = jnp.sqrt(masked_mean(centred(field, known) ** 2, known))
    return jnp.abs(masked_mean(field, known)) > LARGEST_MEAN * size


def phase_scale(radians_per_ppm: ArrayLike | None, level: Float[Array, ""]) -> Float[Array, ""]:
    """Return the radians that one ppm makes: the field map's, or such that the noise is `PHASE_NOISE`."""
    if radians_per_ppm is not None:
        return jnp.asarray(radians_per_ppm, jnp.float32)
    return PHASE_NOISE / jnp.maximum(level, 1e-6)
