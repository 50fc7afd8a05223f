"""Methods that stop early, or fill in what is left: no weight to choose but where to stop.

ndi    chi ← chi - step Dᵀ W² sin(r (D chi - f)) / r
rts    the well-conditioned part of k-space by steps of CG, the cone by least total variation
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.inversion import data_terms
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import EVERYWHERE, Triple, gradient_step, pull_gradient, push_gradient, solution
from qsmjax.inversion.weighting import data_weights, masked_quantile, noise_level
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.operators import laplacian_k
from qsmjax.numerics.solvers import Report, cg_steps, iterate
from qsmjax.physics.geometry import Geometry

FILL_STEP = 1.0
"""Step in ∇chi of the second part of `rts`, over the field's size."""


class _Filling(NamedTuple):
    chi: Volume
    gradient: Triple


def solve_ndi(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    step_size: ArrayLike = 2.0,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = None,
    report: Report | None = None,
) -> Solution:
    """Descend the error of the complex signal by gradient steps and stop early (nonlinear dipole inversion, NDI).

        chi ← chi - step_size D W² sin(r (D chi - field)) / r

    r is the field map's `radians_per_ppm`, or such that the noise makes 0.02 radians. The field is unwrapped, so an
    error beyond a quarter of a turn pulls as a quarter does: beside a calcification the published rule would follow the
    wraps. The count of iterations is the only regularisation, so by default it is fixed.

    Args:
      step_size: length of a step; W is scaled to a median of one and cut there, so that below 9/2 the linear steps
        descend.
      max_iterations: count of the steps.
      tolerance: relative change of chi at which to stop before; None for the whole count, through which reverse-mode
        gradients flow.

    References:
      Polak et al., NMR Biomed. 33:e4271 (2020), doi:10.1002/nbm.4271.
    """
    field = jnp.where(mask, field, 0)
    weights = data_weights(mask, noise, magnitude)
    # the half of the mask that is trusted most counts alike: one bright voxel does not slow all others
    trust = jnp.minimum(weights / jnp.maximum(masked_quantile(weights, mask, 0.5), 1e-12), 1) ** 2
    radians = data_terms.phase_scale(radians_per_ppm, noise_level(field, mask, geometry, noise))
    dipole = inversion_kernel(geometry)
    whole, free = jnp.maximum(jnp.sum(trust), 1e-30), data_terms.holds_constant(field, trust)

    def step(chi: Volume) -> Volume:
        error = jnp.clip(radians * (multiply_k(chi, dipole) - field), -jnp.pi / 2, jnp.pi / 2)
        pull = jnp.sin(error) / radians
        constant = jnp.where(free, jnp.sum(trust * pull) / whole, 0)
        return chi - step_size * multiply_k(trust * (pull - constant), dipole)

    solved = iterate(
        lambda state: (step(state[0]),),
        (jnp.zeros_like(field),),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, None, tolerance)


def solve_rts(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    threshold: ArrayLike = 0.15,
    weight: ArrayLike = 1e-3,
    first_iterations: int = 30,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Invert where the dipole is large by CG steps, and fill its cone by least variation (rapid two-step, RTS).

        first    ½ |W (D chi₁ - field)|², `first_iterations` steps of CG
        second   ½ |H (chi - chi₁)|² + weight |∇chi|₁,    H the part of k-space where |D| > threshold

    Args:
      threshold: |D| that parts the well-conditioned frequencies from the cone.
      weight: of the variation in the second step [ppm mm]; the published 1e-5 is its limit of an exact constraint.
      first_iterations: steps of CG; the published 4 are not enough where noise weights make the system stiff.
      max_iterations: limit of the second step's iterations.

    References:
      Kames, Wiggermann & Rauscher, NeuroImage 167:276 (2018), doi:10.1016/j.neuroimage.2017.11.018.
    """
    field = jnp.where(mask, field, 0)
    trust = data_weights(mask, noise, magnitude) ** 2
    size = geometry.voxel_size
    dipole = inversion_kernel(geometry)
    first = cg_steps(
        lambda chi: multiply_k(trust * multiply_k(chi, dipole), dipole),
        multiply_k(trust * field, dipole),
        max_iterations=first_iterations,
    ).state
    known = (jnp.abs(dipole) > threshold).astype(jnp.float32)
    kept_k = known * rfft3(first)
    clip = FILL_STEP * gradient_step(field, mask)
    penalty = jnp.asarray(weight, jnp.float32) / clip
    clips = tuple(clip * edge for edge in EVERYWHERE)
    denominator = known + penalty * laplacian_k(geometry.shape, size)
    # k = 0 is neither known nor seen by the gradient
    inverse = jnp.where(denominator > 0, 1 / jnp.where(denominator > 0, denominator, 1), 0)

    def step(state: _Filling) -> _Filling:
        image = penalty * pull_gradient(state.gradient, clips, size)
        chi = irfft3(inverse * (kept_k + rfft3(image)), field.shape)
        return _Filling(chi, push_gradient(state.gradient, chi, clips, size))

    zero = jnp.zeros_like(field)
    start = _Filling(irfft3(kept_k, field.shape), (zero, zero, zero))
    solved = iterate(step, start, max_iterations=max_iterations, tolerance=tolerance, report=report)
    return solution(solved, mask, weight, tolerance)


ndi, rts = method(solve_ndi), method(solve_rts)
