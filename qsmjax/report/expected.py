"""What a map of a healthy adult is like, by regions and by its histogram; and how a map compares.

Differences between tissues are compared, since susceptibility has no zero of its own. The ranges are wide on purpose:
they tell mistakes (sign, units, scale, a wrong segmentation), not patients from controls.

Regions: the simulator's adult tissues (`simulate.tissue`, with its references), their difference to white matter plus
or minus three standard deviations between subjects, the smaller end down to 60 % for what regularisation takes.
Percentiles: those of the true maps and TV's of simulated heads, divided and multiplied by 2
(`benchmarks/plausibility.py`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from qsmjax.simulate.tissue import FREESURFER, TISSUES

REGIONS: tuple[str, ...] = (
    "white",
    "callosum",
    "cortex",
    "thalamus",
    "caudate",
    "putamen",
    "pallidum",
    "accumbens",
    "hippocampus",
)
REGIONS += ("amygdala", "brainstem", "ventricle", "cerebellar_white", "cerebellar_cortex")
KEPT = 0.6
"""Part of a contrast that a regularised map keeps at least."""
DEEP_GREY = ("caudate", "putamen", "pallidum")
FEWEST = 10
"""Voxels below which a region is not judged."""

PERCENTILES = (1, 5, 25, 75, 95, 99)
SPREAD = {
    1: (-0.136, -0.020),
    5: (-0.114, -0.015),
    25: (-0.058, -0.007),
    75: (0.006, 0.037),
    95: (0.014, 0.075),
    99: (0.032, 0.146),
}
"""Percentile of a map within its mask, less the median [ppm]."""


def region_rows(chi: ArrayLike, labels: ArrayLike, mask: ArrayLike) -> list[dict[str, object]]:
    """Describe the regions of a segmentation, each beside what is expected.

    Args:
      chi: [ppm].
      labels: FreeSurfer's numbers, on the same grid.
      mask: where chi is known.

    Returns:
      One row a region that is there: "region", "voxels", "mean", "std" [ppm], "less white matter", "expected" and
      "verdict" ("" where nothing can be said, "as expected", "low" or "high").
    """
    values, numbers = np.asarray(chi, np.float64), np.where(np.asarray(mask) != 0, np.asarray(labels), 0)
    inside = {name: values[np.isin(numbers, FREESURFER[name])] for name in REGIONS}
    white = inside["white"]
    rows = []
    for name, found in inside.items():
        if not found.size:
            continue
        row: dict[str, object] = {"region": name.replace("_", " "), "voxels": int(found.size)}
        row |= {"mean": float(found.mean()), "std": float(found.std())}
        if white.size >= FEWEST and name != "white":
            low, high = expected_contrast(name)
            contrast = float(found.mean() - white.mean())
            row |= {"less white matter": contrast, "expected": f"{low:.3f} to {high:.3f}"}
            row["verdict"] = _verdict(contrast, low, high) if found.size >= FEWEST else ""
        rows.append(row)
    return rows


def expected_contrast(name: str) -> tuple[float, float]:
    """Return the least and the largest expected difference of a tissue to white matter [ppm]."""
    tissue, white = TISSUES[name], TISSUES["white"]
    contrast = tissue.chi - white.chi
    spread = 3 * float(np.hypot(tissue.spread, white.spread))
    ends = sorted((KEPT * contrast, contrast))
    return ends[0] - spread, ends[1] + spread


def deep_grey_contrast(chi: ArrayLike, labels: ArrayLike, mask: ArrayLike) -> float | None:
    """Return the mean of caudate, putamen and pallidum less that of white matter [ppm]; None without either.

    It is positive in every adult: these nuclei hold iron, white matter myelin.
    """
    inside, numbers, values = np.asarray(mask) != 0, np.asarray(labels), np.asarray(chi, np.float64)
    grey = inside & np.isin(numbers, [n for name in DEEP_GREY for n in FREESURFER[name]])
    white = inside & np.isin(numbers, FREESURFER["white"])
    if min(grey.sum(), white.sum()) < FEWEST:
        return None
    return float(values[grey].mean() - values[white].mean())


def percentile_rows(
    chi: ArrayLike, mask: ArrayLike, spread: Mapping[int, Sequence[float]] = SPREAD
) -> list[dict[str, object]]:
    """Describe a map's histogram, each percentile less the median beside what is expected.

    Args:
      chi: [ppm].
      mask: where it is known.
      spread: lowest and highest expected value of each percentile [ppm].
    """
    values = np.asarray(chi, np.float64)[np.asarray(mask) != 0]
    middle = float(np.median(values))
    rows = []
    for percent, (low, high) in spread.items():
        found = float(np.percentile(values, percent))
        row = {"percentile": f"{percent} %", "chi": found, "less the median": found - middle}
        rows.append(row | {"expected": f"{low:.3f} to {high:.3f}", "verdict": _verdict(found - middle, low, high)})
    return rows


def _verdict(found: float, low: float, high: float) -> str:
    return "as expected" if low <= found <= high else "low" if found < low else "high"
