"""From the total field to chi in one step: sources outside the mask are an unknown beside the map.

    minimise  E(D (chi + outside) - field) + R(chi) + ridge/2 |outside|²    chi in the mask, `outside` around it

tfi            E the complex signal's,  R the variation off the magnitude's edges
tgv_onestep    E least squares,         R the generalised variation

The field of sources outside is what is harmonic in the mask. ADMM as in `variation` and `tgv`, with the sources a part
of the data's proximal map: for a split s of the field that chi makes, they minimise

    ½ |V (field - s - D outside)|² + ridge/2 |outside|²,    V² = W² penalty / (W² + penalty)

which is the data term with the voxels' own unknown eliminated. Each iteration takes two steps of conjugate gradients
towards it. Both methods start from the sources of `background.joint`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.background.dipoles import fit_sources, outside_kernel
from qsmjax.background.edge import STEEPEST, beside_the_skull, model_variance, steep_voxels
from qsmjax.background.frame import MARGIN
from qsmjax.inversion import data_terms
from qsmjax.inversion.data_terms import DataTerm
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.medi import BALANCE as EDGES_BALANCE
from qsmjax.inversion.medi import edge_weights
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.tgv import generalised_variation_step, with_slopes
from qsmjax.inversion.variation import EVERYWHERE, Edges, gradient_step, solution, start_at, variation_step
from qsmjax.inversion.weighting import BALANCE, auto_weight, data_weights, noise_level
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.solvers import Report, Solved, cg_steps, iterate
from qsmjax.physics.geometry import Geometry

INSIDE = 0.2
"""Standard deviation of chi in the mask that the start goes by [ppm]."""

STRENGTH = 30.0
"""That of the sources outside over it: air lies there."""

SOURCE_STEPS = 2
"""Steps of conjugate gradients towards the sources in each iteration."""

TOTAL = 2.0
"""Automatic weight from a total field over that from a local one: what is not known of the background adds to the noise
(docs/inversions.md)."""

DATA_PENALTY, SUPPORT_PENALTY = 0.15, 0.2
"""Penalty of the data split over the noise's part of the local field, and of the support's over that of the data. Where
they are high, what chi and the sources outside share moves by little in an iteration (docs/background.md)."""

LEAST_PENALTY = 1e-4
"""Where there is no noise, or no field."""


class Begun(NamedTuple):
    """A total field whose sources are roughly known.

    Attributes:
      field: [ppm], zero outside the mask.
      inside: sources in the mask [ppm].
      outside: sources around it [ppm].
      local: the field less that of the sources outside [ppm], where it is trusted.
      level: standard deviation of the noise [ppm].
      trust: data weights; beside the skull they go by the model's error too.
      missed: variance of the model's error [ppm²].
      kernel: of the sources around it.
      penalty: of the data split.
    """

    field: Volume
    inside: Volume
    outside: Volume
    local: Volume
    level: Float[Array, ""]
    trust: Volume
    missed: Volume
    kernel: Kernel
    penalty: Float[Array, ""]


def solve_tfi(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    preconditioner: ArrayLike = STRENGTH,
    edge_percentage: ArrayLike = 90.0,
    steepest: ArrayLike = STEEPEST,
    start_iterations: int = 30,
    max_iterations: int = 200,
    tolerance: ArrayLike | None = 5e-3,
    report: Report | None = None,
) -> Solution:
    """Invert the total field, tissue and background sources together (total field inversion, TFI).

        ½ |W (exp(i r D (chi + outside)) - exp(i r field))|² / r² + weight |M ∇chi|₁ + ridge/2 |outside|²

    chi is zero outside the mask and `outside` in it. M is zero at the magnitude's edges within the mask; the mask's rim
    is none, or sources on its two sides could stand for each other.

    Args:
      preconditioner: strength of the sources outside over those inside.
      edge_percentage: how many differences count as edges, over the voxels of the mask [%].
      steepest: rise of the field from voxel to voxel that is still believed beside the skull [ppm].
      start_iterations: steps of conjugate gradients for the first sources.

    References:
      Liu et al., Magn. Reson. Med. 78:303 (2017), doi:10.1002/mrm.26331.
    """
    begun = begin(field, mask, geometry, noise, magnitude, preconditioner, steepest, start_iterations)
    if weight is None:
        weight = auto_weight(begun.level, begun.local, mask, geometry, TOTAL * EDGES_BALANCE)
    solved, _ = find_with_sources(
        begun,
        mask,
        geometry,
        magnitude,
        radians_per_ppm,
        weight=weight,
        strength=preconditioner,
        edge_percentage=edge_percentage,
        max_iterations=max_iterations,
        tolerance=tolerance,
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
    start_iterations: int = 30,
    max_iterations: int = 300,
    tolerance: ArrayLike | None = 5e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map of least generalised variation that makes the total field but for a harmonic one (one-step TGV).

        ½ |W (D chi + h - field)|² + weight (|∇chi - w|₁ + smoothness |ℰ w|₁),    Δh = 0 in the mask, chi = 0 outside

    That is the published problem with its auxiliary residual ψ = D chi + h - field eliminated: Δψ is what the map's
    and the field's Laplacians differ by. h is the field of sources outside.

    Args:
      smoothness: of the slopes' variation over the map's [mm].
      steepest: rise of the field from voxel to voxel that is still believed beside the skull [ppm].
      start_iterations: steps of conjugate gradients for the first sources.

    References:
      Langkammer et al., NeuroImage 111:622 (2015), doi:10.1016/j.neuroimage.2015.02.041.
    """
    begun = begin(field, mask, geometry, noise, magnitude, STRENGTH, steepest, start_iterations)
    if weight is None:
        weight = auto_weight(begun.level, begun.local, mask, geometry, TOTAL * BALANCE)
    dipole = inversion_kernel(geometry)
    step = generalised_variation_step(
        mask,
        geometry,
        gradient_step(begun.local, mask),
        weight,
        smoothness,
        data_penalty=begun.penalty,
        support_penalty=SUPPORT_PENALTY * begun.penalty,
    )
    solved, _ = iterate_with_sources(
        step,
        lambda local: data_terms.linear(local, begun.trust, begun.penalty),
        with_slopes(start_at(begun.inside, dipole, geometry)),
        begun,
        mask,
        ridge=(begun.level / (INSIDE * STRENGTH)) ** 2,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solution(solved, mask, weight, tolerance)


def find_with_sources(
    begun: Begun,
    mask: Mask,
    geometry: Geometry,
    magnitude: Volume | None,
    radians_per_ppm: ArrayLike | None,
    *,
    weight: ArrayLike,
    strength: ArrayLike,
    edge_percentage: ArrayLike,
    max_iterations: int,
    tolerance: ArrayLike | None,
    report: Report | None,
) -> tuple[Solved, Volume]:
    """Find the map of least variation and the sources outside that make a total field, and the field of the latter."""
    radians, dipole = data_terms.phase_scale(radians_per_ppm, begun.level), inversion_kernel(geometry)
    step = variation_step(
        mask,
        geometry,
        gradient_step(begun.local, mask),
        weight,
        data_penalty=begun.penalty,
        support_penalty=SUPPORT_PENALTY * begun.penalty,
        edges=EVERYWHERE if magnitude is None else edges_within(magnitude, mask, geometry, edge_percentage),
        dipole=dipole,
    )
    return iterate_with_sources(
        step,
        lambda local: data_terms.nonlinear(local, begun.trust, radians, begun.penalty),
        start_at(begun.inside, dipole, geometry),
        begun,
        mask,
        ridge=(begun.level / (INSIDE * strength)) ** 2,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )


def begin(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    noise: Volume | None,
    magnitude: Volume | None,
    strength: ArrayLike,
    steepest: ArrayLike,
    max_iterations: int,
) -> Begun:
    """Find first sources on both sides of the mask's edge, and how far each voxel is to be trusted."""
    field = jnp.where(mask, field, 0)
    # a lesion's own field is steep too: deep in the mask it is data
    trusted = ~beside_the_skull(steep_voxels(field, mask, steepest), mask, geometry)
    missed = model_variance(field, mask, geometry)
    raised = None if noise is None else jnp.where(noise > 0, jnp.sqrt(jnp.where(noise > 0, noise, 1) ** 2 + missed), 0)
    kernel = outside_kernel(field, mask, geometry, raised, trusted)
    sources = fit_sources(
        field,
        mask,
        geometry,
        raised,
        kernel=kernel,
        inside=INSIDE,
        outside=INSIDE * strength,
        trusted=trusted,
        tolerance=None,
        max_iterations=max_iterations,
    )
    outside = jnp.where(mask, 0, sources)
    local = jnp.where(mask & trusted, field - multiply_k(outside, kernel), 0)
    level = noise_level(local, mask, geometry, noise)
    trust = jnp.where(trusted, data_weights(mask, noise, magnitude), 0)
    trust = trust / jnp.sqrt(1 + trust**2 * missed / jnp.maximum(level, 1e-12) ** 2)
    penalty = jnp.maximum(DATA_PENALTY * level / gradient_step(local, mask), LEAST_PENALTY)
    return Begun(field, jnp.where(mask, sources, 0), outside, local, level, trust, missed, kernel, penalty)


def edges_within(magnitude: Volume, mask: Mask, geometry: Geometry, percentage: ArrayLike) -> Edges:
    """Return `medi.edge_weights` between voxels of the mask, and 1 at its rim, which is no free edge here."""
    edges = edge_weights(magnitude, mask, geometry, percentage)
    x, y, z = (
        jnp.where(mask & jnp.roll(mask, -1, axis), jnp.asarray(edge), 1) for axis, edge in zip((-3, -2, -1), edges)
    )
    return x, y, z


def iterate_with_sources(
    step: Callable[[Any, DataTerm], Any],
    data_term: Callable[[Volume], DataTerm],
    start: Any,
    begun: Begun,
    mask: Mask,
    *,
    ridge: ArrayLike,
    max_iterations: int,
    tolerance: ArrayLike | None,
    report: Report | None,
) -> tuple[Solved, Volume]:
    """Repeat an iteration of ADMM, each time on the total field less that of sources that were refined.

    Args:
      step: the iteration, (state, data term) -> state; its state has the map first, and `data`, its split.
      data_term: of a local field.
      start: state.
      begun: the total field, its first sources, and the data weights.
      mask: where chi lives.
      ridge: of the sources.
      max_iterations: limit of the iterations.
      tolerance: relative change of chi at which to stop, or None.
      report: called after every iteration.

    Returns:
      The last state, and the field of the sources outside [ppm].
    """
    kernel = begun.kernel
    precision = begun.trust**2 * begun.penalty / (begun.trust**2 + begun.penalty)

    def gather(missing: Volume) -> Volume:
        return jnp.where(mask, 0, multiply_k(precision * missing, kernel))

    def normal(sources: Volume) -> Volume:
        return gather(multiply_k(sources, kernel)) + ridge * sources

    def both(carry: tuple[Any, Volume, Volume]) -> tuple[Any, Volume, Volume]:
        state, sources, background = carry
        missing = gather(begun.field - state.data - background) - ridge * sources
        sources = sources + cg_steps(normal, missing, max_iterations=SOURCE_STEPS).state
        background = multiply_k(sources, kernel)
        local = jnp.where(mask, begun.field - background, 0)
        return step(state, data_term(local)), sources, background

    first = (start, begun.outside, multiply_k(begun.outside, kernel))
    solved = iterate(both, first, max_iterations=max_iterations, tolerance=tolerance, report=report)
    state, _, background = solved.state
    return solved._replace(state=state), background


tfi = method(solve_tfi, takes="totalfield", margin=MARGIN)
tgv_onestep = method(solve_tgv_onestep, takes="totalfield", margin=MARGIN)
