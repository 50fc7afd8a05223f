"""Stages composed: echoes or a field in, a referenced susceptibility map out. Any method of a stage fits its slot.

    echoes -> total field -> local field -> chi,    chi = mask · (invert(field) - reference)

Susceptibility is only known up to a constant, since D(0) = 0: a map without a stated reference can't be compared.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax import background
from qsmjax.inversion.removal import remove_by_tfi
from qsmjax.inversion.solution import Solution
from qsmjax.numerics.arrays import Mask, Volume, as_mask
from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.mask import CONSENSUS_RESIDUAL, reduce_mask
from qsmjax.phase.offsets import remove_bipolar
from qsmjax.phase.signal_model import EchoFit
from qsmjax.physics.axes import nearest_axes
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import Geometry
from qsmjax.physics.units import radians_per_ppm

Background = Callable[..., FieldMap]
Inversion = Callable[..., Solution]

BACKGROUNDS: dict[str, Background] = {"tfi": remove_by_tfi, **background.METHODS}
"""Every removal of the background by the name that the command line takes: one looks for the tissue too."""


class Referenced(NamedTuple):
    """A map and the mean of its reference region, which was subtracted [ppm]."""

    chi: Volume
    offset: Float[Array, ""]


def reference(chi: Volume, mask: Mask, region: ArrayLike | None) -> Referenced:
    """Subtract the mean over a region from what lies inside the mask.

    Args:
      chi: [ppm].
      mask: where chi is known.
      region: not zero in the reference region, of which the part inside the mask counts; None for no reference.

    Raises:
      ValueError: if the region is on another grid, or shares no voxel with the mask.
    """
    if region is None:
        return Referenced(jnp.where(mask, chi, 0), jnp.float32(0))
    inside = as_mask("reference", region, chi.shape) & mask
    if not isinstance(inside, jax.core.Tracer) and not bool(inside.any()):
        raise ValueError("reference must share voxels with the mask, got none")
    offset = jnp.sum(jnp.where(inside, chi, 0)) / jnp.maximum(jnp.sum(inside), 1)
    return Referenced(jnp.where(mask, chi - offset, 0), offset)


class TotalField(NamedTuple):
    """What echoes gave: the field with its noise, the fit, what was taken from the mask, and its rim among that."""

    field_map: FieldMap
    fit: EchoFit
    removed: Mask
    rim: Mask


def total_field(
    signal: ArrayLike,
    te: Sequence[float],
    b0: ArrayLike,
    mask: ArrayLike,
    geometry: Geometry,
    *,
    bipolar: bool = False,
    initial_phase: float | None = None,
    residual: float | None = CONSENSUS_RESIDUAL,
    erode: int = 0,
) -> TotalField:
    """Make the total field of complex echoes, and leave out of the mask what the fit does not explain.

    Turns and masks are found on the host: jax.grad goes through it, jax.jit does not.

    Args:
      signal: echo x y z, complex.
      te: echo times [s].
      b0: field strength [T].
      mask: where the head is.
      geometry: its grid.
      bipolar: whether every other echo was read backwards; its phase is estimated and removed.
      initial_phase: phase at TE = 0 where it is known to be the same everywhere [rad], which halves the noise; what is
        not that number falls into the field. None to fit it.
      residual: relative residual of the fit above which a voxel is left out; None to keep all.
      erode: voxels to take off the mask's rim.

    Raises:
      ValueError: if axes, echo times or grids do not fit, or nothing remains of the mask.

    References:
      Liu et al., Magn. Reson. Med. 69:467 (2013), doi:10.1002/mrm.24272 (the fit).
      Herraez et al., Appl. Opt. 41:7437 (2002), doi:10.1364/AO.41.007437 (unwrapping).
      Abdul-Rahman et al., Appl. Opt. 46:6623 (2007), doi:10.1364/AO.46.006623 (the same in three dimensions).
      Li et al., MAGMA 28:347 (2015), doi:10.1007/s10334-014-0470-3 (bipolar readouts).
    """
    echoes = remove_bipolar(signal, te, mask).signal if bipolar else jnp.asarray(signal)
    fit = fit_echoes(echoes, te, b0, mask, initial_phase=initial_phase)
    # one echo has no residual to judge by
    judged = fit.relative_residual if residual is not None and len(te) > 1 else None
    threshold = CONSENSUS_RESIDUAL if residual is None else residual
    kept, removed, rim = reduce_mask(mask, judged, threshold=threshold, erode=erode)
    made = field_map(
        fit.field,
        kept,
        geometry,
        noise=fit.noise,
        magnitude=fit.amplitude,
        radians_per_ppm=radians_per_ppm(b0, max(te)),
    )
    return TotalField(made, fit, removed, rim)


def in_world_axes(method: Background | Inversion, given: FieldMap, affine: ArrayLike, **options) -> Any:
    """Run a method on a field stored along the axes nearest to the world's; what it makes is stored as the field was.

    The same scan then has the same map however it is stored, a network's too: that is not the same in all directions.

    Args:
      method: a background method or an inversion.
      given: the field that it takes.
      affine: 4x4, the field's voxel index to world [mm].
      options: the method's.

    Returns:
      What the method returns: a field, or a solution.
    """
    axes = nearest_axes(affine)
    made, back = method(axes.turn_field(given), **options), axes.inverse
    if isinstance(made, FieldMap):
        return back.turn_field(made)
    std = None if made.std is None else back.turn(made.std)
    local = None if made.local is None else back.turn_field(made.local)
    return dataclasses.replace(made, chi=back.turn(made.chi), std=std, local=local)


def local_field_to_chi(
    local: FieldMap,
    invert: Inversion,
    *,
    region: ArrayLike | Literal["mean"] | None = "mean",
    affine: ArrayLike | None = None,
    **options,
) -> tuple[Solution, Referenced]:
    """Invert a local field and reference the map.

    Args:
      local: local field.
      invert: an inversion, classical or learned: (FieldMap, *, options) -> Solution.
      region: the reference region; "mean" for the whole mask, None for none.
      affine: 4x4, the field's voxel index to world [mm], for `in_world_axes`; None to invert it as it is stored.
      options: the inversion's.

    Returns:
      The solution as the inversion gave it, and its referenced map.

    Raises:
      ValueError: if the region is another word.
    """
    if isinstance(region, str) and region != "mean":
        raise ValueError(f'region must be "mean", a mask or None, got {region!r}')
    solution = invert(local, **options) if affine is None else in_world_axes(invert, local, affine, **options)
    return solution, reference(solution.chi, local.mask, local.mask if isinstance(region, str) else region)


def total_field_to_chi(
    total: FieldMap,
    remove: Background,
    invert: Inversion,
    *,
    region: ArrayLike | Literal["mean"] | None = "mean",
    affine: ArrayLike | None = None,
    background_options: Mapping[str, Any] | None = None,
    **options,
) -> tuple[FieldMap, Solution, Referenced]:
    """Remove the background field, invert what is left and reference the map: one function, differentiable as they are.

    Args:
      total: total field.
      remove: a background method: (FieldMap, *, options) -> FieldMap.
      invert: an inversion.
      region: the reference region; "mean" for the mask that the background method left, None for none.
      affine: 4x4, the field's voxel index to world [mm], for `in_world_axes`; None to take it as it is stored.
      background_options: options of `remove`.
      options: the inversion's.

    Returns:
      The local field, the solution as the inversion gave it, and its referenced map.
    """
    how = background_options or {}
    local = remove(total, **how) if affine is None else in_world_axes(remove, total, affine, **how)
    return local, *local_field_to_chi(local, invert, region=region, affine=affine, **options)
