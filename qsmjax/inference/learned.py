"""The learned inversion on a field map: the physics on the whole volume, the network in the box of the mask.

    x ← x + correctionₖ(look(x)),    std = deviation(the last spread) · level

The level is the scan's own: a rehearsal inverts the field that the map found would have, and sees how far that is off.

No resampling and no turning: the network is told the grid. Only what is learned is tiled, where memory asks for it.

A local field of which more is left over than its noise explains still holds background. That is taken out as it is of
a total field, and the network that has seen such fields makes the map.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qsmjax.inference.ahead import Call, ahead
from qsmjax.inference.tiles import apply_tiled, whole_or_tiled
from qsmjax.inversion.frame import MARGIN, check_field, check_finite
from qsmjax.inversion.removal import remove_by_tfi
from qsmjax.inversion.solution import Solution
from qsmjax.models import unrolled
from qsmjax.models.correction import UNCALIBRATED, Correction, check_params, correct, deviation
from qsmjax.models.rehearsal import middle, off_by, rehearsal, rehearsed
from qsmjax.numerics.arrays import Shape, Volume
from qsmjax.numerics.box import Box, bounding_box, enter, frame_shape, leave
from qsmjax.numerics.kspace import crop_to, pad_to
from qsmjax.physics.field_map import FieldMap, spans_head

HALO = 24
"""Overlap of tiles [voxels]; docs/reliability.md states the seam that it leaves."""
FILTERED = 1.2
"""By how much a map is further off than is foretold where a field was filtered before and background was left: V-SHARP
takes some of the tissue's own with it, and nothing tells how much (heads 11 and 12: docs/learned.md)."""


@dataclasses.dataclass(frozen=True)
class _Trained:
    """A trained correction: its stages' parameters, calibration, and a rehearsal's factors where its card has some."""

    network: Correction
    stages: tuple[Any, ...]
    calibration: Array
    factors: Array | None


@dataclasses.dataclass(frozen=True)
class _How:
    """How a scan is inverted: whether background is looked for, what is rehearsed, and tiles, if any.

    Attributes:
      watch: whether to leave a field in which background is found.
      size: of the box of its mask.
      rehearsed: size and frame of what is rehearsed; None for no rehearsal.
      tile: edge of the tiles [voxels].
      halo: their overlap.
    """

    watch: bool
    size: Shape
    rehearsed: tuple[Shape, Shape] | None
    tile: int | None
    halo: int


def learned_inversion(
    network: Correction,
    variables: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    after_removal: Callable[..., Solution] | None = None,
) -> Callable:
    """Make the inversion of a trained correction.

    Args:
      network: from `models.build`.
      variables: its parameters, of each stage.
      card: of its weights; "calibration" as `models.correction.deviation` takes it, "bootstrap" as
        `models.rehearsal.rehearsed` does.
      after_removal: inverts what `remove_by_tfi`, which is not tiled, leaves of a field in which background is found;
        None to look for none.

    Returns:
      (FieldMap, *, bootstrap, tile, halo) -> Solution; with `after_removal` it has an option `residue`, False to look
      for none.

    Raises:
      ValueError: if there are no parameters, or they are not that network's.
    """
    calibration = jnp.asarray(card.get("calibration", UNCALIBRATED), jnp.float32)
    # weights before these told no factor for edges
    factors = jnp.asarray([*card["bootstrap"], 0.0][:4], jnp.float32) if "bootstrap" in card else None
    if not variables:
        raise ValueError("weights must hold those of a stage at least, got none: train it again")
    stages = tuple(jax.tree.map(jnp.asarray, variables[name]) for name in sorted(variables))
    for params in stages:
        check_params(network, params)
    trained = _Trained(network, stages, calibration, factors)

    def learned(field_map: FieldMap, *, bootstrap: bool = True, tile: int | None = None, halo: int = HALO) -> Solution:
        """Correct a total-variation map by a network that sees it beside the physics (learned).

        Args:
          field_map: local field.
          bootstrap: whether to rehearse for the deviation's level, which takes a quarter as long again.
          tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
          halo: overlap of the tiles [voxels].

        References:
          Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the signal).
          Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
          Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (the start).
        """
        solution = _invert(trained, field_map, watch=False, bootstrap=bootstrap, tile=tile, halo=halo)
        assert solution is not None, "nothing was watched for"
        check_finite(learned, solution)
        return solution

    return learned if after_removal is None else _watchful(trained, learned, after_removal)


