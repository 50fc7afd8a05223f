"""The learned inversion on a field map: the physics on the whole volume, the network in the box of the mask.

    x ← x + correctionₖ(look(x)),    std = deviation(the last spread) · level

The level is the scan's own: a rehearsal inverts the field that the map found would have, and sees how far that is off.

No resampling and no turning: the network is told the grid. Only what is learned is tiled, where memory asks for it.

A local field of which more is left over than its noise explains still holds background. That is taken out as it is of
a total field, and the network that has seen such fields makes the map.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.inference.tiles import apply_tiled, whole_or_tiled
from qsmjax.inversion.frame import MARGIN, check_field, check_finite
from qsmjax.inversion.removal import remove_by_tfi
from qsmjax.inversion.solution import Solution
from qsmjax.models import unrolled
from qsmjax.models.correction import UNCALIBRATED, Correction, check_params, correct, deviation, rehearsed
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.numerics.kspace import crop_to, pad_to
from qsmjax.physics.field_map import FieldMap, spans_head

HALO = 24
"""Overlap of tiles [voxels]; docs/reliability.md states the seam that it leaves."""


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
      card: of its weights; "calibration" as `models.correction.deviation` takes it, "bootstrap" as `rehearsed` does.
      after_removal: inverts what `remove_by_tfi`, which is not tiled, leaves of a field in which background is found;
        None to look for none.

    Returns:
      (FieldMap, *, bootstrap, tile, halo) -> Solution; with `after_removal` it has an option `residue`, False to look
      for none.

    Raises:
      ValueError: if the parameters are not that network's.
    """
    calibration = jnp.asarray(card.get("calibration", UNCALIBRATED), jnp.float32)
    level = jnp.asarray(card["bootstrap"], jnp.float32) if "bootstrap" in card else None
    stages = [jax.tree.map(jnp.asarray, variables[name]) for name in sorted(variables)]
    for params in stages:
        check_params(network, params)

    def correct_start(
        begun: unrolled.Start, scan: unrolled.Scan, inside: jax.Array, tile: int | None, halo: int
    ) -> tuple[jax.Array, jax.Array]:
        """Go through all stages: map and deviation, in the frame."""
        numbers = unrolled.about(scan.geometry.voxel_size, scan.geometry.b0_dir)
        enter_frame = lambda part: pad_to(jnp.where(inside, part, 0), begun.sharp.shape)
        for params in stages:
            seen = _look(begun, scan)
            features = jnp.moveaxis(crop_to(jnp.moveaxis(seen, -1, 0), inside.shape), 0, -1)
            change, spread = _apply(network, params, features, numbers, tile, halo)
            allowed = _share(begun, enter_frame(change), scan)
            withheld, change = (1 - allowed) * change, allowed * change
            begun = unrolled.Start(*map(enter_frame, unrolled.corrected(features, change)))
        return begun.sharp, enter_frame(jnp.hypot(deviation(spread, calibration), withheld))

    def finish(
        begun: unrolled.Start, scan: unrolled.Scan, field_map: FieldMap, bootstrap: bool, tile: int | None, halo: int
    ) -> Solution:
        box = bounding_box(field_map.mask)
        inside = jnp.asarray(field_map.mask)[box]
        chi, std = correct_start(begun, scan, inside, tile, halo)
        del begun
        if bootstrap and level is not None:
            again = _rehearsal(chi, scan)
            found, foretold = correct_start(unrolled.start(again, rounds=unrolled.FEWER), again, inside, tile, halo)
            std = _rehearsed(std, scan.mask, found - chi, foretold, level)
        solution = Solution(
            chi=leave(chi, box, field_map.geometry.shape),
            std=leave(std, box, field_map.geometry.shape),
            iterations=jnp.asarray(unrolled.ROUND * sum(unrolled.ROUNDS), jnp.int32),
        )
        check_finite(learned, solution)
        return solution

    def learned(field_map: FieldMap, *, bootstrap: bool = True, tile: int | None = None, halo: int = HALO) -> Solution:
        """Correct a total-variation map by a network that sees it beside the physics (learned).

        Args:
          field_map: local field.
          bootstrap: whether to rehearse for the deviation's level, which takes two thirds as long again.
          tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
          halo: overlap of the tiles [voxels].

        References:
          Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the signal).
          Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
          Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (the start).
        """
        scan = _framed(field_map)
        return finish(unrolled.start(scan), scan, field_map, bootstrap, tile, halo)

    return learned if after_removal is None else _watchful(finish, after_removal)


def _watchful(finish: Callable[..., Solution], invert_rest: Callable[..., Solution]) -> Callable:
    """Make the inversion that looks for background first, and has the rest inverted where it finds any."""

    def learned(
        field_map: FieldMap,
        *,
        residue: bool = True,
        bootstrap: bool = True,
        tile: int | None = None,
        halo: int = HALO,
    ) -> Solution:
        """Do as a learned inversion does, but take background out of a head's field that holds any."""
        scan = _framed(field_map)
        begun = unrolled.start(scan)
        if not (residue and _holds_background(begun, scan) and spans_head(field_map)):
            return finish(begun, scan, field_map, bootstrap, tile, halo)
        del begun, scan
        local = remove_by_tfi(field_map)
        return dataclasses.replace(invert_rest(local, tile=tile, halo=halo), local=local)

    return learned


def _apply(
    network: Correction, params: Any, features: jax.Array, numbers: jax.Array, tile: int | None, halo: int
) -> jax.Array:
    """Apply a correction in the box, whole or in tiles: change and spread."""
    corrected = lambda maps: jnp.stack(correct(network, params, maps, numbers))
    x, y, z = features.shape[:3]

    def whole() -> jax.Array:
        return corrected(jnp.pad(features, [*[(0, -n % network.stride) for n in (x, y, z)], (0, 0)]))[:, :x, :y, :z]

    def tiled(edge: int) -> jax.Array:
        volumes = tuple(np.moveaxis(np.asarray(features), -1, 0))
        run = lambda *parts: jnp.moveaxis(corrected(jnp.stack(parts, -1)), 0, -1)
        made = apply_tiled(run, volumes, tile=edge, halo=halo, stride=network.stride)
        return jnp.moveaxis(jnp.asarray(made), -1, 0)

    return jnp.asarray(whole_or_tiled(whole, tiled, tile=tile))


def _holds_background(begun: unrolled.Start, scan: unrolled.Scan) -> bool:
    """Say whether the field has sources outside the mask; not where it is traced."""
    foreign = _unexplained(begun, scan) > unrolled.FOREIGN
    return not isinstance(foreign, jax.core.Tracer) and bool(foreign)


def _framed(field_map: FieldMap) -> unrolled.Scan:
    """Bring a field map to the frame, and weigh it."""
    check_field(field_map)
    box = bounding_box(field_map.mask)
    shape = frame_shape(box, MARGIN, field_map.geometry.voxel_size)
    parts = [field_map.field, field_map.mask, field_map.noise, field_map.magnitude]
    field, mask, noise, magnitude = (enter(part, box, shape) for part in parts)
    return _weigh(field, mask, dataclasses.replace(field_map.geometry, shape=shape), noise, magnitude)


_weigh, _look, _share = jax.jit(unrolled.weigh), jax.jit(unrolled.look), jax.jit(unrolled.share)
_unexplained, _rehearsal = jax.jit(unrolled.unexplained), jax.jit(unrolled.rehearsal)
_rehearsed = jax.jit(rehearsed)
