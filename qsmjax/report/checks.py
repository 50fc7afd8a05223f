"""What speaks against a map, a line each: what was found, what is usual, and what it may come from."""

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.evaluation import plausibility
from qsmjax.evaluation.guards import input_warnings
from qsmjax.physics.field_map import FieldMap, spans_head
from qsmjax.report import expected

EXPLAINED = 0.5
"""Part of the field's variance that a map explains at least; TV 0.98, TKD 0.9 and more on simulated heads."""


def map_warnings(
    local: FieldMap,
    chi: ArrayLike,
    *,
    total: FieldMap | None = None,
    labels: ArrayLike | None = None,
    one_step: bool = False,
) -> list[str]:
    """Hold a map and its field against what is usual.

    Args:
      local: the field that was inverted: a total one, where `one_step`.
      chi: the map as the inversion gave it [ppm], before a reference was subtracted.
      total: the total field, where its background was removed.
      labels: a segmentation in FreeSurfer's numbers, on the same grid.
      one_step: the map was made of the total field itself, and what it leaves of that is the background.

    Returns:
      The lines; units, sign, left background and filter are judged where the mask spans a head.
    """
    total, chi = local if one_step else total, np.asarray(chi)
    found = input_warnings(local, chi, total=one_step)
    contact = plausibility.border_contact(local.mask if total is None else total.mask)
    if contact > plausibility.BORDER_LIMIT:
        found.append(
            f"the mask touches the volume's border with {contact:.1%} of its rim: the field beyond is not known, and "
            "the map is wrong within a few voxels of it: take those voxels out of the mask, or scan a larger volume"
        )
    # phantoms and slabs are not judged by what is usual of heads
    if total is not None and spans_head(total):
        parts = total.field, total.mask, total.geometry
        part, low = plausibility.harmonic_part(*parts), plausibility.low_frequencies(*parts)
        if part < plausibility.HARMONIC_FLOOR and low < plausibility.LOW_FLOOR:
            found.append(
                f"the phase may be high-pass filtered: only {part:.0%} of the total field's variance comes from "
                f"outside the head (usual: above {plausibility.HARMONIC_FLOOR:.0%}), and it has {low:.1f} times the "
                f"density at low frequencies (above {plausibility.LOW_FLOOR:g}): export unfiltered phase"
            )
    contrast = None if labels is None else expected.deep_grey_contrast(chi, labels, local.mask)
    if contrast is not None and contrast < 0:
        found.append(
            f"the sign may be turned: deep grey matter lies {-contrast:.3f} ppm below white matter, and is above it in "
            "every adult: multiply the field by -1 if the scanner counts phase the other way round"
        )
    explained = 1.0 if one_step else plausibility.field_residual(local, chi).explained
    if explained < EXPLAINED:
        found.append(
            f"the map explains {explained:.0%} of the field's variance (usual: above {EXPLAINED:.0%}): noise, "
            "left background, or too strong a regularisation"
        )
    return found
