"""What an estimate would reach that knows the anatomy and its susceptibility, and has but the tissues' grain to find.

    python benchmarks/oracle.py LABELS_DIR --cache CACHE [--cases axial oblique 1x1x2 7T] [--numbers 11 12]
                                [--noise 1 4] [--voxel 1.6]

The heads are those of `benchmarks/heads.py`, kept in CACHE. Their susceptibility is what each tissue has, veins and
lesions, plus a Gaussian grain t whose spectrum P and whose standard deviation s(r) in each tissue are known here. Given
all that but t, the best estimate is linear,

    argmin ‖W (D s F⁻¹ P^½ F u - field of s t - noise)‖² + ‖u‖²,    its map the truth - s t + s F⁻¹ P^½ F u

so that no inversion, which must find the tissues too, can have less error on average (but for what the spectrum here,
a Gaussian's read by lines, is off the grain's own). A line a scan: NRMSE, xSIM, HFEN
and deep grey's NRMSE of that map, of the learned inversion's, and of the truth without its grain.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from heads import CASES, LESIONS
from inversions import errors
from kept_heads import KeptHead, head_arguments, kept_head

from qsmjax.cli.simulate import read_head
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.solution import Solution
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.numerics.kspace import frequencies, multiply_k
from qsmjax.numerics.resample import ROLLOFF, resample_k
from qsmjax.numerics.solvers import cg_steps
from qsmjax.physics.field_map import FieldMap
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import FINE, Grid, grid_around, refine

GRAIN = ((0.7, 0.5), (1.5, 0.6), (4.0, 0.6), (10.0, 0.5))
"""Standard deviations of the Gaussians that the grain is made by [mm], and its weights (`simulate.anatomy`)."""
MARGIN, STEPS = 0.3, 150
COLUMNS = ("nrmse", "xsim", "hfen", "nrmse_dgm")


def main() -> None:
    """Print a line a scan."""
    parser = head_arguments(__doc__, noise=(1.0, 4.0))
    parser.add_argument("--voxel", type=float, default=1.6)
    args = parser.parse_args()
    for case in args.cases:
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=args.voxel)
        number = args.numbers[list(CASES).index(case) % len(args.numbers)]
        grain, size = (volume * head.mask for volume in grain_of(args.labels_dir, case, number, head.voxel_size))
        for level in args.noise:
            scan = head.noisy(level)
            maps = {
                "oracle": head.chi - grain + found(head, scan, level, grain, np.maximum(size, 0)),
                "learned": INVERSIONS["learned"](scan).chi,
                "without grain": head.chi - grain,
            }
            for name, chi in maps.items():
                figures = errors(Solution(chi=jnp.asarray(chi)), head, head.mask)
                said = " / ".join(f"{figures[key]:.{3 if key == 'xsim' else 2}f}" for key in COLUMNS)
                print(f"{case:7} noise x{level:g} {name:13} {said}", flush=True)


def grain_of(labels_dir: Path, case: str, number: int, voxel_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a head's grain, and its standard deviation at each place [ppm]."""
    key = jax.random.fold_in(jax.random.key(2025), number)
    head = read_head(key, labels_dir / f"head_{number:02d}.nii.gz", lesions=LESIONS, age=50.0)
    x, y, z = (float(edge) for edge in voxel_size)
    grid = grid_around(head, (x, y, z), tilt=np.radians(CASES[case].tilt))
    # veins and lesions have none
    tissues = tuple(tissue._replace(chi=0.0) for tissue in head.tissues)
    alone = dataclasses.replace(head, tissues=tissues, balls=head.balls._replace(chi=0 * head.balls.chi))
    return _cut(alone, grid), _cut(dataclasses.replace(alone, texture=np.ones_like(head.texture)), grid)


def _cut(head: Anatomy, grid: Grid) -> np.ndarray:
    """Sample a head as `simulate.scan` does."""
    size = np.linalg.norm(grid.affine[:3, :3], axis=0)
    fine = refine(grid, [max(2, int(np.ceil(d / FINE))) for d in size])
    parts = sample(head, fine.shape, fine.affine, everything=False)
    return np.asarray(resample_k(parts.chi * parts.brain, grid.shape))


def found(head: KeptHead, scan: FieldMap, level: float, grain: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the grain [ppm] that the field tells of, once all else is known."""
    box = bounding_box(scan.mask)
    shape = frame_shape(box, MARGIN, scan.geometry.voxel_size)
    framed = lambda volume: enter(jnp.asarray(volume * head.mask, jnp.float32), box, shape)
    dipole = inversion_kernel(dataclasses.replace(scan.geometry, shape=shape))
    field = multiply_k(framed(grain), dipole) + framed(np.asarray(scan.field) - head.arrays["clean"])
    trust = framed(1 / np.maximum(level * head.arrays["std"], 1e-6))
    root = jnp.sqrt(spectrum(shape, head.voxel_size))
    return np.asarray(leave(_solve(field, trust, framed(size), root, dipole), box, head.chi.shape)) * head.mask


@jax.jit
def _solve(field, trust, size, root, dipole):
    makes = lambda u: multiply_k(size * multiply_k(u, root), dipole)
    back = lambda v: multiply_k(size * multiply_k(v, dipole), root)
    solved = cg_steps(lambda u: back(trust**2 * makes(u)) + u, back(trust**2 * field), max_iterations=STEPS)
    return size * multiply_k(solved.state, root)


def spectrum(shape: tuple[int, int, int], voxel_size: np.ndarray) -> jax.Array:
    """Return the grain's spectrum on a grid: Gaussians read between label voxels of 1 mm, cut to the band."""
    k = frequencies(shape, voxel_size)
    squared, total = sum(f**2 for f in k), sum(weight**2 for _, weight in GRAIN)
    density = sum(
        weight**2 / total * jnp.exp(-4 * jnp.pi**2 * width**2 * squared) * (2 * jnp.sqrt(jnp.pi) * width) ** 3
        for width, weight in GRAIN
    )
    for f, edge in zip(k, voxel_size):
        fall = jnp.clip((jnp.abs(f) * 2 * edge - (1 - ROLLOFF)) / ROLLOFF, 0, 1)
        density = density * jnp.sinc(f) ** 4 * (0.5 + 0.5 * jnp.cos(jnp.pi * fall)) ** 2
    return density / jnp.prod(jnp.asarray(voxel_size))


if __name__ == "__main__":
    main()
