"""Total variation: the map of fewest edges that makes the field, chi zero outside the mask.

minimise ½ |W (D chi - f)|² + weight |∇chi|₁    with chi = 0 outside the mask
"""

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


def tv(
    field_map: FieldMap,
    *,
    weight: float | None = None,
    max_iterations: int = 100,
    tolerance: float | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least total variation that makes the field within its noise (TV).

        ½ |W (D chi - field)|² + weight |∇chi|₁,    chi = 0 outside the mask

    W is the mask, times mean noise over noise where a noise map (or a magnitude) is given. The gradient is per mm, so
    that one weight serves every resolution.

    Args:
      field_map: local field.
      weight: of the total variation [ppm mm]; by default the one that the noise asks for (`weighting.auto_weight`).
      max_iterations: limit of the iterations.
      tolerance: relative change of chi at which to stop; None for exactly `max_iterations`, through which
        reverse-mode gradients flow.
      report: called after every iteration with its number and the change of chi.

    Raises:
      ValueError: if an option is not positive, or the mask is empty.
      FloatingPointError: if the solution is not finite.

    References:
      Bilgic et al., Magn. Reson. Med. 72:1444 (2014), doi:10.1002/mrm.25029.
    """
    return in_frame(
        solve_tv,
        field_map,
        uses=("noise", "magnitude"),
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def solve_tv(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Run `tv` on arrays, periodically on their grid."""
    field = jnp.where(mask, field, 0)
    if weight is None:
        weight = auto_weight(noise_level(field, mask, geometry, noise), field, mask, geometry)
    solved = minimise_variation(
        data_terms.linear(field, data_weights(mask, noise, magnitude)),
        field,
        mask,
        geometry,
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)
