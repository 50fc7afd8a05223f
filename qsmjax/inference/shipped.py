"""The networks that come with qsmjax, and with them every inversion that a user can name.

Weights lie in the folder weights/, each file with its card. They and the networks' libraries are loaded when a network
is used, and not before.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qsmjax.inversion import METHODS
from qsmjax.inversion.solution import Solution
from qsmjax.physics.field_map import FieldMap

if TYPE_CHECKING:
    from qsmjax.inference.network import Network

FOLDER = Path(__file__).parents[1] / "weights"


def learned(field_map: FieldMap, *, tile: int | None = None, halo: int = 24) -> Solution:
    """Correct a total-variation map by a network that sees it beside the physics (learned).

    Args:
      field_map: local field, on any grid.
      tile: edge of overlapping tiles [voxels], for volumes that memory does not hold; None for the whole at once.
      halo: overlap of the tiles [voxels].

    References:
      Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the signal).
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
      Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (reweighting).
    """
    return load_shipped("learned")(field_map, tile=tile, halo=halo)


INVERSIONS: dict[str, Callable[..., Solution]] = {**METHODS, "learned": learned}
"""All inversions by name: the classical ones, and the networks that are shipped."""


def load_shipped(name: str) -> Callable[..., Solution]:
    """Load a network that is shipped, as an inversion: (FieldMap, *, options) -> Solution with chi and std.

    Raises:
      ValueError: if there is none of that name, or its file was changed.
    """
    return shipped_network(name).invert


@functools.cache
def shipped_network(name: str) -> "Network":
    """Load a network that is shipped, with its card; raises what `load_shipped` does."""
    from qsmjax.inference.network import load_network

    names = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    if not names:
        raise ValueError(f"{FOLDER} must hold the shipped weights, got none: install qsmjax anew, or say --method tv")
    if name not in names:
        raise ValueError(f"name must be one of {', '.join(names)}, got {name!r}")
    return load_network(FOLDER / f"{name}.safetensors")
