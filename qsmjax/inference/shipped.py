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


def learned(
    field_map: FieldMap, *, residue: bool = True, bootstrap: bool = True, tile: int | None = None, halo: int = 24
) -> Solution:
    """Correct a total-variation map by a network that sees it beside the physics (learned).

    Args:
      field_map: local field, on any grid.
      residue: whether to look for background that is left in the field, and go on with `tfi` and learned_total.
      bootstrap: whether to rehearse for the deviation's level, which takes a quarter as long again.
      tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
      halo: overlap of the tiles [voxels].

    References:
      Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the signal).
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
      Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (reweighting).
    """
    return load_shipped("learned")(field_map, residue=residue, bootstrap=bootstrap, tile=tile, halo=halo)


def learned_total(field_map: FieldMap, *, bootstrap: bool = True, tile: int | None = None, halo: int = 24) -> Solution:
    """Correct a total-variation map of what the default removal left, by a network that has seen such (learned_total).

    Args:
      field_map: local field that `tfi` made of a total one, on any grid.
      bootstrap: whether to rehearse for the deviation's level, which takes a quarter as long again.
      tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
      halo: overlap of the tiles [voxels].

    References:
      Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the signal).
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030 (learning to invert the dipole).
      Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (reweighting).
    """
    return load_shipped("learned_total")(field_map, bootstrap=bootstrap, tile=tile, halo=halo)


def qsmnet(field_map: FieldMap, *, tile: int | None = None, halo: int = 32) -> Solution:
    """Map the field by a QSMnet narrower than the paper's; scans are resampled to 1 mm and turned to B0 (qsmnet).

    Args:
      field_map: local field.
      tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
      halo: overlap of the tiles [voxels].

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
    """
    return load_shipped("qsmnet")(field_map, tile=tile, halo=halo)


def qsmnet_plus(field_map: FieldMap, *, tile: int | None = None, halo: int = 32) -> Solution:
    """Map the field by the same network, trained on susceptibility scaled up to fourfold and negated (qsmnet_plus).

    Args:
      field_map: local field.
      tile: edge of overlapping tiles [voxels]; None for the whole at once, if memory holds it.
      halo: overlap of the tiles [voxels].

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
      Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619 (the wider range).
    """
    return load_shipped("qsmnet_plus")(field_map, tile=tile, halo=halo)


NETWORKS: dict[str, Callable[..., Solution]] = {
    "learned": learned,
    "learned_total": learned_total,
    "qsmnet": qsmnet,
    "qsmnet_plus": qsmnet_plus,
}
"""The networks that are shipped, by the names of their files."""

INVERSIONS: dict[str, Callable[..., Solution]] = {**METHODS, **NETWORKS}
"""All inversions by name: the classical ones, and the networks that are shipped."""


def load_shipped(name: str) -> Callable[..., Solution]:
    """Load a network that is shipped, as an inversion: (FieldMap, *, options) -> Solution; with a std from learned.

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
    after = {"after_removal": learned_total} if name == "learned" else {}
    return load_network(FOLDER / f"{name}.safetensors", **after)
