"""Total variation with a second unknown: a harmonic field, what the background removal has left.

    minimise ½ |W (D chi + h - f)|² + weight |∇chi|₁ + harmonic_weight/2 |M Δh|²    with chi = 0 outside the mask

M is the mask: inside it a background field has no sources, so that its Laplacian is small. The splits are those of
`variation`, and one more for Δh; chi and h are solved for together, a 2x2 system at each frequency. An iteration
holds three FFT pairs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion import data_terms
from qsmjax.inversion.data_terms import DataTerm
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.measured import measured
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import (
    EVERYWHERE,
    RELAXATION,
    SUPPORT_PENALTY,
    Splits,
    gradient_step,
    nothing,
    pull_gradient,
    push_gradient,
    solution,
)
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import irfft3, rfft3
from qsmjax.numerics.operators import laplacian_k
from qsmjax.numerics.solvers import Report, iterate
from qsmjax.physics.geometry import Geometry

HARMONIC_PENALTY = 300.0
"""Penalty of the Laplacian's split [mm⁴] (measured: 3 leaves 28 % NRMSE after 100 iterations where 300 leaves 24 %)."""


class State(NamedTuple):
    """The map, its splits, and that of the harmonic field's Laplacian."""

    chi: Volume
    splits: Splits
    laplacian: Volume


def solve_wh(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    harmonic_weight: ArrayLike = 1e4,
    max_iterations: int = 200,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation, and a harmonic field beside it, that make the field (weak harmonics).

        ½ |W (D chi + h - field)|² + weight |∇chi|₁ + harmonic_weight/2 |M Δh|²,    chi = 0 outside the mask M

    Args:
      field_map: local field, which may hold what is left of the background.
      harmonic_weight: of the harmonic field's Laplacian in the mask [mm⁴]; at the published 150 the second unknown
        takes a part of the tissue's own field.

    References:
      Milovic et al., Magn. Reson. Med. 81:1399 (2019), doi:10.1002/mrm.27483.
    """
    field, trust, _, weight = measured(field, mask, geometry, noise, magnitude, weight)
    step = harmonic_step(mask, geometry, gradient_step(field, mask), weight, harmonic_weight)
    data_term, start = data_terms.linear(field, trust), nothing(field)
    solved = iterate(
        lambda state: step(state, data_term),
        State(start.chi, start, start.chi),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


def harmonic_step(
    mask: Mask, geometry: Geometry, clip: Float[Array, ""], weight: ArrayLike, harmonic_weight: ArrayLike
) -> Callable[[State, DataTerm], State]:
    """Return one iteration, (state, data term) -> state; `clip` is the step in ∇chi."""
    shape, size = geometry.shape, geometry.voxel_size
    penalty = jnp.asarray(weight, jnp.float32) / clip
    clips = tuple(clip * edge for edge in EVERYWHERE)
    # the proximal map of the Laplacian's split: shrink in the mask, keep outside
    keep = jnp.where(mask, HARMONIC_PENALTY / (HARMONIC_PENALTY + jnp.asarray(harmonic_weight)), 1)

    dipole = inversion_kernel(geometry)
    laplacian = laplacian_k(shape, size)
    prior = penalty * laplacian + SUPPORT_PENALTY
    harmonic = HARMONIC_PENALTY * laplacian**2
    mu = data_terms.DATA_PENALTY
    # of the two unknowns chi and h at a frequency
    determinant = mu * prior + harmonic * (mu * dipole**2 + prior)

    def step(state: State, data_term: DataTerm) -> State:
        splits = state.splits
        made, flat = data_term(splits.data), keep * state.laplacian
        image = penalty * pull_gradient(splits.gradient, clips, size)
        image += SUPPORT_PENALTY * jnp.where(mask, splits.support, -splits.support)
        data_k = rfft3(mu * (2 * made - splits.data))
        chi_k = dipole * data_k + rfft3(image)
        rest_k = data_k + HARMONIC_PENALTY * laplacian * rfft3(2 * flat - state.laplacian)
        chi_k, rest_k = (
            ((mu + harmonic) * chi_k - mu * dipole * rest_k) / determinant,
            ((mu * dipole**2 + prior) * rest_k - mu * dipole * chi_k) / determinant,
        )
        chi, makes, curved = (irfft3(a, shape) for a in (chi_k, dipole * chi_k + rest_k, laplacian * rest_k))
        moved = Splits(
            chi=chi,
            data=splits.data + RELAXATION * (makes - made),
            gradient=push_gradient(splits.gradient, chi, clips, size),
            support=splits.support + RELAXATION * (chi - jnp.where(mask, splits.support, 0)),
        )
        return State(chi, moved, state.laplacian + RELAXATION * (curved - flat))

    return step


wh = method(solve_wh)
