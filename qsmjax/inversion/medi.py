"""Morphology enabled dipole inversion: total variation that the edges of the magnitude are free of.

    minimise ½ |W (exp(i r D chi) - exp(i r f))|² / r² + weight |M ∇chi|₁    with chi = 0 outside the mask

M is zero where the magnitude has an edge, one elsewhere. The cost is the toolbox's; the solver is the project's ADMM,
which needs no smoothing of the absolute value and no inner iterations. The toolbox works in radians and writes
lambda |W(...)|² + |M ∇(r chi)|₁, so that

    weight = 1 / (2 lambda r)
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.inversion import data_terms
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.variation import EVERYWHERE, Edges, Splits, minimise_variation, solution
from qsmjax.inversion.weighting import auto_weight, data_weights, masked_quantile, noise_level
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import difference, masked_mean, sphere_mean_k
from qsmjax.numerics.solvers import Report, Solved
from qsmjax.physics.geometry import Geometry

BALANCE = 1.5
"""Automatic weight over `tv`'s law: with edges free, the rest wants more (docs/inversions.md)."""

FLAT = 1e-5
"""Slope of the magnitude, over its largest value, that is no edge [1/mm]."""
OUTLIER = 6.0
"""Deviations of the residual beyond which MERIT takes a voxel's noise up."""

MERIT_ROUNDS = 3