def _watchful(trained: _Trained, learned: Callable[..., Solution], invert_rest: Callable[..., Solution]) -> Callable:
    """Make the inversion that looks for background first, and has the rest inverted where it finds any."""

    def watchful(
        field_map: FieldMap,
        *,
        residue: bool = True,
        bootstrap: bool = True,
        tile: int | None = None,
        halo: int = HALO,
    ) -> Solution:
        """Do as a learned inversion does, but take background out of a head's field that holds any."""
        watch = residue and spans_head(field_map)
        solution = _invert(trained, field_map, watch=watch, bootstrap=bootstrap, tile=tile, halo=halo)
        if solution is None:
            local = remove_by_tfi(field_map)
            rest = invert_rest(local, bootstrap=bootstrap, tile=tile, halo=halo)
            std = None if rest.std is None else FILTERED * rest.std
            return dataclasses.replace(rest, std=std, local=local)
        check_finite(learned, solution)
        return solution

    watchful.__name__ = learned.__name__
    return watchful


def _invert(
    trained: _Trained, field_map: FieldMap, *, watch: bool, bootstrap: bool, tile: int | None, halo: int
) -> Solution | None:
    """Invert a field map; None if background is watched for, and found."""
    check_field(field_map)
    box = bounding_box(field_map.mask)
    scan = _framed(field_map, box)
    inside = field_map.mask[box]
    x, y, z = inside.shape
    rehearses = bootstrap and trained.factors is not None
    to_rehearse = _middle(inside, field_map.geometry.voxel_size) if rehearses else None
    how = _How(watch, (x, y, z), to_rehearse, tile, halo)

    def flow(call: Call, begun: unrolled.Start, scan: unrolled.Scan) -> tuple[Volume, Volume] | None:
        return _after_start(call, trained, how, begun, scan)

    with ahead(flow, unrolled.Start(scan.field, scan.field), scan) as call:
        made = flow(call, unrolled.start(scan), scan)
    if made is None:
        return None
    chi, std = (leave(part, box, field_map.geometry.shape) for part in made)
    return Solution(chi=chi, std=std, iterations=jnp.asarray(unrolled.ROUND * sum(unrolled.ROUNDS), jnp.int32))


def _after_start(
    call: Call, trained: _Trained, how: _How, begun: unrolled.Start, scan: unrolled.Scan
) -> tuple[Volume, Volume] | None:
    """Go on from a start to map and deviation, in the frame; a flow, as `inference.ahead` has them."""
    if how.watch and _is_foreign(call(_unexplained, begun, scan)):
        return None
    chi, std = _corrected(call, trained, how, how.size, begun, scan)
    if how.rehearsed is None:
        return chi, std
    size, shape = how.rehearsed
    again, truth = call(_rehearsal, chi, scan, size, shape)
    found, foretold = _corrected(call, trained, how, size, unrolled.start(again, call=call), again)
    return chi, call(_rehearsed, std, scan.mask, chi, found, truth, foretold, again.mask, trained.factors)


def _corrected(
    call: Call, trained: _Trained, how: _How, size: Shape, begun: unrolled.Start, scan: unrolled.Scan
) -> tuple[Volume, Volume]:
    """Go through all stages, the network in the box of that size: map and deviation, in the frame."""
    std = begun.sharp
    for params in trained.stages:
        features, numbers = call(_look, begun, scan, size)
        made = _apply(call, trained.network, params, features, numbers, how)
        begun, std = call(_settle, features, made, scan, trained.calibration)
    return begun.sharp, std


