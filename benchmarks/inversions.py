"""Print the error of every inversion at its default and at its best weight, on drawn heads whose truth is known.

    python benchmarks/inversions.py [--size 64] [--methods tv medi] [--noise 0.5 1 4] [--sweep] [--cosmos]

The four heads are drawn by `simulate.procedural.random_chi` (axial, 25 degrees oblique, 1x1x2 mm, and the axial head at
half the noise, which is what 7 T brings); they have no magnitude, so that MEDI has no free edges here. Noise of 1 is
0.0012 ppm. With --sweep, methods that have an automatic weight are run at multiples of it, and the gap between the
default and the best is printed (bar: 10 %). Seconds include no compilation; peak memory is the process's so far.
"""

import argparse
import inspect
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.evaluation.metrics import hfen, nrmse, nrmse_detrend, xsim
from qsmjax.inversion import METHODS, cosmos
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.procedural import random_chi

NOISE = 0.0012
TILT = (0.0, 0.4226, 0.9063)
HEADS = {
    "axial": ((1, 1, 1), (0, 0, 1), 1.0),
    "oblique": ((1, 1, 1), TILT, 1.0),
    "1x1x2": ((1, 1, 2), (0, 0, 1), 1.3),
    "7 T": ((1, 1, 1), (0, 0, 1), 0.5),
}
MULTIPLES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
COSMOS_TILTS = ((0, 0, 1), (0.5, 0, 0.866), (-0.5, 0, 0.866), (0, 0.5, 0.866), (0, -0.5, 0.866))


def main() -> None:
    """Print one table a head and a noise level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--heads", nargs="+", default=list(HEADS))
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0])
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--cosmos", action="store_true")
    args = parser.parse_args()
    for index, name in enumerate(args.heads):
        for level in args.noise:
            scan, truth = draw_head(index, args.size, name, level)
            print(
                f"{name}, noise x{level:g}: NRMSE, detrended NRMSE, HFEN [%], xSIM, iterations, s, peak GB", flush=True
            )
            for method in args.methods:
                print_method(method, scan, truth, args.sweep)
        if args.cosmos:
            print_cosmos(index, args.size, name)


def draw_head(index: int, size: int, name: str, level: float, b0_dir=None) -> tuple[FieldMap, jax.Array]:
    """Draw a head, its field in free space, and the noise on it."""
    voxel_size, direction, factor = HEADS[name]
    shape = tuple(round(size / d) // 2 * 2 for d in voxel_size)
    grid = geometry(shape, voxel_size, direction if b0_dir is None else b0_dir)
    chi, mask = jax.jit(random_chi, static_argnums=1)(
        jax.random.key(1000 + index), shape, jnp.asarray(voxel_size, float)
    )
    chi = jnp.where(mask, chi, 0)
    noise = NOISE * factor * level
    field = forward_field(chi, grid) + noise * np.random.default_rng(index).normal(size=shape)
    return field_map(field, mask, grid, noise=noise), chi


def print_method(name: str, scan: FieldMap, truth: jax.Array, sweep: bool) -> None:
    """Run one method at its default, then, where it has an automatic weight, at multiples of it."""
    method = METHODS[name]
    jax.block_until_ready(method(scan).chi)
    start = time.perf_counter()
    solution = method(scan)
    jax.block_until_ready(solution.chi)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = [float(metric(solution.chi, truth, scan.mask)) for metric in (nrmse, nrmse_detrend, hfen, xsim)]
    mark = "" if bool(solution.converged) else "  not converged"
    print(
        f"  {name:9} {figures[0]:6.2f} {figures[1]:6.2f} {figures[2]:6.2f} {figures[3]:6.3f} "
        f"{int(solution.iterations):4d} {seconds:7.2f} {peak:5.2f}{mark}",
        flush=True,
    )
    automatic = inspect.signature(method).parameters.get("weight")
    if sweep and automatic is not None and automatic.default is None and solution.weight is not None:
        weights = [float(solution.weight) * multiple for multiple in MULTIPLES]
        errors = [float(nrmse(method(scan, weight=weight).chi, truth, scan.mask)) for weight in weights]
        best = int(np.argmin(errors))
        gap = figures[0] / errors[best] - 1
        print(f"    best {errors[best]:.2f} at {MULTIPLES[best]:g} times the default weight: default {gap:+.1%}")


def print_cosmos(index: int, size: int, name: str) -> None:
    """Run COSMOS on five orientations within 30 degrees, beside TKD on the first."""
    scans = [draw_head(index, size, name, 1.0, direction) for direction in COSMOS_TILTS]
    maps, truth = [scan for scan, _ in scans], scans[0][1]
    start = time.perf_counter()
    solution = cosmos(maps)
    error = float(nrmse(solution.chi, truth, maps[0].mask))
    alone = float(nrmse(METHODS["tkd"](maps[0]).chi, truth, maps[0].mask))
    print(
        f"  cosmos {error:.2f} (condition {float(solution.condition):.1f}, {int(solution.iterations)} iterations, "
        f"{time.perf_counter() - start:.1f} s), tkd {alone:.2f}: ratio {error / alone:.2f} (bar: 0.33)"
    )


if __name__ == "__main__":
    main()
