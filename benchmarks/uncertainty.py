"""Whether the learned inversion's standard deviation holds: at its noise and at twice it, in lesions and elsewhere.

    python benchmarks/uncertainty.py LABELS                      heads 13 and 14, which judge; some minutes
    python benchmarks/uncertainty.py LABELS --heads 11 12 --weights FILE

Four scans, as `benchmarks/heads.py` makes them (axial, oblique, 1x1x2 mm, 7 T), here with 6 microbleeds, 6 plaques, 2
calcifications and a haemorrhage each. For each noise it prints the part of the voxels whose truth lies within one and
within 1.96 predicted deviations (68 and 95 % are meant), and the error's deviation over the predicted one, by region
over all four scans and by scan; the mean over the mask is taken off each map's error first, as susceptibility has no
zero. In lesions: within a ball that was painted; around them: up to 3 mm from it.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
from heads import CASES, DEEP_GREY, FOUR, Case

from qsmjax.cli.simulate import LESIONS, read_head
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.physics.field_map import FieldMap
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.lesions import PARTS
from qsmjax.simulate.scan import Grid, Scan, grid_around, scan

AROUND = 3.0
"""Width of the rim about lesions that is looked at apart [mm]."""


def main() -> None:
    """Print a table a noise level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--weights", type=Path, default=FOLDER / "learned.safetensors")
    parser.add_argument("--heads", type=int, nargs="+", default=(13, 14), help="anatomies that take turns")
    parser.add_argument("--noise", type=float, nargs="+", default=(1.0, 2.0), help="times the scan's own")
    parser.add_argument("--voxel", type=float, default=1.6, help="times the scan's voxel size")
    args = parser.parse_args()
    learned = load_network(args.weights).invert
    found: dict[float, dict[str, list[np.ndarray]]] = {level: {} for level in args.noise}
    for index, name in enumerate(FOUR):
        made, regions = lesioned(args.labels, args.heads[index % len(args.heads)], CASES[name], args.voxel)
        for level in args.noise:
            solution = learned(noisy(made, level))
            error = (np.asarray(solution.chi) - made.chi)[made.mask]
            pairs = np.stack([error - error.mean(), np.asarray(solution.std)[made.mask]])
            for region, where in {**regions, name: made.mask}.items():
                found[level].setdefault(region, []).append(pairs[:, where[made.mask]])
    for level, table in found.items():
        print(f"noise x{level:g}: voxels, within 1 and 1.96 std [%], error over std")
        for region, parts in table.items():
            error, std = np.concatenate(parts, 1)
            off = np.abs(error) / std
            ratio = np.sqrt(np.mean(error**2) / np.mean(std**2))
            within = [100 * np.mean(off < limit) for limit in (1, 1.96)]
            print(f"  {region:14} {error.size:8d} {within[0]:6.1f} {within[1]:6.1f} {ratio:6.2f}")


def lesioned(labels: Path, number: int, case: Case, voxel: float) -> tuple[Scan, dict[str, np.ndarray]]:
    """Scan a head with many lesions; return the scan, and where its regions are."""
    key = jax.random.fold_in(jax.random.key(2026), number)
    head = read_head(key, labels / f"head_{number:02d}.nii.gz", lesions=LESIONS["many"], age=50.0)
    grid = grid_around(head, [voxel * d for d in case.voxel_size], tilt=np.radians(case.tilt))
    made = scan(key, head, grid, b0=case.b0, te=case.te, snr=case.snr)
    away = distance_to_lesions(head, grid)
    nuclei = np.isin(made.classes, [head.names.index(name) for name in DEEP_GREY])
    regions = {"all": made.mask, "in lesions": away < 0, "around them": (away >= 0) & (away < AROUND)}
    far = away >= AROUND
    regions |= {"deep grey": far & nuclei, "veins": far & (made.classes == head.names.index("vein"))}
    regions["the rest"] = ~np.logical_or.reduce([where for name, where in regions.items() if name != "all"])
    return made, {name: where & made.mask for name, where in regions.items()}


def distance_to_lesions(head: Anatomy, grid: Grid) -> np.ndarray:
    """Return how far each voxel's centre lies from the next lesion's surface [mm], less than zero inside."""
    count = sum(PARTS[lesion.kind] for lesion in LESIONS["many"])
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    # the last that were painted
    balls = zip(head.balls.centre[-count:], head.balls.radius[-count:])
    return np.min([np.linalg.norm(world - centre, axis=-1) - radius for centre, radius in balls], axis=0)


def noisy(made: Scan, level: float) -> FieldMap:
    """Draw noise of `level` times the scan's on its local field."""
    noise = level * np.asarray(made.local.noise)
    drawn = made.clean + noise * np.random.default_rng(0).normal(size=noise.shape)
    return dataclasses.replace(made.local, field=np.where(made.mask, drawn, 0).astype(np.float32), noise=noise)


if __name__ == "__main__":
    main()
