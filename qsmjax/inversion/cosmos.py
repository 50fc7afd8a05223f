"""Several orientations of one head: what one direction of B0 can't see, another can (COSMOS).

    closed form    X = Σ_i D_i F_i / Σ_i D_i²                                  fields known in the whole volume
    otherwise      minimise Σ_i |W_i (D_i chi - f_i)|² with chi = 0 outside the masks, by conjugate gradients

A field that is known only in a mask must not go through the closed form, which takes the outside for zero: on heads
that alone costs 9 %.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qsmjax.inversion.frame import check_finite, is_full
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.weighting import data_weights, noise_level
from qsmjax.numerics.arrays import Kernel, Shape
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.numerics.kspace import irfft3, rfft3
from qsmjax.numerics.options import check_option
from qsmjax.numerics.solvers import Report, cg
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

Fields = Float[Array, "n x y z"]
Masks = Bool[Array, "n x y z"]
Directions = Float[Array, "n 3"]

MARGIN = 0.5
"""Zeros around the head, as a part of its box: more than one orientation deserves a smaller error of wrap-around."""

PARALLEL = 0.9998
"""Cosine of two B0 directions above which they count as one (one degree)."""

UNSEEN = 1e-8
"""Σ D², as a part of its largest, below which it is zero but for rounding."""

FLOOR = 1e-3
"""Least Σ D² / n that the preconditioner divides by."""


def cosmos(
    field_maps: Sequence[FieldMap],
    *,
    max_iterations: int = 60,
    tolerance: float = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Solve for the map that makes the fields of several orientations (COSMOS).

        Σ_i |W_i (D_i chi - field_i)|²,    chi = 0 outside the masks

    In closed form where every field is known in the whole volume, else by conjugate gradients, whose gradients are
    implicit.

    Args:
      field_maps: local fields on one grid (registered), each with its own mask and its own B0 direction in the axes
        of that grid; at least two directions.
      max_iterations: limit of the iterations of CG.
      tolerance: relative residual of the normal equations at which to stop.
      report: called after every iteration with its number and the residual.

    Returns:
      The map, with the condition number of the orientations: √(max / min over k of Σ_i D_i²). Two orientations that
      leave it above 10 or so amplify noise.

    Raises:
      ValueError: if there are not two directions, or the grids differ.

    References:
      Liu et al., Magn. Reson. Med. 61:196 (2009), doi:10.1002/mrm.21828.
    """
    check_orientations(field_maps)
    check_option("max_iterations", max_iterations)
    check_option("tolerance", tolerance)
    first = field_maps[0]
    known = not any(isinstance(f.mask, jax.core.Tracer) for f in field_maps)
    # inside jit, stacking would trace masks that are known: another box, and never the closed form
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        masks = jnp.stack([f.mask for f in field_maps])
    box = bounding_box(masks)
    whole = is_full(masks)
    shape = first.geometry.shape if whole else frame_shape(box, MARGIN, first.geometry.voxel_size)
    fields, weights = jnp.stack([f.field for f in field_maps]), jnp.stack(orientation_weights(field_maps))
    directions = jnp.stack([f.geometry.b0_dir for f in field_maps])
    geometry = dataclasses.replace(first.geometry, shape=shape)
    framed = [enter(part, box, shape) for part in (fields, masks, weights)]
    if whole:
        solution = _compiled_closed()(framed[0], geometry, b0_dirs=directions)
    else:
        options = {"max_iterations": max_iterations, "tolerance": tolerance, "report": report}
        solution = _compiled()(framed[0], framed[1], geometry, weights=framed[2], b0_dirs=directions, **options)
    check_finite(solve_cosmos, solution)
    return dataclasses.replace(solution, chi=leave(solution.chi, box, first.geometry.shape))


