"""Draw the L-curve and the error curve of total variation over a sweep of weights: one vmapped call.

    python benchmarks/l_curve.py [--size 48] [--weights 9] [--output l_curve.png]

Prints weight, |W (D chi - f)|, |∇chi|₁ and NRMSE; the weight chosen from the noise is marked in the picture.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qsmjax.evaluation.metrics import nrmse
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.tv import solve_tv
from qsmjax.inversion.weighting import auto_weight
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import gradient
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.procedural import random_chi

NOISE = 0.0012


def main() -> None:
    """Sweep, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--weights", type=int, default=9)
    parser.add_argument("--output", default="l_curve.png")
    args = parser.parse_args()
    shape = (args.size,) * 3
    grid = geometry(shape)
    chi, mask = random_chi(jax.random.key(1), shape)
    truth = jnp.where(mask, chi, 0)
    field = forward_field(truth, grid) + NOISE * np.random.default_rng(0).normal(size=shape)
    field = jnp.where(mask, field, 0).astype(jnp.float32)
    chosen = float(auto_weight(jnp.float32(NOISE), field, mask, grid))
    weights = chosen * jnp.logspace(-1.5, 1.5, args.weights)
    kernel = inversion_kernel(grid)

    @jax.jit
    def sweep(weights):
        maps = jax.vmap(lambda weight: solve_tv(field, mask, grid, weight=weight).chi)(weights)
        misfit = [jnp.linalg.norm(jnp.where(mask, multiply_k(m, kernel) - field, 0)) for m in maps]
        variation = [jnp.sum(jnp.abs(gradient(m))) for m in maps]
        return jnp.stack(misfit), jnp.stack(variation), jnp.stack([nrmse(m, truth, mask) for m in maps])

    misfit, variation, error = (np.asarray(values) for values in sweep(weights))
    print("weight [ppm mm], misfit [ppm], variation [ppm], NRMSE [%]")
    for row in zip(np.asarray(weights), misfit, variation, error):
        print("{:.2e}  {:.4f}  {:9.2f}  {:6.2f}".format(*row))
    draw(np.asarray(weights), misfit, variation, error, chosen, args.output)


def draw(weights, misfit, variation, error, chosen: float, output: str) -> None:
    """Draw both curves side by side."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.loglog(misfit, variation, "o-")
    left.set(xlabel="misfit |W (D chi - f)| [ppm]", ylabel="variation |∇chi|₁ [ppm]", title="L-curve")
    right.semilogx(weights, error, "o-")
    right.axvline(chosen, color="black", linestyle="--", label="chosen from the noise")
    right.set(xlabel="weight [ppm mm]", ylabel="NRMSE [%]", title="error")
    right.legend()
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
