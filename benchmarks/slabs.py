"""Print how near a slab's map comes to the truth, by how many slices it has.

    python benchmarks/slabs.py [--slices 8 16 32 64] [--methods tv learned]

Balls of either sign in a cylinder 80 mm wide, in voxels of 1 x 1 x 2 mm, B0 turned by 17 degrees; the field is made
with the space of four slabs empty about it, noise 1 ppb. A line has the NRMSE [%] of the methods as they are, and of
total variation in frames that leave a part of the box's own edge free along each axis: as much as of a head, and all.
"""

import argparse

import jax
import numpy as np

from qsmjax.evaluation.metrics import nrmse
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion.frame import MARGIN
from qsmjax.inversion.tv import solve_tv
from qsmjax.numerics.box import bounding_box, enter, leave
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry

SIZE, B0_DIR, NOISE = (1.0, 1.0, 2.0), (0.3, 0.0, 0.95), 1e-3


def main() -> None:
    """Print a line a slab."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--methods", nargs="+", choices=INVERSIONS, default=["tv", "learned"])
    args = parser.parse_args()
    for slices in args.slices:
        chi, scan = slab(slices)
        mask = np.asarray(scan.mask)
        truth = np.where(mask, chi - chi[mask].mean(), 0)
        error = lambda chi, mask=mask, truth=truth: float(nrmse(np.where(mask, chi - chi[mask].mean(), 0), truth, mask))
        told = [f"{name} {error(np.asarray(INVERSIONS[name](scan).chi)):.1f}" for name in args.methods]
        for part in (MARGIN, 1.0):
            told.append(f"tv with a margin of {part:g} {error(framed(scan, part)):.1f}")
        print(f"{slices} slices: {', '.join(told)}", flush=True)


def slab(slices: int) -> tuple[np.ndarray, FieldMap]:
    """Return the truth and the scan of a slab."""
    shape, rng = (96, 96, slices), np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, SIZE)], indexing="ij"))
    mask = np.hypot(at[0], at[1]) < 40
    mask[..., [0, -1]] = False
    chi = np.zeros(shape, np.float32)
    for _ in range(60):
        centre = rng.uniform(-1, 1, 3) * (35, 35, slices - 3)
        chi[np.linalg.norm(at - centre.reshape(3, 1, 1, 1), axis=0) < rng.uniform(2, 6)] = rng.uniform(-0.1, 0.1)
    chi *= mask
    field = np.asarray(forward_field(chi, geometry(shape, SIZE, B0_DIR), padding=4.0)) + NOISE * rng.normal(size=shape)
    return chi, field_map(field, mask, geometry(shape, SIZE, B0_DIR), noise=NOISE)


def framed(scan: FieldMap, part: float) -> np.ndarray:
    """Return the map of total variation in a frame that leaves a part of the mask's box free along each axis."""
    box = bounding_box(scan.mask)
    x, y, z = (round((1 + part) * (axis.stop - axis.start)) for axis in box)
    field, mask = (enter(volume, box, (x, y, z)) for volume in (scan.field, scan.mask))
    solution = jax.jit(solve_tv)(field, mask, geometry((x, y, z), SIZE, B0_DIR), noise=NOISE)
    return np.asarray(leave(solution.chi, box, scan.geometry.shape))


if __name__ == "__main__":
    main()
