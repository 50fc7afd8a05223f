"""Total variation against the complex signal, or against least absolute errors: data terms that outliers can't bend.

    minimise E(D chi - f) + weight |∇chi|₁    with chi = 0 outside the mask

E is the nonlinear or the robust term of `data_terms`; the solver and the weight are those of `tv`.
"""

import functools

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion import data_terms
from qsmjax.inversion.measured import measured
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import minimise_variation, solution
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.operators import masked_mean
from qsmjax.numerics.solvers import Report
from qsmjax.physics.geometry import Geometry

OUTLIER = 3.0
"""Noise deviations beyond which the second step of `hd` trusts a voxel less."""


def solve_nltv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    toolbox_alpha: ArrayLike | None = None,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation that makes the complex signal within its noise (nonlinear TV, FANSI).

        ½ |W (exp(i r D chi) - exp(i r field))|² / r² + weight |∇chi|₁,    chi = 0 outside the mask

    r is the field map's `radians_per_ppm`; where it is not known, such that the noise makes 0.02 radians, which leaves
    errors below 25 noise deviations nearly linear. The toolbox (FANSI) works in radians and in differences from voxel
    to voxel, so that weight = alpha · voxel edge / r. The consensus preset is `toolbox_alpha=5e-4, max_iterations=400`.

    Args:
      toolbox_alpha: the FANSI toolbox's alpha1, instead of a weight; needs `radians_per_ppm`.

    References:
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
      Bilgic et al., Magn. Reson. Med. 91:1834 (2024), doi:10.1002/mrm.30006 (consensus).
    """
    if weight is not None and toolbox_alpha is not None:
        raise ValueError(
            f"weight and toolbox_alpha must not both be given, got {weight} and {toolbox_alpha}: set one to none"
        )
    if toolbox_alpha is not None and radians_per_ppm is None:
        raise ValueError("toolbox_alpha needs radians_per_ppm, got none: give B0 and TE (--b0, --te), or use weight")
    field, trust, level, weight = measured(field, mask, geometry, noise, magnitude, weight)
    radians = data_terms.phase_scale(radians_per_ppm, level)
    if toolbox_alpha is not None:
        edge = jnp.prod(geometry.voxel_size) ** (1 / 3)
        weight = jnp.asarray(toolbox_alpha) * edge / radians
    term = data_terms.up_to_constant(data_terms.nonlinear(field, trust, radians), field, trust)
    solved = minimise_variation(
        term, field, mask, geometry, weight=weight, max_iterations=max_iterations, tolerance=tolerance, report=report
    )
    return solution(solved, mask, weight, tolerance)


def solve_l1(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    max_iterations: int = 200,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation under least absolute errors of the field (L1-QSM).

        κ |W (D chi - field)|₁ + weight |∇chi|₁,    κ = √(π/2) noise level,    chi = 0 outside the mask

    κ gives both data terms the same curvature in Gaussian noise, so that the weight means what it means in `tv`.

    References:
      Milovic et al., Magn. Reson. Med. 87:457 (2022), doi:10.1002/mrm.28957.
    """
    field, trust, level, weight = measured(field, mask, geometry, noise, magnitude, weight)
    solved = minimise_variation(
        _robust(field, trust, level),
        field,
        mask,
        geometry,
        weight=weight,
        data_penalty=data_terms.ROBUST_PENALTY,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


def solve_hd(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    robust_iterations: int = 30,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find outliers by a few iterations of `l1`, then solve `tv` trusting them less (hybrid data fidelity, HD-QSM).

        W₂ = W min(1, 3 noise / |W (D chi₁ - field)|)

    The second step starts from the first's map. The rule for W₂ is the project's own, Huber's weights.

    Args:
      robust_iterations: fixed count of the first step's.
      max_iterations: limit of the second step's.

    References:
      Lambert et al., Magn. Reson. Med. 88:962 (2022), doi:10.1002/mrm.29218.
    """
    field, trust, level, weight = measured(field, mask, geometry, noise, magnitude, weight)
    variation = functools.partial(
        minimise_variation, field=field, mask=mask, geometry=geometry, weight=weight, report=report
    )
    absolute = _robust(field, trust, level)
    first = variation(
        absolute, data_penalty=data_terms.ROBUST_PENALTY, max_iterations=robust_iterations, tolerance=None
    )
    # the data split holds D chi, up to what the last iteration moved
    rest = field - absolute(first.state.data)
    constant = jnp.where(data_terms.holds_constant(field, trust), masked_mean(rest, mask), 0)
    error = trust * jnp.abs(rest - constant)
    trust = trust * jnp.minimum(1, OUTLIER * level / jnp.maximum(error, 1e-12))
    squared = data_terms.linear_up_to_constant(field, trust)
    second = variation(squared, start=first.state, max_iterations=max_iterations, tolerance=tolerance)
    return solution(second._replace(iterations=second.iterations + robust_iterations), mask, weight, tolerance)


def _robust(field: Volume, trust: Volume, level: Float[Array, ""]) -> data_terms.DataTerm:
    term = data_terms.robust(field, trust, level)
    return data_terms.up_to_constant(term, field, trust, data_terms.ROBUST_PENALTY, steps=4)


nltv, l1, hd = method(solve_nltv), method(solve_l1), method(solve_hd)
