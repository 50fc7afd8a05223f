"""The learned inversion on a field map: the physics on the whole volume, the network in the box of the mask.

    chi = x₀ + correction(look(x₀)),    std = calibration · exp(spread)

No resampling and no turning: the network is told the grid. Only what is learned is tiled, where memory asks for it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from qsmjax.inference.tiles import apply_tiled
from qsmjax.inversion.frame import MARGIN, check_finite
from qsmjax.inversion.solution import Solution
from qsmjax.models import unrolled
from qsmjax.numerics.box import Box, bounding_box, enter, frame_shape
from qsmjax.numerics.kspace import crop_to
from qsmjax.physics.field_map import FieldMap

HALO = 24
"""Overlap of tiles [voxels]; docs/reliability.md states the seam that it leaves."""


def learned_inversion(network: unrolled.Correction, variables: Mapping[str, Any], card: Mapping[str, Any]) -> Callable:
    """Make the inversion of a trained correction.

    Args:
      network: from `models.build`.
      variables: its parameters.
      card: of its weights; "calibration" is what the predicted standard deviations are multiplied by.

    Returns:
      (FieldMap, *, tile, halo) -> Solution.
    """
    calibration = float(card.get("calibration", 1.0))
    stride = network.stride
    weights = jax.tree.map(jnp.asarray, dict(variables))

    @jax.jit
    def correct(weights, features, numbers):
        made: Any = network.apply(weights, features[None], numbers[None])
        change, spread = made
        return jnp.stack([change[0], spread[0]])

    def learned(field_map: FieldMap, *, tile: int | None = None, halo: int = HALO) -> Solution:
        """Correct a total-variation map by a network that sees it beside the physics (learned).

        Args:
          field_map: local field.
          tile: edge of overlapping tiles [voxels], for volumes that memory does not hold; None for the whole at once.
          halo: overlap of the tiles [voxels].

        References:
          Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
          Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (the start).
        """
        box = bounding_box(field_map.mask)
        features = np.asarray(_features(field_map, box))
        numbers = unrolled.about(field_map.geometry.voxel_size, field_map.geometry.b0_dir)
        size = features.shape[:3]
        if tile is None:
            padded = np.pad(features, [*[(0, -n % stride) for n in size], (0, 0)])
            made = np.asarray(correct(weights, padded, numbers))[:, : size[0], : size[1], : size[2]]
        else:
            volumes = tuple(np.moveaxis(features, -1, 0))
            run = lambda *parts: jnp.moveaxis(correct(weights, jnp.stack(parts, -1), numbers), 0, -1)
            made = np.moveaxis(apply_tiled(run, volumes, tile=tile, halo=halo, stride=stride), -1, 0)
        inside = np.asarray(field_map.mask)[box]
        chi = unrolled.UNIT * np.sinh(features[..., 0]) + made[0]
        std = calibration * np.exp(made[1])
        shape = field_map.geometry.shape
        whole = lambda part: jnp.asarray(_put(np.where(inside, part, 0), box, shape))
        iterations = jnp.asarray(unrolled.ITERATIONS + unrolled.REWEIGHTED, jnp.int32)
        solution = Solution(chi=whole(chi), std=whole(std), iterations=iterations)
        check_finite(learned, solution)
        return solution

    return learned


def _features(field_map: FieldMap, box: Box) -> Array:
    """Look at a field in its frame; cut to the box."""
    shape = frame_shape(box, MARGIN)
    grid = dataclasses.replace(field_map.geometry, shape=shape)
    parts = [field_map.field, field_map.mask, field_map.noise, field_map.magnitude]
    field, mask, noise, magnitude = (enter(part, box, shape) for part in parts)
    made = _look(field, mask, grid, noise, magnitude)
    x, y, z = (part.stop - part.start for part in box)
    return jnp.moveaxis(crop_to(jnp.moveaxis(made, -1, 0), (x, y, z)), 0, -1)


@jax.jit
def _look(field, mask, grid, noise, magnitude):
    begun = unrolled.start(field, mask, grid, noise, magnitude)
    return unrolled.look(begun, field, mask, grid, noise, magnitude)


def _put(part: np.ndarray, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape, np.float32)
    whole[box] = part
    return whole
