"""Print how well each method removes the background of a whole head, from the true total field.

    python benchmarks/field.py LABELS.nii.gz [MORE ..] --cache CACHE [--methods joint ismv] [--voxel 1 1 1] [--tilt 0]
                               [--noise 0.001] [--again] [--figure OUT.png] [--set ismv.radius=4]
                               [--grid 200 240 226]

LABELS are whole-head label maps (FreeSurfer and SynthSeg numbers: brain, bone, soft tissue, air; 1 mm). The head is
scanned by `qsmjax.simulate.scan`, sampled below the voxels, with veins and texture; bone, air, neck and a shim's
residue make the background, which is harmonic in the brain. It is kept in CACHE as .npz.

One line a method: NRMSE and xSIM of the local field on the method's own mask, the part of the brain's mask that it
keeps, and the time, by the clock and of the processors (of a second run with --again, so that compiling is done); then
NRMSE and xSIM on the mask common to all. `tfi` keeps the whole mask and tells how noisy each voxel is: a second line is
of the least noisy. --grid fills up with zeros. Bars: best default NRMSE <= 17 %, xSIM >= 0.955, kept >= 85 %; V-SHARP
NRMSE <= 29 %, 8 s at 200x240x226.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.simulate import read_head
from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.pipeline import BACKGROUNDS as METHODS
from qsmjax.report.figures import three_plane
from qsmjax.simulate.scan import grid_around, scan

SURE = 0.85
"""Part of the mask that the bar asks to be kept."""


@dataclasses.dataclass(frozen=True)
class Head:
    """A total field and the local field that is in it [ppm]."""

    total: FieldMap
    local: np.ndarray
    affine: np.ndarray


def simulate(path: Path, voxel: tuple[float, ...], tilt: float, noise: float, cache: Path, shape) -> Head:
    """Scan a head, or read the scan that was kept, and draw the noise of its total field; zeros fill up the grid."""
    size = "x".join(f"{d:g}" for d in voxel)
    kept = cache / f"field-{path.name.split('.')[0]}-{size}-{tilt:g}.npz"
    if not kept.exists():
        head = read_head(jax.random.key(7), path)
        grid = grid_around(head, voxel, tilt=np.radians(tilt))
        made = scan(jax.random.key(8), head, grid, te=(0.006, 0.012), background=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, total=made.total, local=made.clean, mask=made.mask, affine=grid.affine)
    with np.load(kept, allow_pickle=False) as stored:
        total, local, mask, affine = (stored[name] for name in ("total", "local", "mask", "affine"))
    total, local, mask = (np.pad(a, [(0, max(n - m, 0)) for n, m in zip(shape, a.shape)]) for a in (total, local, mask))
    total = total + noise * np.random.default_rng(0).normal(size=total.shape).astype(np.float32)
    return Head(field_map(total - total[mask].mean(), mask, geometry_from_affine(affine, mask.shape)), local, affine)


def seconds(name: str, total: FieldMap, options: dict) -> tuple[str, FieldMap]:
    """Run a method and time it."""
    start, work = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(METHODS[name](total, **options))
    return f"{time.perf_counter() - start:.1f} s, {time.process_time() - work:.1f} s of the processors", result


def main() -> None:
    """Print a table a head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--voxel", type=float, nargs=3, default=(1.0, 1.0, 1.0), help="[mm]")
    parser.add_argument("--tilt", type=float, default=0.0, help="of the grid [degrees]")
    parser.add_argument("--noise", type=float, default=0.0, help="of the total field [ppm]")
    parser.add_argument("--grid", type=int, nargs=3, default=(1, 1, 1), help="least number of voxels along each axis")
    parser.add_argument("--figure", help="PNG of the truth and the results of the first head")
    parser.add_argument("--again", action="store_true", help="run each method twice and time the second run")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.KEY=VALUE")
    args = parser.parse_args()
    for number, path in enumerate(args.labels):
        head = simulate(path, tuple(args.voxel), args.tilt, args.noise, args.cache, args.grid)
        brain, results = np.asarray(head.total.mask), {}
        spread = [float(np.std(v[brain])) for v in (np.asarray(head.total.field), head.local)]
        print(
            f"{path}: {brain.shape}, {brain.sum()} voxels, total {spread[0]:.4f}, local {spread[1]:.4f} ppm", flush=True
        )
        for name in args.methods:
            own = [pair.partition(".")[2] for pair in args.set if pair.startswith(f"{name}.")]
            options = parse_settings(own, options_of(METHODS[name]), name)
            taken, results[name] = seconds(name, head.total, options)
            if args.again:
                taken, _ = seconds(name, head.total, options)
            own = results[name].mask
            error, likeness = (float(m(results[name].field, head.local, own)) for m in (nrmse, xsim))
            kept = float(own.sum() / brain.sum())
            print(
                f"{name:>8}: NRMSE {error:6.1f} %, xSIM {likeness:.3f}, keeps {100 * kept:5.1f} %, {taken}",
                flush=True,
            )
            if name == "tfi":
                told = np.asarray(results[name].noise)
                sure = brain & (told <= np.quantile(told[brain], SURE))
                error, likeness = (float(m(results[name].field, head.local, sure)) for m in (nrmse, xsim))
                print(
                    f"          NRMSE {error:6.1f} %, xSIM {likeness:.3f}, where its noise is least, {100 * SURE:.0f} %"
                )
        common = jnp.stack([result.mask for result in results.values()]).all(0)
        print(f"on the {100 * float(common.sum() / brain.sum()):.1f} % common to all:")
        for name, result in results.items():
            error, likeness = (float(m(result.field, head.local, common)) for m in (nrmse, xsim))
            print(f"{name:>8}: NRMSE {error:6.1f} %, xSIM {likeness:.3f}")
        if args.figure and number == 0:
            rows = {"true local field": head.local, **{name: result.field for name, result in results.items()}}
            windows = [(-0.05, 0.05)] * len(rows)
            three_plane(rows, args.figure, affine=head.affine, mask=brain, window=windows)


if __name__ == "__main__":
    main()
