"""Print seconds of the inversions, and how far an iteration of each lies above the Fourier transforms that it contains.

    python benchmarks/inversion_speed.py [--shape 96 96 96] [--methods tkd tv nltv medi rts]
    python benchmarks/inversion_speed.py --bound [--shape 96 96 96] [--methods ...]

Bars at 200x240x226 on two cores: tv 25 s, nltv 60 s, medi 90 s; an iteration 2.5 times its transforms. For scale,
QSM.rs compiled to WebAssembly, one thread, at 96x96x96: tkd 0.15 s, tv 0.115 s and nltv 1.33 s an iteration, medi 18.5
s, rts 2.5 s. The head is an ellipsoid that fills 80 % of each axis, so that a frame of its own is transformed; seconds
include no compilation, and are the least of --repeats runs. With --bound an iteration is the slope between two counts,
measured in turns with the pair of transforms (the faster of jax and scipy.fft) at the frame's size, the least of each.
For one thread: taskset -c 0 with
XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1".
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from timing import best

from qsmjax import load
from qsmjax.inversion import METHODS
from qsmjax.inversion.frame import MARGIN
from qsmjax.numerics.box import bounding_box, frame_shape
from qsmjax.numerics.kspace import irfft3, rfft3
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry

NOISE = 0.0012
COUNTS = (3, 9)
PAIRS = {
    "tv": 2,
    "nltv": 2,
    "l1": 2,
    "hd": 2,
    "tgv": 5,
    "nltgv": 5,
    "medi": 2,
    "wh": 3,
    "ndi": 2,
    "rts": 1,
    "ilsqr": 2,
    "tfi": 8,
    "tgv_onestep": 11,
}
"""FFT pairs that an iteration holds."""


def main() -> None:
    """Time each method, or its iteration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 96, 96))
    parser.add_argument("--methods", nargs="+", choices=(*METHODS, "learned"))
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--repeats", type=int, default=4)
    args = parser.parse_args()
    scan = head(tuple(args.shape))
    if args.bound:
        print_bound(scan, args.methods or list(PAIRS), args.repeats)
        return
    print(jax.devices()[0].device_kind)
    for name in args.methods or ["tkd", "tv", "nltv", "medi", "rts"]:
        invert = load("learned") if name == "learned" else METHODS[name]
        solution, least = invert(scan), np.inf
        for _ in range(args.repeats):
            start = time.perf_counter()
            jax.block_until_ready(invert(scan).chi)
            least = min(least, time.perf_counter() - start)
        seconds, count = least, int(solution.iterations)
        each = f", {count} iterations, {seconds / count:.3f} s each" if count else ""
        print(f"{name:6} {seconds:7.2f} s{each}", flush=True)


def head(shape: tuple[int, int, int]) -> FieldMap:
    """Make blocks of random chi in an ellipsoid, and their noisy field."""
    rng = np.random.default_rng(0)
    at = np.meshgrid(*[np.linspace(-1.25, 1.25, n) for n in shape], indexing="ij", sparse=True)
    mask = sum(a**2 for a in at) < 1
    blocks = rng.normal(scale=0.04, size=[-(-n // 8) for n in shape])
    chi = np.kron(blocks, np.ones((8, 8, 8)))[: shape[0], : shape[1], : shape[2]] * mask
    grid = geometry(shape)
    field = forward_field(chi, grid) + NOISE * rng.normal(size=shape)
    return field_map(field, mask, grid, noise=NOISE, magnitude=mask * (1 + chi), radians_per_ppm=16.0)


def print_bound(scan: FieldMap, methods: list[str], repeats: int) -> None:
    """Print the time of an iteration over that of its transforms."""
    shape = frame_shape(bounding_box(scan.mask), MARGIN, scan.geometry.voxel_size)
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    there_and_back = jax.jit(lambda values: irfft3(rfft3(values), shape))
    array = jnp.asarray(volume)

    def run(name: str, count: int) -> None:
        jax.block_until_ready(METHODS[name](scan, max_iterations=count, tolerance=None).chi)

    print(f"frame {shape}; bar: 2.5 times the transforms")
    for name in methods:
        tasks = {
            "scipy": lambda: scipy.fft.irfftn(scipy.fft.rfftn(volume, workers=-1), shape, workers=-1),
            "jax": lambda: jax.block_until_ready(there_and_back(array)),
            "few": lambda name=name: run(name, COUNTS[0]),
            "more": lambda name=name: run(name, COUNTS[1]),
        }
        least = {name: wall for name, (wall, _) in best(tasks, repeats).items()}
        pair = min(least["scipy"], least["jax"])
        iteration = (least["more"] - least["few"]) / (COUNTS[1] - COUNTS[0])
        print(
            f"{name:6} {iteration:.4f} s an iteration, pair {pair:.4f} s: "
            f"{iteration / pair / PAIRS[name]:.2f} times its {PAIRS[name]} pairs",
            flush=True,
        )


if __name__ == "__main__":
    main()