def solve_medi(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    radians_per_ppm: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    toolbox_lambda: ArrayLike | None = None,
    edge_percentage: ArrayLike = 90.0,
    smv_radius: ArrayLike | None = None,
    merit: bool = False,
    max_iterations: int = 100,
    tolerance: ArrayLike | None = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Find the map whose edges are the magnitude's and that makes the complex signal within its noise (MEDI).

        ½ |W (exp(i r D chi) - exp(i r field))|² / r² + weight |M ∇chi|₁,    chi = 0 outside the mask

    Without a magnitude no edge is free. r is the field map's `radians_per_ppm`, or such that the noise makes 0.02
    radians. The consensus preset is `toolbox_lambda=2000, edge_percentage=90, smv_radius=5, merit=True`.

    Args:
      toolbox_lambda: the MEDI toolbox's lambda, instead of a weight; needs `radians_per_ppm`.
      edge_percentage: how many differences count as edges, over the voxels of the mask [%], as in the toolbox.
      smv_radius: of the sphere whose mean is taken off the field and its model [mm]; None for no such filter.
      merit: whether voxels that the model can't explain within 6 deviations are trusted less, in three rounds.
      max_iterations: limit of the iterations, of each round.

    References:
      Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082.
      Liu et al., Magn. Reson. Med. 69:467 (2013), doi:10.1002/mrm.24272 (complex signal, MERIT).
      Bilgic et al., Magn. Reson. Med. 91:1834 (2024), doi:10.1002/mrm.30006 (consensus).
    """
    if weight is not None and toolbox_lambda is not None:
        raise ValueError(f"weight and toolbox_lambda must not both be given, got {weight} and {toolbox_lambda}")
    if toolbox_lambda is not None and radians_per_ppm is None:
        raise ValueError("toolbox_lambda needs radians_per_ppm, got none: give B0 and TE, or use weight")
    field = jnp.where(mask, field, 0)
    level = noise_level(field, mask, geometry, noise)
    radians = data_terms.phase_scale(radians_per_ppm, level)
    if toolbox_lambda is not None:
        weight = 1 / (2 * jnp.asarray(toolbox_lambda) * radians)
    if weight is None:
        weight = auto_weight(level, field, mask, geometry, BALANCE)
    edges = EVERYWHERE if magnitude is None else edge_weights(magnitude, mask, geometry, edge_percentage)
    weights = data_weights(mask, noise, magnitude)
    dipole = inversion_kernel(geometry)
    if smv_radius is not None:
        field, weights, dipole = without_sphere_mean(field, mask, geometry, weights, dipole, smv_radius)

    solved = minimise_in_rounds(
        MERIT_ROUNDS if merit else 1,
        radians,
        weights,
        field,
        mask,
        geometry,
        weight=weight,
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
        edges=edges,
        dipole=dipole,
    )
    return solution(solved, mask, weight, tolerance)


medi = method(solve_medi)


def minimise_in_rounds(
    rounds: int,
    radians: Float[Array, ""],
    weights: Volume,
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    *,
    dipole: Kernel,
    **how: Any,
) -> Solved:
    """Minimise the variation in rounds, each with less trust in what the map of the one before can't explain.

    Args:
      rounds: count; one is the plain method.
      radians: per ppm.
      weights: of the data, in the first round.
      field: local field [ppm].
      mask: where chi may differ from zero.
      geometry: voxel size and B0 direction.
      dipole: chi to field in k-space.
      how: what else `minimise_variation` is told.

    Returns:
      The last round's splits and change, the iterations of all.
    """

    def once(weights: Volume, start: Splits | None) -> Solved:
        data_term = data_terms.up_to_constant(data_terms.nonlinear(field, weights, radians), field, weights)
        return minimise_variation(data_term, field, mask, geometry, dipole=dipole, start=start, **how)

    solved = once(weights, None)
    for _ in range(rounds - 1):
        made = multiply_k(jnp.where(mask, solved.state.chi, 0), dipole)
        weights = distrust_outliers(weights, radians * (made - field))
        again = once(weights, solved.state)
        solved = again._replace(iterations=solved.iterations + again.iterations)
    return solved


def edge_weights(magnitude: Volume, mask: Mask, geometry: Geometry, percentage: ArrayLike = 90.0) -> Edges:
    """Return 0 where the magnitude's difference along an axis is an edge, 1 elsewhere, for each of the three axes.

    The magnitude is cut to the mask first, so that the mask's own rim is an edge.

    Args:
      magnitude: of any scale.
      mask: where it counts.
      geometry: voxel size.
      percentage: count of edges, over all three axes, as a part of the count of voxels in the mask [%].
    """
    masked = jnp.where(mask, magnitude, 0)
    slopes = jnp.stack([jnp.abs(difference(masked, axis)) / d for axis, d in enumerate(geometry.voxel_size)])
    flat = 1 - percentage / 100 * jnp.sum(mask) / slopes.size
    threshold = masked_quantile(slopes, jnp.ones_like(slopes, dtype=bool), jnp.maximum(flat, 0))
    # rounding makes no edges of a flat magnitude
    threshold = jnp.maximum(threshold, FLAT * jnp.max(masked))
    x, y, z = (jnp.where(slope > threshold, 0.0, 1.0) for slope in slopes)
    return x, y, z


def without_sphere_mean(
    field: Volume, mask: Mask, geometry: Geometry, weights: Volume, dipole: Kernel, radius: ArrayLike
) -> tuple[Volume, Volume, Kernel]:
    """Take the mean over a sphere off the field and its model, which rids both of what is left of the background.

    Returns:
      The field, the weights (zero where the sphere leaves the mask, their mean one where it does not), and the dipole.
    """
    sphere = sphere_mean_k(geometry.shape, geometry.voxel_size, radius)
    # the sphere is band-limited: a mean within 1 % of one counts as inside
    inside = mask & (multiply_k(mask.astype(jnp.float32), sphere) > 0.99)
    filtered = jnp.where(inside, field - multiply_k(field, sphere), 0)
    weights = jnp.where(inside, weights, 0) / jnp.maximum(masked_mean(weights, inside), 1e-12)
    return filtered, weights, dipole * (1 - sphere)


def distrust_outliers(weights: Volume, phase_error: Volume) -> Volume:
    """Divide the weights by the square of what the error lies beyond 6 of its deviations (MERIT).

    Args:
      weights: of the data term.
      phase_error: of the model [rad].
    """
    used = weights > 0
    count = jnp.maximum(jnp.sum(used), 1)
    error = weights * (jnp.exp(1j * phase_error) - 1)
    size = jnp.abs(jnp.where(used, error - jnp.sum(jnp.where(used, error, 0)) / count, 0))
    deviation = jnp.sqrt(jnp.maximum(jnp.sum(size**2) / count - masked_mean(size, used) ** 2, 1e-20))
    weights = weights / jnp.maximum(size / (OUTLIER * deviation), 1) ** 2
    return weights / jnp.maximum(masked_mean(weights, used), 1e-12)
