"""Total variation: the map of fewest edges that makes the field, chi zero outside the mask.

    minimise ½ |W (D chi - f)|² + weight |∇chi|₁    with chi = 0 outside the mask

Three splits, y = D chi, z = ∇chi, v = chi, each with a proximal map of one voxel, and a chi-step that is diagonal in
k-space. ADMM is written in its Douglas-Rachford form, which keeps one volume a split, s, and relaxes at no cost:

    chi ← argmin Σ_i mu_i/2 |K_i chi - (2 prox_i(s_i) - s_i)|²,    s_i ← s_i + relaxation (K_i chi - prox_i(s_i))

An iteration holds two FFT pairs: y and chi forth, chi and D chi back.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion.frame import in_frame
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.weighting import auto_weight, data_weights, masked_mean, noise_level
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import irfft3, rfft3
from qsmjax.numerics.operators import difference, difference_adjoint, laplacian_k
from qsmjax.numerics.solvers import Report, iterate
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

Triple = tuple[Volume, Volume, Volume]

DATA_PENALTY = 0.3
SUPPORT_PENALTY = 0.015
GRADIENT_STEP = 1.0
RELAXATION = 1.6


class _State(NamedTuple):
    chi: Volume
    data: Volume
    gradient: Triple
    support: Volume


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
      Milovic et al., Magn. Reson. Med. 80:814 (2018), doi:10.1002/mrm.27073.
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
    if weight is None:
        weight = auto_weight(noise_level(field, mask, geometry, noise), geometry)
    field = jnp.where(mask, field, 0)
    trust = data_weights(mask, noise, magnitude) ** 2
    pull = trust / (trust + DATA_PENALTY)
    # the size of a step in ∇chi follows the field's, so that a field scaled gives a map scaled
    clip = GRADIENT_STEP * jnp.sqrt(masked_mean(field**2, mask))
    penalty = weight / jnp.maximum(clip, jnp.finfo(jnp.float32).tiny)
    size = geometry.voxel_size

    dipole = dipole_kernel(geometry.shape, size, geometry.b0_dir)
    inverse = 1 / (DATA_PENALTY * dipole**2 + penalty * laplacian_k(geometry.shape, size) + SUPPORT_PENALTY)

    def step(state: _State) -> _State:
        reflected = [s - 2 * jnp.clip(s, -clip, clip) for s in state.gradient]
        image = penalty * sum(difference_adjoint(r, axis) / d for axis, (r, d) in enumerate(zip(reflected, size)))
        image += SUPPORT_PENALTY * jnp.where(mask, state.support, -state.support)
        data = DATA_PENALTY * (state.data + 2 * pull * (field - state.data))
        chi_k = inverse * (dipole * rfft3(data) + rfft3(image))
        chi, made = irfft3(chi_k, field.shape), irfft3(dipole * chi_k, field.shape)
        x, y, z = (
            s + RELAXATION * (difference(chi, axis) / d - s + jnp.clip(s, -clip, clip))
            for axis, (s, d) in enumerate(zip(state.gradient, size))
        )
        return _State(
            chi=chi,
            data=state.data + RELAXATION * (made - state.data - pull * (field - state.data)),
            gradient=(x, y, z),
            support=state.support + RELAXATION * (chi - jnp.where(mask, state.support, 0)),
        )

    nothing = jnp.zeros_like(field)
    start = _State(nothing, nothing, (nothing, nothing, nothing), nothing)
    solved = iterate(step, start, max_iterations=max_iterations, tolerance=tolerance, report=report)
    return Solution(
        chi=jnp.where(mask, solved.state.chi, 0),
        iterations=solved.iterations,
        residual=solved.residual,
        converged=reached(solved.residual, tolerance),
        weight=jnp.asarray(weight, jnp.float32),
    )


def reached(residual: Float[Array, ""], tolerance: ArrayLike | None) -> Array:
    """Tell whether a solver came down to its tolerance; a fixed count of iterations has none to miss."""
    return jnp.asarray(True) if tolerance is None else residual <= tolerance
