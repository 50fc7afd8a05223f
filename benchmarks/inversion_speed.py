"""Print seconds of the methods that have a bar, and of each iteration, at a size given.

    python benchmarks/inversion_speed.py [--shape 96 96 96] [--methods tkd tv nltv medi rts]

Bars at 200x240x226 on two cores: tv 25 s, nltv 60 s, medi 90 s. For scale, QSM.rs compiled to WebAssembly, one thread,
at 96x96x96: tkd 0.15 s, tv 0.115 s and nltv 1.33 s an iteration, medi 18.5 s, rts 2.5 s. The head is an ellipsoid that
fills 80 % of each axis; seconds include no compilation. For one thread: taskset -c 0.
"""

import argparse
import time

import jax
import numpy as np

from qsmjax.inversion import METHODS
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

NOISE = 0.0012


def main() -> None:
    """Time each method twice and print the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 96, 96))
    parser.add_argument("--methods", nargs="+", default=["tkd", "tv", "nltv", "medi", "rts"])
    args = parser.parse_args()
    shape = tuple(args.shape)
    rng = np.random.default_rng(0)
    at = np.meshgrid(*[np.linspace(-1.25, 1.25, n) for n in shape], indexing="ij", sparse=True)
    mask = sum(a**2 for a in at) < 1
    blocks = rng.normal(scale=0.04, size=[-(-n // 8) for n in shape])
    chi = np.kron(blocks, np.ones((8, 8, 8)))[: shape[0], : shape[1], : shape[2]] * mask
    grid = geometry(shape)
    field = forward_field(chi, grid) + NOISE * rng.normal(size=shape)
    scan = field_map(field, mask, grid, noise=NOISE, magnitude=mask * (1 + chi), radians_per_ppm=16.0)
    for name in args.methods:
        jax.block_until_ready(METHODS[name](scan).chi)
        start = time.perf_counter()
        solution = METHODS[name](scan)
        jax.block_until_ready(solution.chi)
        seconds, count = time.perf_counter() - start, int(solution.iterations)
        each = f", {count} iterations, {seconds / count:.3f} s each" if count else ""
        print(f"{name:6} {seconds:7.2f} s{each}", flush=True)


if __name__ == "__main__":
    main()
