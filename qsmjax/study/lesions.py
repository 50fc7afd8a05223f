"""What becomes of lesions: the contrast that each method recovers, and the moment of calcifications.

    slope of the line through (true mean, found mean) over all lesions of a kind;  moment = sum of chi over the lesion

Means are taken over the lesion's voxels less the mean of the rim of 2 voxels around it, so that a method's zero and
slow shading do not count.

References:
  Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619 (QSMnet+: haemorrhages and
  calcifications).
"""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage

from qsmjax.evaluation.calcification import calcification_error
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.pipeline import in_world_axes, reference
from qsmjax.study.cohort import KINDS
from qsmjax.study.scans import HeadScan, Method

RIM = 2
"""Voxels around a lesion whose mean is its zero."""
LEAST = 3
"""Voxels that a lesion must have to be measured."""


def run_lesions(place: Path, scan: HeadScan, lesions: np.ndarray, method: Method) -> None:
    """Run a method on a scan with lesions, measure them and keep the figures, unless they are kept.

    Args:
      place: folder of the figures.
      scan: with its truth.
      lesions: as `cohort.lesion_map` numbers them.
      method: what to run.
    """
    file = place / f"{method.label}.json"
    if file.is_file() and load_json(file).get("Fingerprint") == method.fingerprint:
        return
    solution = in_world_axes(method.invert, scan.local, scan.volume.affine, **method.options)
    chi = np.asarray(reference(solution.chi, scan.local.mask, scan.local.mask).chi)
    truth = np.zeros_like(chi) if scan.truth is None else scan.truth
    place.mkdir(parents=True, exist_ok=True)
    save_json(file, {"Fingerprint": method.fingerprint, **measure(chi, truth, lesions, scan.mask)})


def measure(chi: np.ndarray, truth: np.ndarray, lesions: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Measure every lesion of a map.

    Returns:
      "Lesions": for each its kind, voxels, true and found contrast [ppm] and moment [ppm · voxels]; "Calcification":
      the 2.0 challenge's moment error and streaks, where there is one.
    """
    found = []
    for code in (int(n) for n in np.unique(lesions) if n > 0):
        inside = lesions == code
        if inside.sum() < LEAST:
            continue
        rim = scipy.ndimage.binary_dilation(inside, iterations=RIM) & ~inside & (lesions == 0) & mask
        contrast = [float(v[inside].mean() - v[rim].mean()) for v in (truth, chi)]
        kind, voxels = KINDS[code // 10 - 1], int(inside.sum())
        moments = [c * voxels for c in contrast]
        found.append({"Kind": kind, "Voxels": voxels, "True": contrast[0], "Found": contrast[1], "Moments": moments})
    result: dict[str, Any] = {"Lesions": found}
    calcified = (lesions // 10) == KINDS.index("calcification") + 1
    if calcified.any():
        error = calcification_error(chi, truth, calcified)
        known = {"MomentError": float(error.moment), "Streaks": float(error.streak)}
        result["Calcification"] = {name: value for name, value in known.items() if np.isfinite(value)}
    return result
