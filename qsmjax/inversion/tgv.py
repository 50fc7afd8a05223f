"""Total generalised variation: maps that are piecewise linear, not piecewise constant.

    minimise E(D chi - f) + weight (|∇chi - w|₁ + smoothness |ℰ w|₁)    with chi = 0 outside the mask

w is a field of slopes that cost nothing by themselves, only by their change: ℰ w = ½ (∇w + (∇w)ᵀ). ADMM as in
`variation`, with chi and w solved for together at each frequency: with g the symbol of ∇ and G = |g|²,

    (mu D² + s + a G b G / (a + b G)) X = rhs + a gᴴ rhs_w / (a + b G)

for the penalties mu of the data, s of the support, a of ∇chi - w and b of ℰ w, since ℰᴴℰ = ½ (G + g gᴴ) keeps to the
direction of g. An iteration holds five FFT pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from qsmjax.inversion import data_terms
from qsmjax.inversion.data_terms import DATA_PENALTY, DataTerm
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.measured import measured
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import RELAXATION, SUPPORT_PENALTY, Splits, Triple, gradient_step, nothing, solution
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import frequencies, irfft3, rfft3
from qsmjax.numerics.operators import difference, difference_adjoint
from qsmjax.numerics.solvers import Report, Solved, iterate
from qsmjax.physics.geometry import Geometry

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Components of a symmetric tensor, each stored once."""


class State(NamedTuple):
    """The map, and what each split keeps between iterations."""

    chi: Volume
    data: Volume
    support: Volume
    slope: Triple
    curve: tuple[Volume, ...]


