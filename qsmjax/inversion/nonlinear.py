"""Total variation against the complex signal, or against least absolute errors: data terms that outliers can't bend.

    minimise E(D chi - f) + weight |∇chi|₁    with chi = 0 outside the mask

E is the nonlinear or the robust term of `data_terms`; the solver and the weight are those of `tv`.
"""

import functools

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.inversion import data_terms
from qsmjax.inversion.frame import in_frame
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import minimise_variation, solution
from qsmjax.inversion.weighting import auto_weight, data_weights, noise_level
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.solvers import Report
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

OUTLIER = 3.0
"""Noise deviations beyond which the second step of `hd` trusts a voxel less."""


def nltv(
    field_map: FieldMap,
    *,
    weight: float | None = None,
    max_iterations: int = 100,
    tolerance: float | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation that makes the complex signal within its noise (nonlinear TV, FANSI).

        ½ |W (exp(i r D chi) - exp(i r field))|² / r² + weight |∇chi|₁,    chi = 0 outside the mask

    Args:
      field_map: local field. r is its `radians_per_ppm`; where it is not known, r is such that the noise makes 0.02
        radians, which leaves errors below 25 noise deviations nearly linear.
      weight: of the total variation [ppm mm], as in `tv`; by default the one that the noise asks for.
      max_iterations: limit of the iterations.
      tolerance: relative change of chi at which to stop; None for exactly `max_iterations`, through which
        reverse-mode gradients flow.
      report: called after every iteration with its number and the change of chi.

    References:
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
    """
    return in_frame(
        solve_nltv,
        field_map,
        uses=("noise", "magnitude", "radians_per_ppm"),
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def l1(
    field_map: FieldMap,
    *,
    weight: float | None = None,
    max_iterations: int = 200,
    tolerance: float | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation under least absolute errors of the field (L1-QSM).

        κ |W (D chi - field)|₁ + weight |∇chi|₁,    κ = √(π/2) noise level,    chi = 0 outside the mask

    κ gives both data terms the same curvature in Gaussian noise, so that the weight means what it means in `tv`.

    Args:
      field_map: local field.
      weight: of the total variation [ppm mm], as in `tv`; by default the one that the noise asks for.
      max_iterations: limit of the iterations.
      tolerance: relative change of chi at which to stop; None for exactly `max_iterations`, through which
        reverse-mode gradients flow.
      report: called after every iteration with its number and the change of chi.

    References:
      Milovic et al., Magn. Reson. Med. 87:457 (2022), doi:10.1002/mrm.28957.
    """
    return in_frame(
        solve_l1,
        field_map,
        uses=("noise", "magnitude"),
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def hd(
    field_map: FieldMap,
    *,
    weight: float | None = None,
    robust_iterations: int = 30,
    max_iterations: int = 100,
    tolerance: float | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find outliers by a few iterations of `l1`, then solve `tv` trusting them less (hybrid data fidelity, HD-QSM).

        W₂ = W min(1, 3 noise / |W (D chi₁ - field)|)

    The second step starts from the first's map. The rule for W₂ is the project's own, Huber's weights.

    Args:
      field_map: local field.
      weight: of the total variation [ppm mm], as in `tv`; by default the one that the noise asks for.
      robust_iterations: fixed count of the first step's.
      max_iterations: limit of the second step's.
      tolerance: relative change of chi at which the second step stops; None for exactly `max_iterations`, through
        which reverse-mode gradients flow.
      report: called after every iteration with its number and the change of chi.

    References:
      Lambert et al., Magn. Reson. Med. 88:962 (2022), doi:10.1002/mrm.29218.
    """
    return in_frame(
        solve_hd,
        field_map,
        uses=("noise", "magnitude"),
        weight=weight,
        robust_iterations=robust_iterations,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def solve_nltv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Run `nltv` on arrays, periodically on their grid."""
    field = jnp.where(mask, field, 0)
    level = noise_level(field, mask, geometry, noise)
    radians = data_terms.phase_scale(radians_per_ppm, level)
    term = data_terms.nonlinear(field, data_weights(mask, noise, magnitude), radians)
    weight = auto_weight(level, field, mask, geometry) if weight is None else weight
    solved = minimise_variation(
        term,
        field,
        mask,
        geometry,
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
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
    """Run `l1` on arrays, periodically on their grid."""
    field = jnp.where(mask, field, 0)
    level = noise_level(field, mask, geometry, noise)
    weight = auto_weight(level, field, mask, geometry) if weight is None else weight
    solved = minimise_variation(
        data_terms.robust(field, data_weights(mask, noise, magnitude), level),
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
    """Run `hd` on arrays, periodically on their grid."""
    field = jnp.where(mask, field, 0)
    level = noise_level(field, mask, geometry, noise)
    weights = data_weights(mask, noise, magnitude)
    weight = auto_weight(level, field, mask, geometry) if weight is None else weight
    variation = functools.partial(
        minimise_variation, field=field, mask=mask, geometry=geometry, weight=weight, report=report
    )
    absolute = data_terms.robust(field, weights, level)
    first = variation(
        absolute, data_penalty=data_terms.ROBUST_PENALTY, max_iterations=robust_iterations, tolerance=None
    )
    # the data split holds D chi, up to what the last iteration moved
    error = weights * jnp.abs(absolute(first.state.data) - field)
    trusted = weights * jnp.minimum(1, OUTLIER * level / jnp.maximum(error, 1e-12))
    squared = data_terms.linear(field, trusted)
    second = variation(squared, start=first.state, max_iterations=max_iterations, tolerance=tolerance)
    return solution(second._replace(iterations=second.iterations + robust_iterations), mask, weight, tolerance)