def _apply(
    call: Call, network: Correction, params: Any, features: jax.Array, numbers: jax.Array, how: _How
) -> tuple[Volume, Volume]:
    """Apply a correction in the box, whole or in tiles: change and spread."""

    def tiled(edge: int) -> tuple[Volume, Volume]:
        volumes = tuple(np.moveaxis(np.asarray(features), -1, 0))
        run = lambda *parts: jnp.stack(correct(network, params, jnp.stack(parts, -1), numbers), -1)
        made = apply_tiled(run, volumes, tile=edge, halo=how.halo, stride=network.stride)
        return jnp.asarray(made[..., 0]), jnp.asarray(made[..., 1])

    return whole_or_tiled(lambda: call(correct, network, params, features, numbers), tiled, tile=how.tile)


def _is_foreign(multiple: Float[Array, ""] | jax.ShapeDtypeStruct) -> bool:
    """Say whether a field has sources outside the mask, by `unrolled.unexplained`; not where no value is known."""
    if isinstance(multiple, jax.core.Tracer):
        # beneath jax.grad it has a value once its derivative is left out; inside jax.jit it has none
        multiple = jax.lax.stop_gradient(multiple)
    if not isinstance(multiple, jax.Array) or isinstance(multiple, jax.core.Tracer):
        return False
    return float(multiple) > unrolled.FOREIGN


def _middle(mask: jax.Array, voxel_size: jax.Array) -> tuple[Shape, Shape]:
    """Return the size of what is rehearsed, and of its frame."""
    x, y, z = size = middle(mask, voxel_size)
    return size, frame_shape((slice(0, x), slice(0, y), slice(0, z)), MARGIN, voxel_size)


def _framed(field_map: FieldMap, box: Box) -> unrolled.Scan:
    """Bring a field map to the frame of a box, and weigh it."""
    shape = frame_shape(box, MARGIN, field_map.geometry.voxel_size)
    parts = [field_map.field, field_map.mask, field_map.noise, field_map.magnitude]
    field, mask, noise, magnitude = (enter(part, box, shape) for part in parts)
    return _weigh(field, mask, dataclasses.replace(field_map.geometry, shape=shape), noise, magnitude)


_weigh, _unexplained = jax.jit(unrolled.weigh), jax.jit(unrolled.unexplained)
_rehearsal = jax.jit(rehearsal, static_argnums=(2, 3))


@partial(jax.jit, static_argnums=2)
def _look(begun: unrolled.Start, scan: unrolled.Scan, size: Shape) -> tuple[jax.Array, jax.Array]:
    """Look at a map: in the box of its mask, and at the grid in numbers."""
    inside = jnp.moveaxis(crop_to(jnp.moveaxis(unrolled.look(begun, scan), -1, 0), size), 0, -1)
    return inside, unrolled.about(scan.geometry.voxel_size, scan.geometry.b0_dir)


@jax.jit
def _settle(
    features: jax.Array, made: tuple[jax.Array, jax.Array], scan: unrolled.Scan, calibration: jax.Array
) -> tuple[unrolled.Start, jax.Array]:
    """Take what the data allow of a stage's change: the next start and its deviation, in the frame.

    The start is read out of the features, so that it need not be kept while the network runs.
    """
    change, spread = made
    inside = crop_to(scan.mask, change.shape)
    in_frame = lambda part: pad_to(jnp.where(inside, part, 0), scan.field.shape)
    begun = unrolled.Start(*map(in_frame, unrolled.corrected(features, jnp.zeros_like(change))))
    allowed = unrolled.share(begun, in_frame(change), scan)
    after = unrolled.Start(*map(in_frame, unrolled.corrected(features, allowed * change)))
    return after, in_frame(jnp.hypot(deviation(spread, calibration), (1 - allowed) * change))


@jax.jit
def _rehearsed(
    std: jax.Array,
    mask: jax.Array,
    chi: jax.Array,
    found: jax.Array,
    truth: jax.Array,
    foretold: jax.Array,
    again: jax.Array,
    factors: jax.Array,
) -> jax.Array:
    """Bring a deviation to the level that a rehearsal tells, whose mask is another."""
    return rehearsed(std, mask, off_by(found - truth, again, foretold), factors, chi)
