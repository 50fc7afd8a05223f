"""The noun of a study: one orientation of one subject, with all that is known of it."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

from qsmjax.inversion.solution import Solution
from qsmjax.io.nifti import NiftiVolume
from qsmjax.physics.field_map import FieldMap

REGIONS: dict[str, tuple[str, ...]] = {
    "caudate": ("caudate",),
    "putamen": ("putamen",),
    "pallidum": ("pallidum",),
    "thalamus": ("thalamus",),
    "red nucleus": ("red_nucleus",),
    "substantia nigra": ("substantia_nigra",),
    "dentate": ("dentate",),
    "internal capsule": ("internal_capsule",),
    "white matter": ("white", "callosum", "cerebellar_white"),
    "grey matter": ("cortex", "cerebellar_cortex"),
}
"""Regions of the study, and the tissues of a label map that each is made of."""
DEEP_GREY = ("caudate", "putamen", "pallidum", "red nucleus", "substantia nigra", "dentate")


@dataclasses.dataclass(frozen=True)
class HeadScan:
    """One orientation of a subject.

    Attributes:
      name: of the orientation.
      local: local field, on the scan's own grid.
      volume: whose geometry the maps take.
      transform: 4x4, the reference orientation's world to this one's [mm].
      truth: [ppm], where known.
      regions: number of each voxel's region, 0 for none, where known.
      removal: of the background, that left the local field; None where the local field was given.
      correlation: that the registration reached; None where it was given or not needed.
    """

    name: str
    local: FieldMap
    volume: NiftiVolume
    transform: Float[np.ndarray, "4 4"]
    truth: Float[np.ndarray, "x y z"] | None = None
    regions: Int32[np.ndarray, "x y z"] | None = None
    removal: str | None = None
    correlation: float | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "x y z"]:
        """The head."""
        return np.asarray(self.local.mask)


class Method(NamedTuple):
    """A method of the study.

    Attributes:
      label: as it stands in the tables.
      name: of the inversion.
      invert: (FieldMap, *, options) -> Solution, classical or learned.
      options: set by the user.
      origin: what tells it from another method under the same label: its name, or the hash of its weights.
      behind: what stands for it on what a removal of the background left, for removals that it has other weights for.
    """

    label: str
    name: str
    invert: Callable[..., Solution]
    options: Mapping[str, Any]
    origin: str
    behind: Mapping[str, "Method"] = MappingProxyType({})

    @property
    def fingerprint(self) -> str:
        """What a kept map must have been made by."""
        return f"{self.origin} {sorted((key, repr(value)) for key, value in self.options.items())}"


def number_regions(segmentation: np.ndarray, table: Mapping[str, tuple[int, ...]]) -> Int32[np.ndarray, "x y z"]:
    """Give every voxel the number of its region, counted from 1 in the order of `REGIONS`; 0 for none.

    Args:
      segmentation: whole numbers.
      table: the numbers of each tissue, as `simulate.tissue.FREESURFER`.
    """
    regions = np.zeros(segmentation.shape, np.int32)
    for number, tissues in enumerate(REGIONS.values(), 1):
        values = [value for tissue in tissues for value in table.get(tissue, ())]
        regions[np.isin(segmentation, values)] = number
    return regions
