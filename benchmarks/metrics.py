"""Time every metric on a whole head (200x240x226), compiled and not, and compare with QSM-CI's scorer where installed.

Prints one line a metric: its value, the scorer's, and the relative difference. Run: `python benchmarks/metrics.py`.
"""

import time

import jax
import numpy as np

from qsmjax.evaluation.metrics import scores

SHAPE = (200, 240, 226)


def maps():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    mask = (grid**2).sum(0) < 0.6
    truth = np.where(mask, 0.05 * np.sin(20 * grid[0]) * np.cos(17 * grid[1] + 11 * grid[2]), 0)
    return (truth + 0.01 * rng.normal(size=SHAPE) + 0.02).astype(np.float32), truth.astype(np.float32), mask


def seconds(function, *arguments) -> tuple[float, dict]:
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start, result


def main() -> None:
    chi, truth, mask = maps()
    compiled = jax.jit(scores)
    for name, function in [("first", scores), ("again", scores), ("compiled", compiled), ("compiled again", compiled)]:
        taken, got = seconds(function, chi, truth, mask)
        print(f"{name:>15}: {taken:6.2f} s")
    try:
        from qsm_ci.qsm_eval import score_arrays
    except ImportError:
        expected = {}
    else:
        taken, (expected, _) = seconds(score_arrays, chi.astype(float), truth.astype(float), mask)
        print(f"{'QSM-CI':>15}: {taken:6.2f} s")
    for name, value in got.items():
        other = expected.get(name)
        print(f"{name:>15} {float(value):12.6f}" + (f" {other:12.6f} {abs(value / other - 1):9.1e}" if other else ""))


if __name__ == "__main__":
    main()
