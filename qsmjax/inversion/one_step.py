"""From the total field to chi in one step: the background is an unknown beside the map, not removed beforehand.

tfi            sources outside the mask, as dipoles:       field = D (chi_in + chi_out)
tgv_onestep    whatever is harmonic in the mask:           field = D chi + h,    Δh = 0 in the mask

Both start from the sources of `background.joint`, which a few steps of conjugate gradients find, and go on with the
variation of the tissue alone.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.background.dipoles import fit_sources
from qsmjax.background.edge import STEEPEST, steep_voxels
from qsmjax.background.frame import MARGIN
from qsmjax.inversion import data_terms
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.medi import BALANCE, edge_weights
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.tgv import minimise_generalised_variation
from qsmjax.inversion.variation import EVERYWHERE, Edges, gradient_step, solution
from qsmjax.inversion.weighting import auto_weight, data_weights, noise_level
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import difference, difference_adjoint
from qsmjax.numerics.solvers import Report, cg_steps, iterate
from qsmjax.physics.geometry import Geometry

INSIDE = 0.2
"""Standard deviation of chi in the mask that the start goes by, and the ridge that is kept [ppm]."""

SMOOTHING = 0.05
"""Rounding of |∇chi| at zero, over the field's size per mm: reweighting divides by it."""

START_TOLERANCE = 1e-3


