"""Print what the default background removal leaves, and what maps it gives, beside `joint`: noise and magnitude known.

    python benchmarks/background_to_map.py LABELS_DIR --cache CACHE [--cases axial oblique] [--voxel 1]
                                           [--methods learned tv]

The heads are those of `benchmarks/heads.py` with the field of air, bone and neck, kept in CACHE. A line a removal:
NRMSE and xSIM of the local field beside the true one with the same noise, on its own mask, on `joint`'s, and in the 85
and 90 % of the brain whose noise it says is least; there `tfi`'s error by depth from the rim, too. Then NRMSE and xSIM
of the maps, on the removal's own mask and on `joint`'s, beside those from the true local field, and how many voxels lie
within the deviation that a map tells; `learned` looks for what the removal left.
"""

import argparse
import itertools
import time
from pathlib import Path

import jax
import numpy as np
from heads import CASES
from kept_heads import KeptHead, kept_head
from scipy.ndimage import distance_transform_edt

from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion.solution import Solution
from qsmjax.pipeline import BACKGROUNDS

REMOVALS = ("tfi", "joint")
DEPTHS = (0, 2, 4, 6, 10, 99)
"""Limits of the layers that the error is told in [mm]."""


def main() -> None:
    """Print a table a head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels_dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["axial", "oblique"])
    parser.add_argument("--methods", nargs="+", choices=INVERSIONS, default=["learned_total", "learned", "tv"])
    parser.add_argument("--voxel", type=float, default=1.0)
    args = parser.parse_args()
    for case in args.cases:
        head = kept_head(args.labels_dir, case, args.cache, voxel=args.voxel)
        scan = head.noisy(1)
        total, brain, true = scan.replace(field=scan.field + head.arrays["outside"]), head.mask, np.asarray(scan.field)
        fields = {"true": scan}
        for name in REMOVALS:
            begun = time.perf_counter()
            fields[name] = jax.block_until_ready(BACKGROUNDS[name](total))
            print(f"{case}, {name}: {time.perf_counter() - begun:.1f} s with compilation")
        fewest = np.asarray(fields["joint"].mask)
        for name in REMOVALS:
            noise, own = np.asarray(fields[name].noise), np.asarray(fields[name].mask)
            sure = {f"least noise, {part}": brain & (noise <= np.quantile(noise[brain], part)) for part in (0.85, 0.9)}
            for what, mask in {"own mask": own, "joint's": fewest, **(sure if name == "tfi" else {})}.items():
                kept, found = np.sum(mask) / brain.sum(), held(fields[name].field, true, mask)
                print(f"  {name:6} field, {what:18} {kept:.3f}: {found}")
            if name == "tfi":
                print(f"  tfi    field, least noise, 0.85, off by: {by_depth(fields[name].field - true, sure, head)}")
        for name, field in fields.items():
            for method in args.methods:
                made, own = INVERSIONS[method](field), np.asarray(field.mask)
                maps = [(less_mean(made.chi, where), less_mean(head.chi, where), where) for where in (own, fewest)]
                figures = "own mask {}, joint's {}".format(*[held(*parts) for parts in maps])
                print(f"  {name:6} {method:13} {figures}{within(made, head.chi, own)}", flush=True)


def less_mean(chi, mask: np.ndarray) -> np.ndarray:
    """Reference a map to its mean over a mask: it is known up to a constant, and xSIM is not."""
    return np.where(mask, chi - np.mean(np.asarray(chi)[mask]), 0)


def within(made: Solution, truth: np.ndarray, mask: np.ndarray) -> str:
    """Return the part of the voxels whose truth lies within one and within 1.96 predicted deviations, if there are."""
    if made.std is None:
        return ""
    error, std = (np.asarray(made.chi) - truth)[mask], np.asarray(made.std)[mask]
    error = np.abs(error - error.mean())
    return f", within one deviation {100 * np.mean(error < std):.0f} %, 1.96: {100 * np.mean(error < 1.96 * std):.0f} %"


def by_depth(error, sure: dict[str, np.ndarray], head: KeptHead) -> str:
    """Return the root mean square in layers below the rim."""
    depth, where = distance_transform_edt(head.mask, sampling=head.voxel_size), sure["least noise, 0.85"]
    error = 1000 * np.asarray(error - error[where].mean())
    layers = [(low, high, where & (depth > low) & (depth <= high)) for low, high in itertools.pairwise(DEPTHS)]
    return ", ".join(f"{low}-{high} mm {np.sqrt(np.mean(error[at] ** 2)):.2f} ppb" for low, high, at in layers)


def held(volume, truth: np.ndarray, mask: np.ndarray) -> str:
    """Return NRMSE and xSIM on a mask."""
    parts = np.where(mask, np.asarray(volume), 0), np.where(mask, truth, 0), mask
    return f"{float(nrmse(*parts)):5.1f} % / {float(xsim(*parts)):.3f}"


if __name__ == "__main__":
    main()
