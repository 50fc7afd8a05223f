"""Least squares, and the streaks that it leaves taken off: what lies in the cone and has no edge behind it (iLSQR).

    chi₀      ½ |W (D chi₀ - f)|², chi₀ zero outside the mask, by a few steps of CG, which are LSQR's
    streaks   Σ_i |E_i ∂_i (chi₀ - S s)|² over s, S the part of k-space where |D| < threshold
    chi       chi₀ - S s

E is zero where a fast estimate of the map has an edge and chi₀ may vary, one where it is flat and outside the mask. The
paper leaves chi₀ and the streaks free outside, and lets W fall with the field's Laplacian: on a head the first costs a
third more error, and the second takes veins and lesions for noise and doubles it.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import solution
from qsmjax.inversion.weighting import data_weights, masked_quantile
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import ball_transform, difference, difference_adjoint
from qsmjax.numerics.solvers import Report, cg_steps
from qsmjax.physics.geometry import Geometry

EDGE_QUANTILES = (0.5, 0.7)
"""Quantiles of the estimate's differences between which a place goes from flat to edge."""

KNOWN_DIPOLE = (0.0058, 0.17)
"""|D| from which a frequency counts, and from which it counts fully: its 1st and 30th percentile over directions."""

BLUR = 3.0
"""Radius over which the spectrum of the fast estimate is averaged in the cone [frequency steps]."""


def solve_ilsqr(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    threshold: ArrayLike = 0.1,
    first_iterations: int = 50,
    max_iterations: int = 50,
    tolerance: ArrayLike | None = 1e-2,
    report: Report | None = None,
) -> Solution:
    """Solve by least squares, and subtract the streaks in the cone that no edge of the map explains (iLSQR).

        min_s Σ_i |E_i ∂_i (chi₀ - S s)|²,    chi = chi₀ - S s,    S the part of k-space where |D| < threshold

    Args:
      threshold: |D| below which a frequency may hold streaks.
      first_iterations: steps of CG for chi₀, which regularise by their count.

    References:
      Li et al., NeuroImage 108:111 (2015), doi:10.1016/j.neuroimage.2014.12.043.
    """
    field = jnp.where(mask, field, 0)
    size, dipole = geometry.voxel_size, inversion_kernel(geometry)
    trust = data_weights(mask, noise, magnitude) ** 2

    def seen(values: Volume) -> Volume:
        return jnp.where(mask, multiply_k(trust * values, dipole), 0)

    first = cg_steps(lambda chi: seen(multiply_k(chi, dipole)), seen(field), max_iterations=first_iterations).state
    slopes = [jnp.abs(difference(fast_estimate(field, mask, dipole), axis)) / size[axis] for axis in range(3)]
    flat = [jnp.where(mask, _falling(slope, mask), 1) ** 2 for slope in slopes]
    cone = (jnp.abs(dipole) < threshold).astype(jnp.float32)

    def roughness(chi: Volume) -> Volume:
        parts = [difference_adjoint(f * difference(chi, i), i) / size[i] ** 2 for i, f in enumerate(flat)]
        return multiply_k(parts[0] + parts[1] + parts[2], cone)

    streaks = cg_steps(
        lambda s: roughness(multiply_k(s, cone)),
        roughness(first),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    chi = first - multiply_k(streaks.state, cone)
    count = streaks.iterations + first_iterations
    return solution(streaks._replace(state=(chi,), iterations=count), mask, None, tolerance)


ilsqr = method(solve_ilsqr)


def fast_estimate(field: Volume, mask: Mask, dipole: Kernel) -> Volume:
    """Estimate the map, up to its scale, by the sign of the dipole, its cone filled with the spectrum's local mean.

    Averaging a spectrum over a ball is a window on the image, about the middle of the mask.
    """
    chi = jnp.where(mask, multiply_k(field, jnp.where(dipole < 0, -1.0, 1.0)), 0)
    low, high = (jnp.log(d) for d in KNOWN_DIPOLE)
    known = jnp.clip((jnp.log(jnp.maximum(jnp.abs(dipole), 1e-6)) - low) / (high - low), 0, 1)
    return jnp.where(mask, multiply_k(chi, known) + multiply_k(chi * _window(mask), 1 - known), 0)


def _window(mask: Mask) -> Volume:
    """Return the transform of a ball of `BLUR` frequency steps, about the mask's middle."""
    squared = jnp.float32(0)
    for axis, n in enumerate(mask.shape[-3:]):
        at = jnp.arange(n, dtype=jnp.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        middle = jnp.sum(jnp.where(mask, at, 0)) / jnp.maximum(jnp.sum(mask), 1)
        squared += (2 * jnp.pi * BLUR * (at - middle) / n) ** 2
    return ball_transform(squared)


def _falling(values: Volume, mask: Mask) -> Volume:
    """Fall from 1 to 0 between the two `EDGE_QUANTILES` of the values in the mask."""
    low, high = (_order_statistic(values, mask, quantile) for quantile in EDGE_QUANTILES)
    return jnp.clip((high - values) / jnp.maximum(high - low, 1e-12), 0, 1)


def _order_statistic(values: Volume, mask: Mask, quantile: float) -> Float[Array, ""]:
    """Return the value in the mask that is nearest to a quantile: unlike the quantile, it has a gradient."""
    near = jnp.where(mask, jnp.abs(values - masked_quantile(values, mask, quantile)), jnp.inf)
    return values.ravel()[jax.lax.stop_gradient(jnp.argmin(near))]