def solve_tfi(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    preconditioner: ArrayLike = 30.0,
    edge_percentage: ArrayLike = 90.0,
    steepest: ArrayLike = STEEPEST,
    start_iterations: int = 60,
    inner_iterations: int = 60,
    max_iterations: int = 10,
    tolerance: ArrayLike | None = 0.05,
    report: Report | None = None,
) -> Solution:
    """Invert the total field, tissue and background sources together, preconditioned (total field inversion, TFI).

        ½ |W (exp(i r D P y) - exp(i r field))|² / r² + weight |M ∇P y|₁ + ridge/2 |y|²,    chi = P y

    P is 1 in the mask and `preconditioner` outside, where air lies. M is one within the mask but at the magnitude's
    edges. Gauss-Newton steps, |·| by reweighting, each solved by a few steps of conjugate gradients.

    Args:
      preconditioner: strength of the sources outside over those inside.
      edge_percentage: how many differences count as edges, over the voxels of the mask [%].
      steepest: rise of the field from voxel to voxel that is still believed [ppm].
      start_iterations: limit of conjugate gradients for the first sources.
      inner_iterations: steps of conjugate gradients in each Gauss-Newton step.
      max_iterations: limit of the Gauss-Newton steps.
      tolerance: relative change of chi over a Gauss-Newton step at which to stop; None for exactly `max_iterations`.

    References:
      Liu et al., Magn. Reson. Med. 78:303 (2017), doi:10.1002/mrm.26331.
    """
    field = jnp.where(mask, field, 0)
    trusted = ~steep_voxels(field, mask, steepest)
    dipole = inversion_kernel(geometry)
    scale = jnp.where(mask, 1, jnp.asarray(preconditioner, jnp.float32))
    start = _sources(field, mask, geometry, noise, trusted, preconditioner, start_iterations)
    tissue = jnp.where(mask, multiply_k(jnp.where(mask, start, 0), dipole), 0)
    level = noise_level(field - multiply_k(jnp.where(mask, 0, start), dipole), mask, geometry, noise)
    if weight is None:
        weight = auto_weight(level, tissue, mask, geometry, BALANCE)
    strength = jnp.asarray(weight, jnp.float32)
    radians = data_terms.phase_scale(radians_per_ppm, level)
    trust = jnp.where(trusted, data_weights(mask, noise, magnitude), 0) ** 2
    edges: Edges = EVERYWHERE if magnitude is None else edge_weights(magnitude, mask, geometry, edge_percentage)
    both = [mask & jnp.roll(mask, -1, axis) for axis in (-3, -2, -1)]
    counted = [jnp.where(inside, strength * jnp.asarray(edge), 0) for inside, edge in zip(both, edges)]
    rounding, ridge = SMOOTHING * gradient_step(tissue, mask), (level / INSIDE) ** 2
    size = geometry.voxel_size

    def step(state: tuple[Volume]) -> tuple[Volume]:
        (chi,) = state
        pulls = [
            c / jnp.sqrt((difference(chi, axis) / d) ** 2 + rounding**2)
            for axis, (c, d) in enumerate(zip(counted, size))
        ]

        def variation(values: Volume) -> Volume:
            parts = [
                difference_adjoint(p * difference(values, axis), axis) / d**2
                for axis, (p, d) in enumerate(zip(pulls, size))
            ]
            return parts[0] + parts[1] + parts[2]

        def normal(y: Volume) -> Volume:
            data = multiply_k(trust * multiply_k(scale * y, dipole), dipole)
            return scale * (data + variation(scale * y)) + ridge * y

        error = jnp.clip(radians * (field - multiply_k(chi, dipole)), -jnp.pi / 2, jnp.pi / 2)
        missing = multiply_k(trust * jnp.sin(error) / radians, dipole) - variation(chi)
        change = cg_steps(normal, scale * missing - ridge * chi / scale, max_iterations=inner_iterations).state
        return (chi + scale * change,)

    solved = iterate(
        step,
        (start,),
        max_iterations=max_iterations,
        tolerance=tolerance,
        solution=lambda state: jnp.where(mask, state[0], 0),
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


def solve_tgv_onestep(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    weight: ArrayLike | None = None,
    smoothness: ArrayLike = 2.0,
    steepest: ArrayLike = STEEPEST,
    start_iterations: int = 60,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least generalised variation that makes the total field but for a harmonic one (one-step TGV).

        ½ |W (D chi + h - field)|² + weight (|∇chi - w|₁ + smoothness |ℰ w|₁),    Δh = 0 in the mask, chi = 0 outside

    That is the published problem with its auxiliary residual ψ = D chi + h - field eliminated: Δψ is what the map's
    and the field's Laplacians differ by. It begins beside the field of `joint`'s sources outside, which is harmonic.

    Args:
      smoothness: of the slopes' variation over the map's [mm].
      steepest: rise of the field from voxel to voxel that is still believed [ppm].
      start_iterations: limit of conjugate gradients for the first sources.

    References:
      Langkammer et al., NeuroImage 111:622 (2015), doi:10.1016/j.neuroimage.2015.02.041.
    """
    field = jnp.where(mask, field, 0)
    trusted = ~steep_voxels(field, mask, steepest)
    sources = _sources(field, mask, geometry, noise, trusted, 30.0, start_iterations)
    outside = multiply_k(jnp.where(mask, 0, sources), inversion_kernel(geometry))
    local = jnp.where(mask & trusted, field - outside, 0)
    level = noise_level(local, mask, geometry, noise)
    weight = auto_weight(level, local, mask, geometry) if weight is None else weight
    solved = minimise_generalised_variation(
        data_terms.linear(local, jnp.where(trusted, data_weights(mask, noise, magnitude), 0)),
        local,
        mask,
        geometry,
        weight=weight,
        smoothness=smoothness,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
        harmonic=True,
    )
    return solution(solved, mask, weight, tolerance)


def _sources(field, mask, geometry, noise, trusted, ratio, max_iterations) -> Volume:
    return fit_sources(
        field,
        mask,
        geometry,
        noise,
        inside=INSIDE,
        outside=INSIDE * ratio,
        trusted=trusted,
        tolerance=START_TOLERANCE,
        max_iterations=max_iterations,
    )


tfi = method(solve_tfi, takes="totalfield", margin=MARGIN)
tgv_onestep = method(solve_tgv_onestep, takes="totalfield", margin=MARGIN)
