"""The solver of every method that penalises |∇chi|₁: ADMM, each split a proximal map of one voxel.

    minimise E(D chi) + weight |edges · ∇chi|₁    with chi = 0 outside the mask

Splits: y = D chi, z = ∇chi, v = chi. ADMM is written in its Douglas-Rachford form, which keeps one volume a split, s,
and relaxes at no cost:

    chi ← argmin Σ_i mu_i/2 |K_i chi - (2 prox_i(s_i) - s_i)|²,    s_i ← s_i + relaxation (K_i chi - prox_i(s_i))

The chi-step is diagonal in k-space. An iteration holds two FFT pairs: y and chi forth, chi and D chi back.

References:
  Eckstein & Bertsekas, Math. Program. 55:293 (1992), doi:10.1007/BF01581204.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion.data_terms import DATA_PENALTY, DataTerm
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.solution import Solution
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.operators import centred, difference, difference_adjoint, laplacian_k, masked_mean, root
from qsmjax.numerics.solvers import Report, Solved, iterate
from qsmjax.physics.geometry import Geometry

Triple = tuple[Volume, Volume, Volume]
Edges = tuple[Volume, Volume, Volume] | tuple[float, float, float]

SUPPORT_PENALTY = 0.015
"""Penalty of the support split (measured: 0.1 doubles the iterations, 0.003 does so for small maps)."""

RELAXATION = 1.6
"""Over-relaxation of every split, between 0 and 2."""

EVERYWHERE = (1.0, 1.0, 1.0)


class Splits(NamedTuple):
    """The map, and what each split keeps between iterations."""

    chi: Volume
    data: Volume
    gradient: Triple
    support: Volume


def nothing(field: Volume) -> Splits:
    """Start from a map of zeros."""
    zero = jnp.zeros_like(field)
    return Splits(zero, zero, (zero, zero, zero), zero)


def gradient_step(field: Volume, mask: Mask) -> Float[Array, ""]:
    """Choose the step in ∇chi [ppm/mm]: the standard deviation of the field."""
    return jnp.maximum(root(masked_mean(centred(field, mask) ** 2, mask)), 1e-12)


def start_at(chi: Volume, dipole: Kernel, geometry: Geometry) -> Splits:
    """Start from a map, each split at what it makes."""
    x, y, z = (difference(chi, axis) / d for axis, d in enumerate(geometry.voxel_size))
    return Splits(chi, multiply_k(chi, dipole), (x, y, z), chi)


def minimise_variation(
    data_term: DataTerm,
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    weight: ArrayLike,
    max_iterations: int,
    tolerance: ArrayLike | None,
    report: Report | None = None,
    data_penalty: ArrayLike = DATA_PENALTY,
    edges: Edges = EVERYWHERE,
    dipole: Kernel | None = None,
    start: Splits | None = None,
) -> Solved:
    """Minimise data term plus total variation over maps that are zero outside the mask.

    Args:
      data_term: proximal map of E at `data_penalty`.
      field: local field [ppm], whose size sets the step in ∇chi: a field scaled gives a map scaled.
      mask: where chi may differ from zero.
      geometry: voxel size and B0 direction; the gradient is per mm.
      weight: of the total variation [ppm mm].
      max_iterations: limit of the iterations.
      tolerance: relative change of chi at which to stop, or None.
      report: called after every iteration.
      data_penalty: of the data split.
      edges: weights of the three differences; 0 where an edge is free.
      dipole: chi to field in k-space, where it is not the plain dipole.
      start: the splits of an earlier call; by default a map of zeros.

    Returns:
      The splits, the iterations, and the last relative change.
    """
    clip = gradient_step(field, mask)
    step = variation_step(mask, geometry, clip, weight, data_penalty=data_penalty, edges=edges, dipole=dipole)
    return iterate(
        lambda state: step(state, data_term),
        nothing(field) if start is None else start,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def variation_step(
    mask: Mask,
    geometry: Geometry,
    clip: Float[Array, ""],
    weight: ArrayLike,
    *,
    data_penalty: ArrayLike = DATA_PENALTY,
    support_penalty: ArrayLike = SUPPORT_PENALTY,
    edges: Edges = EVERYWHERE,
    dipole: Kernel | None = None,
) -> Callable[[Splits, DataTerm], Splits]:
    """Return one iteration, (splits, data term) -> splits; `clip` is the step in ∇chi."""
    shape, size = geometry.shape, geometry.voxel_size
    if dipole is None:
        dipole = inversion_kernel(geometry)
    penalty, data_penalty = jnp.asarray(weight, jnp.float32) / clip, jnp.asarray(data_penalty, jnp.float32)
    clips = tuple(clip * edge for edge in edges)
    inverse = 1 / (data_penalty * dipole**2 + penalty * laplacian_k(shape, size) + support_penalty)

    def step(state: Splits, data_term: DataTerm) -> Splits:
        made = data_term(state.data)
        image = penalty * pull_gradient(state.gradient, clips, size)
        image += support_penalty * jnp.where(mask, state.support, -state.support)
        chi_k = inverse * (dipole * rfft3(data_penalty * (2 * made - state.data)) + rfft3(image))
        chi, makes = irfft3(chi_k, shape), irfft3(dipole * chi_k, shape)
        return Splits(
            chi=chi,
            data=state.data + RELAXATION * (makes - made),
            gradient=push_gradient(state.gradient, chi, clips, size),
            support=state.support + RELAXATION * (chi - jnp.where(mask, state.support, 0)),
        )

    return step


def pull_gradient(splits: Triple, clips: tuple, size: Float[Array, "3"]) -> Volume:
    """Return the right-hand side that the gradient splits give: ∇ᵀ (2 shrink(s) - s)."""
    parts = [
        difference_adjoint(s - 2 * jnp.clip(s, -c, c), axis) / d
        for axis, (s, c, d) in enumerate(zip(splits, clips, size))
    ]
    return parts[0] + parts[1] + parts[2]


def push_gradient(splits: Triple, chi: Volume, clips: tuple, size: Float[Array, "3"]) -> Triple:
    """Move the gradient splits towards the gradient of the new map."""
    x, y, z = (
        s + RELAXATION * (difference(chi, axis) / d - s + jnp.clip(s, -c, c))
        for axis, (s, c, d) in enumerate(zip(splits, clips, size))
    )
    return x, y, z


def solution(solved: Solved, mask: Mask, weight: ArrayLike | None, tolerance: ArrayLike | None) -> Solution:
    """Read the solution off a solver's result; the first array of its state is chi."""
    return Solution(
        chi=jnp.where(mask, solved.state[0], 0),
        iterations=solved.iterations,
        residual=solved.residual,
        # a fixed count of iterations has no tolerance to miss
        converged=jnp.asarray(True) if tolerance is None else solved.residual <= tolerance,
        weight=None if weight is None else jnp.asarray(weight, jnp.float32),
    )
