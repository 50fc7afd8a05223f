"""Print what a constant in the local field does to a method's map.

    python benchmarks/constant.py LABELS_DIR --cache CACHE [--methods tv] [--constants 0 0.0005 0.003] [--numbers 11 12]

The heads are those of `benchmarks/heads.py` at 1.6 times the voxels, kept in CACHE. A line a head and method says the
field's mean over its standard deviation, and the map's NRMSE [%] with each constant [ppm] all over the field.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from heads import FOUR
from kept_heads import kept_head

from qsmjax.evaluation.metrics import nrmse
from qsmjax.inference.shipped import INVERSIONS


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels_dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=INVERSIONS, default=["tv"])
    parser.add_argument("--constants", nargs="+", type=float, default=[0.0, 0.0005, 0.003])
    parser.add_argument("--numbers", type=int, nargs="+", default=(11, 12), help="of the anatomies")
    args = parser.parse_args()
    for case in FOUR:
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=1.6)
        scan = head.noisy(1.0)
        inside = np.asarray(scan.field)[head.mask]
        for name in args.methods:
            lifted = [scan.replace(field=scan.field + c * jnp.asarray(head.mask)) for c in args.constants]
            errors = [float(nrmse(INVERSIONS[name](field_map).chi, head.chi, head.mask)) for field_map in lifted]
            told = ", ".join(f"{error:.2f}" for error in errors)
            print(f"{case:7} {name}: mean {inside.mean() / inside.std():+.3f}, NRMSE {told}", flush=True)


if __name__ == "__main__":
    main()