def solve_tgv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    smoothness: ArrayLike = 2.0,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total generalised variation that makes the field within its noise (TGV).

        ½ |W (D chi - field)|² + weight (|∇chi - w|₁ + smoothness |ℰ w|₁),    chi = 0 outside the mask

    Args:
      smoothness: of the slopes' variation over the map's [mm].

    References:
      Bredies, Kunisch & Pock, SIAM J. Imaging Sci. 3:492 (2010), doi:10.1137/090769521.
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
    """
    field, trust, _, weight = measured(field, mask, geometry, noise, magnitude, weight)
    solved = minimise_generalised_variation(
        data_terms.linear_up_to_constant(field, trust),
        field,
        mask,
        geometry,
        weight=weight,
        smoothness=smoothness,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


def solve_nltgv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    smoothness: ArrayLike = 2.0,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total generalised variation that makes the complex signal (nonlinear TGV, FANSI).

        ½ |W (exp(i r D chi) - exp(i r field))|² / r² + weight (|∇chi - w|₁ + smoothness |ℰ w|₁),    chi = 0 outside

    r is the field map's `radians_per_ppm`, or such that the noise makes 0.02 radians.

    Args:
      smoothness: of the slopes' variation over the map's [mm].

    References:
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
    """
    field, trust, level, weight = measured(field, mask, geometry, noise, magnitude, weight)
    term = data_terms.nonlinear(field, trust, data_terms.phase_scale(radians_per_ppm, level))
    solved = minimise_generalised_variation(
        data_terms.up_to_constant(term, field, trust),
        field,
        mask,
        geometry,
        weight=weight,
        smoothness=smoothness,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


tgv, nltgv = method(solve_tgv), method(solve_nltgv)


def minimise_generalised_variation(
    data_term: DataTerm,
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    weight: ArrayLike,
    smoothness: ArrayLike,
    max_iterations: int,
    tolerance: ArrayLike | None,
    report: Report | None = None,
) -> Solved:
    """Minimise data term plus total generalised variation over maps that are zero outside the mask.

    The arguments are those of `variation.minimise_variation`.
    """
    step = generalised_variation_step(mask, geometry, gradient_step(field, mask), weight, smoothness)
    return iterate(
        lambda state: step(state, data_term),
        with_slopes(nothing(field)),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def with_slopes(splits: Splits) -> State:
    """Start from a map without slopes of its own."""
    return State(splits.chi, splits.data, splits.support, splits.gradient, (jnp.zeros_like(splits.chi),) * len(PAIRS))


def generalised_variation_step(
    mask: Mask,
    geometry: Geometry,
    clip: Float[Array, ""],
    weight: ArrayLike,
    smoothness: ArrayLike,
    *,
    data_penalty: ArrayLike = DATA_PENALTY,
    support_penalty: ArrayLike = SUPPORT_PENALTY,
) -> Callable[[State, DataTerm], State]:
    """Return one iteration, (state, data term) -> state; `clip` is the step in ∇chi."""
    shape, size = geometry.shape, geometry.voxel_size
    slope_penalty, data_penalty = jnp.asarray(weight, jnp.float32) / clip, jnp.asarray(data_penalty, jnp.float32)
    curve_penalty = slope_penalty * smoothness
    dipole = inversion_kernel(geometry)
    symbols = gradient_symbols(geometry)
    squared = sum((jnp.abs(g) ** 2 for g in symbols), jnp.float32(0))
    both = slope_penalty + curve_penalty * squared
    system = data_penalty * dipole**2 + support_penalty + slope_penalty * curve_penalty * squared**2 / both
    across = slope_penalty + curve_penalty * squared / 2

    def step(state: State, data_term: DataTerm) -> State:
        made = data_term(state.data)
        slopes = [s - 2 * jnp.clip(s, -clip, clip) for s in state.slope]
        curves = {pair: s - 2 * jnp.clip(s, -clip, clip) for pair, s in zip(PAIRS, state.curve)}
        image = slope_penalty * sum(difference_adjoint(s, i) / size[i] for i, s in enumerate(slopes))
        image += support_penalty * jnp.where(mask, state.support, -state.support)
        w_k = [rfft3(curve_penalty * _symmetric_adjoint(curves, j, size) - slope_penalty * slopes[j]) for j in range(3)]
        along = sum(jnp.conj(g) * w for g, w in zip(symbols, w_k))
        chi_k = dipole * rfft3(data_penalty * (2 * made - state.data)) + rfft3(image) + slope_penalty * along / both
        chi_k = chi_k / system
        share = slope_penalty * chi_k - curve_penalty / 2 * (along + slope_penalty * squared * chi_k) / both
        chi, makes = irfft3(chi_k, shape), irfft3(dipole * chi_k, shape)
        w = [irfft3((part + g * share) / across, shape) for part, g in zip(w_k, symbols)]
        x, y, z = (
            s + RELAXATION * (difference(chi, i) / size[i] - w[i] - s + jnp.clip(s, -clip, clip))
            for i, s in enumerate(state.slope)
        )
        bent = [(difference(w[j], i) / size[i] + difference(w[i], j) / size[j]) / 2 for i, j in PAIRS]
        return State(
            chi=chi,
            data=state.data + RELAXATION * (makes - made),
            support=state.support + RELAXATION * (chi - jnp.where(mask, state.support, 0)),
            slope=(x, y, z),
            curve=tuple(s + RELAXATION * (b - s + jnp.clip(s, -clip, clip)) for s, b in zip(state.curve, bent)),
        )

    return step


def gradient_symbols(geometry: Geometry) -> list[Complex[Array, "_ _ _"]]:
    """Return the symbols of the forward differences along x, y, z [1/mm], ready to broadcast."""
    k = frequencies(geometry.shape, geometry.voxel_size)
    return [(jnp.exp(2j * jnp.pi * a * d) - 1) / d for a, d in zip(k, geometry.voxel_size)]


def _symmetric_adjoint(curves: dict[tuple[int, int], Volume], j: int, size: Float[Array, "3"]) -> Volume:
    parts = [difference_adjoint(curves[min(i, j), max(i, j)], i) / size[i] for i in range(3)]
    return parts[0] + parts[1] + parts[2]
