"""Weights and card from a file or a work folder to an inversion: FieldMap -> Solution.

The card says all that is needed: the network's config, the scaling of field and chi, the grid and the direction of B0
that it was trained for. A scan on another grid is brought there and its map brought back.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from qsmjax.inference.card import check_card
from qsmjax.inference.learned import learned_inversion
from qsmjax.inference.regrid import Regrid, plan
from qsmjax.inference.tiles import apply_tiled, whole_or_tiled
from qsmjax.inversion.solution import Solution
from qsmjax.io.weights import load_weights
from qsmjax.models.build import build
from qsmjax.models.correction import Correction
from qsmjax.models.scaling import Scaling, predict
from qsmjax.numerics.box import bounding_box, leave
from qsmjax.physics.field_map import FieldMap

WEIGHTS = "weights.safetensors"


class Network(NamedTuple):
    """A trained network.

    Attributes:
      name: of its preset.
      invert: (FieldMap, *, tile, halo) -> Solution.
      describe: (FieldMap) -> what is done to that scan, in lines.
      card: what its file says of it.
    """

    name: str
    invert: Callable[..., Solution]
    describe: Callable[[FieldMap], list[str]]
    card: dict[str, Any]


def read_network(path: str | Path) -> tuple[Path, nn.Module, dict[str, Any], dict[str, Any]]:
    """Read a network: its file, the module, its parameters and its card; raises what `load_network` does."""
    path = Path(path)
    file = path / WEIGHTS if path.is_dir() else path
    if not path.exists() and path.suffix == ".safetensors":
        raise FileNotFoundError(f"{path} must exist, got no such file")
    if not file.is_file():
        raise FileNotFoundError(f"{path} must hold {WEIGHTS}, got none: train there first, or wait for its first save")
    variables, card = load_weights(file)
    check_card(file, card, ("name", "network"))
    # kernels may be stored in half precision; networks know parameters in float32 alone
    variables = jax.tree.map(lambda array: np.asarray(array, np.float32), variables)
    return file, build(card["network"]), variables, card


def load_network(path: str | Path, *, after_removal: Callable[..., Solution] | None = None) -> Network:
    """Load a network from its weights, or from the work folder that training left.

    Args:
      path: a .safetensors file, or a folder that holds weights.safetensors.
      after_removal: for a learned inversion (`inference.learned.learned_inversion`).

    Raises:
      FileNotFoundError: if there are no weights.
      ValueError: if the file is no such file, or its card lacks something.
    """
    file, network, variables, card = read_network(path)
    if isinstance(network, Correction):
        try:
            unrolled = learned_inversion(network, variables, card, after_removal=after_removal)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return Network(str(card["name"]), unrolled, lambda _: [], card)
    return _of_one_grid(file, network, variables, card)


def _of_one_grid(file: Path, network: nn.Module, variables: dict[str, Any], card: dict[str, Any]) -> Network:
    """Make the inversion of a network that knows the grid and B0 of its training alone."""
    check_card(file, card)
    scaling = Scaling(**card["scaling"])
    stride = 2 ** int(getattr(network, "depth", 0))
    weights = jax.tree.map(jnp.asarray, variables)
    # the weights are an argument: as constants they would be copied into the compiled program
    compiled = jax.jit(lambda weights, field, mask: predict(network, weights, scaling, field, mask))

    def apply(field: ArrayLike, mask: ArrayLike) -> Array:
        try:
            return compiled(weights, field, mask)
        except flax.errors.FlaxError as error:
            raise ValueError(f"{file} must hold the weights of the network in its card: {str(error)[:200]}") from error

    def way(field_map: FieldMap) -> Regrid | None:
        return plan(field_map.mask, field_map.geometry, card["voxel_size"], card["b0_dir"])

    def on_grid(field: Array | np.ndarray, mask: Array | np.ndarray, tile: int | None, halo: int) -> Array:
        """Apply the network in the box of the mask; zero outside the box."""
        box, (x, y, z) = bounding_box(mask), field.shape
        part = (field[box], mask[box])
        on_host = lambda: tuple(np.asarray(volume) for volume in part)
        in_tiles = lambda edge: _in_tiles(apply, on_host(), tile=edge, halo=halo, stride=stride)
        return leave(jnp.asarray(whole_or_tiled(lambda: apply(*part), in_tiles, tile=tile)), box, (x, y, z))

    def invert(field_map: FieldMap, *, tile: int | None = None, halo: int = 32) -> Solution:
        """Apply a trained network, on the grid that it was trained for.

        On that grid it can be compiled, mapped and differentiated; a scan on another is brought there on the host.

        Args:
          field_map: local field.
          tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
          halo: overlap of the tiles [voxels].

        Raises:
          ValueError: if the mask is empty, or a scan that would have to be brought to the grid is traced.

        References:
          Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
        """
        route = way(field_map)
        if route is None:
            chi: ArrayLike = on_grid(field_map.field, field_map.mask, tile, halo)
        else:
            field, mask = route.to_network(field_map.field), route.mask_to_network(field_map.mask)
            chi = route.to_scan(on_grid(field, mask, tile, halo))
        return Solution(chi=jnp.where(field_map.mask, chi, 0))

    def describe(field_map: FieldMap) -> list[str]:
        route = way(field_map)
        if route is None:
            return []
        size = " x ".join(f"{d:g}" for d in card["voxel_size"])
        return [
            f"the field was resampled to the network's {size} mm and turned by {route.degrees:.1f} degrees to its B0, "
            "and the map brought back"
        ]

    return Network(name=str(card["name"]), invert=invert, describe=describe, card=card)


def _in_tiles(apply: Callable, volumes: tuple[np.ndarray, ...], *, tile: int, halo: int, stride: int) -> np.ndarray:
    """Apply a network in tiles, padded as it pads the whole: its poolings then fall on the same voxels."""
    before = [-n % stride // 2 for n in volumes[0].shape]
    padded = tuple(np.pad(volume, [(b, 0) for b in before]) for volume in volumes)
    made = apply_tiled(apply, padded, tile=tile, halo=halo, stride=stride)
    return made[tuple(slice(b, None) for b in before)]
