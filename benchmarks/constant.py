"""Print what a constant in the local field does to a method's map.

    python benchmarks/constant.py LABELS_DIR --cache CACHE [--methods tv] [--constants 0 0.0005 0.003] [--numbers 11 12]
    python benchmarks/constant.py LABELS_DIR --means [--numbers 1 2 3]

The heads are those of `benchmarks/heads.py` at 1.6 times the voxels, kept in CACHE. A line a head and method says the
field's mean over its standard deviation, and the map's NRMSE [%] with each constant [ppm] all over the field.

--means: that mean alone, without noise, of each head at 2.5 mm, every other one at 25 degrees: how large it is where
there is no constant.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from heads import FOUR
from kept_heads import kept_head

from qsmjax.cli.simulate import read_head
from qsmjax.evaluation.metrics import nrmse
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.simulate.scan import grid_around, scan


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels_dir", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("heads"))
    parser.add_argument("--means", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=INVERSIONS, default=["tv"])
    parser.add_argument("--constants", nargs="+", type=float, default=[0.0, 0.0005, 0.003])
    parser.add_argument("--numbers", type=int, nargs="+", default=(11, 12), help="of the anatomies")
    args = parser.parse_args()
    if args.means:
        print_means(args.labels_dir, args.numbers)
        return
    for case in FOUR:
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=1.6)
        noisy = head.noisy(1.0)
        inside = np.asarray(noisy.field)[head.mask]
        for name in args.methods:
            lifted = [noisy.replace(field=noisy.field + c * jnp.asarray(head.mask)) for c in args.constants]
            errors = [float(nrmse(INVERSIONS[name](field_map).chi, head.chi, head.mask)) for field_map in lifted]
            told = ", ".join(f"{error:.2f}" for error in errors)
            print(f"{case:7} {name}: mean {inside.mean() / inside.std():+.3f}, NRMSE {told}", flush=True)


def print_means(labels_dir: Path, numbers: Sequence[int]) -> None:
    """Print the mean of each head's local field over its standard deviation."""
    for number in numbers:
        key = jax.random.fold_in(jax.random.key(5), number)
        head = read_head(key, labels_dir / f"head_{number:02d}.nii.gz")
        grid = grid_around(head, (2.5, 2.5, 2.5), tilt=np.radians(0 if number % 2 else 25))
        made = scan(key, head, grid, fine_voxel=1.25)
        inside = made.clean[made.mask]
        print(f"head {number:02d}: {inside.mean() / inside.std():+.3f}", flush=True)


if __name__ == "__main__":
    main()
