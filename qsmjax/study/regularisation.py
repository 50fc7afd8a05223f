"""How a map varies over the head's orientation, and how far it is from the truth, as MEDI's weight grows.

The QSMnet paper explains the spread of MEDI over orientations by its regularisation; here it is a curve. One weight
serves all orientations: a multiple of the one that the noise of the first asks for.

    lambda = 1 / (2 weight r),    r radians per ppm: the toolbox's lambda (`inversion.medi`)
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from qsmjax.evaluation.metrics import nrmse
from qsmjax.inversion import medi
from qsmjax.io.nifti import load_volume
from qsmjax.io.sidecar import load_json, save_json
from qsmjax.pipeline import reference
from qsmjax.study.scans import HeadScan
from qsmjax.study.scores import region_values
from qsmjax.study.subject import REFERENCES, brought, spread_over

FACTORS = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Weights over the automatic one."""


def run_regularisation(place: Path, read: Callable[[], Sequence[HeadScan]], factors: Sequence[float] = FACTORS) -> None:
    """Run MEDI with every weight on all orientations of a subject and keep what came of it, unless it is kept.

    Args:
      place: the subject's folder among the maps.
      read: gives its orientations, the reference first; called only if something is left.
      factors: weights over the automatic one.
    """
    file = place / "regularisation.json"
    if file.is_file() and load_json(file).get("Factors") == list(factors):
        return
    scans = read()
    automatic = float(np.asarray(medi(scans[0].local).weight))
    rows = [_row(place, scans, automatic * factor) for factor in factors]
    save_json(file, {"Factors": list(factors), "Rows": rows})


def _row(place: Path, scans: Sequence[HeadScan], weight: float) -> dict[str, float]:
    """Tell what comes of a weight; what is not defined (no shared voxel, no shared region) is left out."""
    maps = [np.asarray(reference(medi(s.local, weight=weight).chi, s.local.mask, s.local.mask).chi) for s in scans]
    target = load_volume(place / scans[0].name / "mask.nii.gz")
    turned = [brought(m, s.mask, s.volume.affine, target, s.transform) for m, s in zip(maps, scans)]
    row = {"weight": weight}
    variation = spread_over(turned)
    if variation is not None:
        row["variation"] = variation
    if scans[0].local.radians_per_ppm is not None:
        row["lambda"] = 1 / (2 * weight * float(scans[0].local.radians_per_ppm))
    for name in REFERENCES:
        files = [place / s.name / f"{name}_Chimap.nii.gz" for s in scans]
        if all(f.is_file() for f in files):
            errors = [float(nrmse(m, load_volume(f).data, s.mask)) for m, f, s in zip(maps, files, scans)]
            row[f"nrmse_{name}"] = float(np.mean(errors))
    if all((place / s.name / "regions.nii.gz").is_file() for s in scans):
        each = [
            region_values(m, np.rint(load_volume(place / s.name / "regions.nii.gz").data).astype(np.int32), s.mask)
            for m, s in zip(maps, scans)
        ]
        shared = [name for name in each[0] if all(name in values for values in each)]
        if shared:
            over = [np.std([values[name][0] for values in each], ddof=1) for name in shared]
            row["region_variation"] = float(np.mean(over))
    return {name: value for name, value in row.items() if np.isfinite(value)}