def solve_cosmos(
    fields: Fields,
    masks: Masks,
    geometry: Geometry,
    *,
    b0_dirs: Directions,
    weights: Fields | None = None,
    max_iterations: int = 60,
    tolerance: ArrayLike = 1e-3,
    report: Report | None = None,
) -> Solution:
    """Run the conjugate gradients of `cosmos` on arrays: orientations on the leading axis, B0 directions beside."""
    dipoles = dipole_kernels(geometry.shape, geometry.voxel_size, b0_dirs)
    trust = jnp.where(masks, 1 if weights is None else weights**2, 0)
    support = jnp.any(masks, axis=0)
    total = jnp.sum(dipoles**2, axis=0)
    rough_inverse = 1 / (total + FLOOR * fields.shape[0])

    def confined(spectrum: Array) -> Array:
        return jnp.where(support, irfft3(spectrum, geometry.shape), 0)

    def normal(chi: Array) -> Array:
        made = irfft3(dipoles * rfft3(chi), geometry.shape)
        return confined(jnp.sum(dipoles * rfft3(trust * made), axis=0))

    solved = cg(
        normal,
        confined(jnp.sum(dipoles * rfft3(trust * jnp.where(masks, fields, 0)), axis=0)),
        preconditioner=lambda residual: confined(rough_inverse * rfft3(residual)),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return Solution(
        chi=jnp.where(support, solved.state, 0),
        iterations=solved.iterations,
        residual=solved.residual,
        converged=solved.residual <= tolerance,
        condition=condition_number(total, geometry.shape),
    )


def solve_cosmos_closed(fields: Fields, geometry: Geometry, *, b0_dirs: Directions) -> Solution:
    """Run the closed form of `cosmos` on arrays: fields known everywhere, periodically on their grid."""
    dipoles = dipole_kernels(geometry.shape, geometry.voxel_size, b0_dirs)
    total = jnp.sum(dipoles**2, axis=0)
    seen = total > UNSEEN * jnp.max(total)
    chi_k = jnp.where(seen, jnp.sum(dipoles * rfft3(fields), axis=0) / jnp.where(seen, total, 1), 0)
    return Solution(chi=irfft3(chi_k, geometry.shape), condition=condition_number(total, geometry.shape))


def dipole_kernels(shape: Shape, voxel_size: Float[Array, "3"], b0_dirs: Directions) -> Float[Array, "n x y zhalf"]:
    """Stack the dipole kernels of several B0 directions."""
    return jnp.stack(
        [dipole_kernel(shape, voxel_size, b0_dirs[i], flip_symmetric=True) for i in range(b0_dirs.shape[0])]
    )


def condition_number(total: Kernel, shape: Shape) -> Float[Array, ""]:
    """Return √(max / min) of Σ_i D_i² over the frequencies that some orientation sees.

    None sees k = 0. The Nyquist planes of even axes are left out: a sample there stands for several directions of k and
    holds the mean of their D, which may vanish for any B0 and says nothing of the orientations.
    """
    largest = jnp.max(total)
    counted = total > UNSEEN * largest
    for axis, n in enumerate(shape):
        at = jnp.arange(total.shape[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
        counted &= 2 * at != n
    return jnp.sqrt(jnp.max(jnp.where(counted, total, 0)) / jnp.min(jnp.where(counted, total, jnp.inf)))


def orientation_weights(field_maps: Sequence[FieldMap]) -> list[Float[Array, "x y z"]]:
    """Weigh voxels within each orientation by their noise, and the orientations against each other by its level."""
    within = [data_weights(f.mask, f.noise, f.magnitude) for f in field_maps]
    if any(f.noise is None for f in field_maps):
        return within
    levels = jnp.stack([noise_level(f.field, f.mask, f.geometry, f.noise) for f in field_maps])
    best = jnp.min(levels)
    return [w * best / jnp.maximum(level, 1e-12) for w, level in zip(within, levels)]


def check_orientations(field_maps: Sequence[FieldMap]) -> None:
    """Check that there are two orientations at least, on one grid.

    Raises:
      ValueError: if not.
    """
    if len(field_maps) < 2:
        raise ValueError(f"field_maps must hold at least two orientations, got {len(field_maps)}")
    shapes = {f.field.shape for f in field_maps}
    if len(shapes) > 1:
        raise ValueError(f"field_maps must share one grid, got shapes {sorted(shapes)}: register and resample them")
    sizes = jnp.stack([f.geometry.voxel_size for f in field_maps])
    directions = jnp.stack([f.geometry.b0_dir for f in field_maps])
    if isinstance(directions, jax.core.Tracer) or isinstance(sizes, jax.core.Tracer):
        return
    if not np.allclose(sizes, sizes[0], rtol=1e-3):
        told = [[round(float(d), 4) for d in size] for size in np.unique(np.asarray(sizes), axis=0)]
        raise ValueError(f"field_maps must share one grid, got voxels of {told} mm: register and resample them")
    if np.abs(np.asarray(jnp.sum(directions * directions[0], axis=-1))).min() > PARALLEL:
        raise ValueError(
            "field_maps must hold at least two directions of B0, got one: give each its own b0_dir in the axes of the "
            "common grid"
        )


@functools.cache
def _compiled():
    return jax.jit(solve_cosmos, static_argnames=("max_iterations", "report"))


@functools.cache
def _compiled_closed():
    return jax.jit(solve_cosmos_closed)
