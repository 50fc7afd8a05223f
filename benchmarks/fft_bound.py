"""Print how far TKD and one iteration of TV lie above the Fourier transforms that they contain.

The bound is one rfftn + irfftn pair of the faster of jax and scipy.fft (all cores) at the next fast size. An iteration
of TV holds two pairs; its time is the slope between two counts of iterations, so that set-up is left out. Everything is
measured in turns and the least of each is taken, so that other work on the machine disturbs all alike.

    python benchmarks/fft_bound.py [--shape 200 240 226] [--repeats 5]
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from timing import best

from qsmjax.inversion.direct import solve_tkd
from qsmjax.inversion.tv import solve_tv
from qsmjax.numerics.kspace import fast_shape, irfft3, rfft3
from qsmjax.physics.geometry import geometry

COUNTS = (2, 8)


def main() -> None:
    """Measure in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 240, 226))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    shape = fast_shape(tuple(args.shape))
    grid = geometry(shape, (1, 1, 1), (0.1, 0.2, 0.97))
    rng = np.random.default_rng(0)
    volume = rng.normal(size=shape).astype(np.float32)
    field, mask = jnp.asarray(volume), jnp.asarray(_ellipsoid(shape))

    tasks: dict[str, Callable[[], object]] = {
        "scipy pair": lambda: scipy.fft.irfftn(scipy.fft.rfftn(volume, workers=-1), shape, workers=-1),
        "jax pair": _ready(lambda a: irfft3(rfft3(a), shape), field),
        "tkd": _ready(lambda f, m, g: solve_tkd(f, m, g).chi, field, mask, grid),
    }
    for count in COUNTS:
        tasks[f"tv {count}"] = _ready(
            lambda f, m, g, n=count: solve_tv(f, m, g, weight=1e-4, max_iterations=n, tolerance=None).chi,
            field,
            mask,
            grid,
        )
    seconds = {name: wall for name, (wall, _) in best(tasks, args.repeats).items()}
    pair = min(seconds["scipy pair"], seconds["jax pair"])
    iteration = (seconds[f"tv {COUNTS[1]}"] - seconds[f"tv {COUNTS[0]}"]) / (COUNTS[1] - COUNTS[0])
    print(f"shape {tuple(args.shape)}, transformed at {shape}")
    print(f"rfftn + irfftn: jax {seconds['jax pair']:.3f} s, scipy {seconds['scipy pair']:.3f} s")
    print(f"tkd, whole:     {seconds['tkd']:.3f} s = {seconds['tkd'] / pair:.2f} pairs (bar: 3)")
    print(f"tv, iteration:  {iteration:.3f} s = {iteration / (2 * pair):.2f} times its two pairs (bar: 2)")


def _ready(function: Callable, *args: object) -> Callable[[], object]:
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    return lambda: jax.block_until_ready(compiled(*args))


def _ellipsoid(shape: tuple[int, int, int]) -> np.ndarray:
    at = np.meshgrid(*[np.linspace(-1.2, 1.2, n) for n in shape], indexing="ij", sparse=True)
    return sum(a**2 for a in at) < 1


if __name__ == "__main__":
    main()
