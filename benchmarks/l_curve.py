"""Draw the L-curve and the error curve of a method over a sweep of weights: one vmapped call.

    python benchmarks/l_curve.py [--method tv] [--size 48] [--weights 9] [--output l_curve.png]

Prints weight, |D chi - f|, |∇chi|₁ and NRMSE; the default (of most, the one that the noise asks for) is marked.
"""

import argparse
import inspect

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from qsmjax.evaluation.metrics import nrmse
from qsmjax.inversion import METHODS
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import gradient
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.procedural import random_chi

NOISE = 0.0012
WEIGHTED = [name for name, method in METHODS.items() if "weight" in inspect.signature(method).parameters]


def main() -> None:
    """Sweep, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=WEIGHTED, default="tv")
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
    scan = field_map(field, mask, grid, noise=NOISE, magnitude=mask * (1 + truth))
    method = METHODS[args.method]
    default = inspect.signature(method).parameters["weight"].default
    chosen = float(method(scan).weight if default is None else default)
    weights = chosen * jnp.logspace(-1.5, 1.5, args.weights)
    kernel = inversion_kernel(grid)

    @jax.jit
    def sweep(weights):
        maps = jax.vmap(lambda weight: method(scan, weight=weight).chi)(weights)
        misfit = [jnp.linalg.norm(jnp.where(mask, multiply_k(m, kernel) - field, 0)) for m in maps]
        variation = [jnp.sum(jnp.abs(gradient(m))) for m in maps]
        return jnp.stack(misfit), jnp.stack(variation), jnp.stack([nrmse(m, truth, mask) for m in maps])

    misfit, variation, error = (np.asarray(values) for values in sweep(weights))
    print("weight [ppm mm], misfit [ppm], variation [ppm], NRMSE [%]")
    for row in zip(np.asarray(weights), misfit, variation, error):
        print("{:.2e}  {:.4f}  {:9.2f}  {:6.2f}".format(*row))
    draw(args.method, np.asarray(weights), misfit, variation, error, chosen, args.output)


def draw(name: str, weights, misfit, variation, error, chosen: float, output: str) -> None:
    """Draw both curves side by side."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.loglog(misfit, variation, "o-")
    left.set(xlabel="misfit |D chi - f| [ppm]", ylabel="variation |∇chi|₁ [ppm]", title=f"L-curve of {name}")
    right.semilogx(weights, error, "o-")
    right.axvline(chosen, color="black", linestyle="--", label="default")
    right.set(xlabel="weight [ppm mm]", ylabel="NRMSE [%]", title="error")
    right.legend()
    figure.savefig(output, dpi=120)


if __name__ == "__main__":
    main()
