"""Hold the noise that is read off a field against the noise that is in it.

    python benchmarks/noise_level.py BANK [--cache CACHE]

BANK is the folder of simulated sources that `train.py --config learned` makes. Of each a scan is drawn; those that come
without their noise map are passed over. A line a range of noise, for whole heads and for boxes: how many scans, the
median and the quartiles of the estimate over the map's harmonic mean, and the same over the map's median, which it
should be. With CACHE the heads of `benchmarks/heads.py` that are kept there too, at their noise times 0.5, 1 and 4.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from heads import CASES
from kept_heads import KeptHead

from qsmjax.inversion.frame import in_frame
from qsmjax.inversion.solution import Solution
from qsmjax.inversion.weighting import noise_level
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.training.bank import load_source
from qsmjax.training.scans import draw_scan

RANGES = (0.0, 0.4, 1.0, np.inf)
"""Of the map's harmonic mean [ppb]."""
QUARTILES = (0.5, 0.25, 0.75)


def main() -> None:
    """Print a line a range of noise, and a line a head and noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    found = [(whole, *levels(scan)) for whole, scan in told(args.bank)]
    whole, off, mean, median = (np.array(column) for column in zip(*found, strict=True))
    print("scans              estimate over harmonic mean   over median")
    for low, high in itertools.pairwise(RANGES):
        for kind, chosen in (("heads", whole), ("boxes", ~whole)):
            rows = chosen & (mean >= low) & (mean < high)
            if rows.any():
                ratios = f"{summary(off / mean, rows)}   {summary(off / median, rows)}"
                print(f"{kind} {low:g}-{high:g} ppb {rows.sum():4}   {ratios}")
    rows = np.ones_like(whole)
    print(f"all {len(found):15}   {summary(off / mean, rows)}   {summary(off / median, rows)}", flush=True)
    for path in sorted(args.cache.glob("*.npz")) if args.cache else ():
        name = path.stem.rsplit("-", 2)[0]
        if name not in CASES:
            continue
        with np.load(path, allow_pickle=False) as stored:
            head = KeptHead(name, dict(stored))
        for factor in (0.5, 1.0, 4.0):
            off, mean, median = levels(head.noisy(factor))
            print(f"{path.stem:16} x{factor:<4g} {mean:.3f} ppb   {off / mean:.2f}   {off / median:.2f}", flush=True)


def told(bank: Path) -> Iterator[tuple[bool, FieldMap]]:
    """Read the scans whose noise is told, and whether each is of a whole head."""
    for number, path in enumerate(sorted(bank.glob("*.npz"))):
        example = draw_scan(np.random.default_rng(number), load_source(path))
        if example.noise.any():
            where = geometry(example.mask.shape, example.voxel_size, example.b0_dir)
            yield path.stem.endswith("_0"), field_map(example.field, example.mask, where, noise=example.noise)


def levels(scan: FieldMap) -> tuple[float, float, float]:
    """Return the noise off the field, the map's harmonic mean and its median [ppb]."""
    noise = np.asarray(scan.noise)[np.asarray(scan.mask)]
    told_level = noise_level(scan.field, scan.mask, scan.geometry, scan.noise)
    return 1e3 * float(in_frame(_off, scan).residual), 1e3 * float(told_level), 1e3 * float(np.median(noise))


def summary(ratio: np.ndarray, rows: np.ndarray) -> str:
    """Give the median and the quartiles."""
    return "{:.2f} ({:.2f}-{:.2f})".format(*np.quantile(ratio[rows], QUARTILES))


def _off(field: jax.Array, mask: jax.Array, where) -> Solution:
    """Read the level off the field in the frame in which a method does."""
    level = noise_level(field, mask, where)
    return Solution(chi=field, std=None, iterations=0, residual=level, weight=None)


if __name__ == "__main__":
    main()
