"""Total variation: the map of fewest edges that makes the field, chi zero outside the mask.

minimise ½ |W (D chi - f)|² + weight |∇chi|₁    with chi = 0 outside the mask
"""

from jax.typing import ArrayLike

from qsmjax.inversion import data_terms
from qsmjax.inversion.measured import measured
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import minimise_variation, solution
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.solvers import Report
from qsmjax.physics.geometry import Geometry


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
    """Find the map of least total variation that makes the field within its noise (TV).

        ½ |W (D chi - field)|² + weight |∇chi|₁,    chi = 0 outside the mask

    W is the mask, times mean noise over noise where a noise map (or a magnitude) is given. The gradient is per mm, so
    that one weight serves every resolution.

    References:
      Bilgic et al., Magn. Reson. Med. 72:1444 (2014), doi:10.1002/mrm.25029.
    """
    field, trust, _, weight = measured(field, mask, geometry, noise, magnitude, weight)
    term = data_terms.linear_up_to_constant(field, trust)
    solved = minimise_variation(
        term, field, mask, geometry, weight=weight, max_iterations=max_iterations, tolerance=tolerance, report=report
    )
    return solution(solved, mask, weight, tolerance)


tv = method(solve_tv)
