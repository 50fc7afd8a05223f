"""Print how fast heads are drawn, the share of a QSMnet step that they take, and how strong their fields are.

    python benchmarks/simulate.py [--size 128] [--repeats 5] [--step SECONDS] [--no-step]

Heads per second at SIZE^3 and at 64^3 (susceptibility, and with rotation, dipole and noise too), compiled and timed by
the median. The share is of one training step of QSMnet (full width, 64^3, batch 2) without its data, which is timed
unless --step gives its seconds. Then the mean and range, over 12 heads without lesions, of the local field's std inside
the mask at 1 mm. Goal: share under 15 %, std 0.008-0.015 ppm.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.augment import augment
from qsmjax.simulate.procedural import random_chi


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--step", type=float, help="seconds of a training step, batch 2")
    parser.add_argument("--no-step", action="store_true")
    args = parser.parse_args()
    print(f"{jax.devices()[0].platform}, {jax.device_count()} device(s)")
    both = 0.0
    for size in dict.fromkeys((args.size, 64)):
        shape = (size,) * 3
        draw = jax.jit(lambda key, shape=shape: random_chi(key, shape))
        bare = timed(draw, args.repeats)
        both = timed(jax.jit(lambda key, shape=shape: sample(key, shape)), args.repeats)
        print(
            f"{size}^3: {1 / bare:.1f} heads/s ({bare:.3f} s); with rotation, field and noise {both:.3f} s", flush=True
        )
    if not args.no_step:
        step = args.step or step_seconds()
        share = 100 * 2 * both / (step + 2 * both)
        print(f"QSMnet step, 64^3, batch 2: {step:.2f} s; making its data {2 * both:.3f} s, {share:.1f} % of both")
    print_strength()


def sample(key, shape):
    """Make one training sample."""
    drawing, key = jax.random.split(key)
    return augment(key, *random_chi(drawing, shape), noise=(0.0005, 0.002))


def timed(function, repeats: int) -> float:
    """Return the median time of one call, compiled before."""
    jax.block_until_ready(function(jax.random.key(0)))
    times = []
    for seed in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(jax.random.key(seed)))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def step_seconds() -> float:
    """Time the gradient of a full QSMnet's L1 loss: the greater part of its training step."""
    from qsmjax.models.qsmnet import QSMnet

    model = QSMnet()
    field = jnp.zeros((2, 64, 64, 64, 1))
    variables = jax.jit(model.init)(jax.random.key(0), field)

    def loss(params, field):
        rest = {name: value for name, value in variables.items() if name != "params"}
        out = model.apply({"params": params, **rest}, field, mutable=list(rest))[0]
        return jnp.mean(jnp.abs(out - field))

    gradient = jax.jit(jax.grad(loss))
    jax.block_until_ready(gradient(variables["params"], field))
    start = time.perf_counter()
    jax.block_until_ready(gradient(variables["params"], field))
    return time.perf_counter() - start


def print_strength() -> None:
    """Print the local field's std over the mask, of heads without lesions at 1 mm."""
    shape = (96,) * 3

    def strength(key):
        chi, mask = random_chi(key, shape, lesions=0.0)
        field = forward_field(chi, geometry(shape))
        count = jnp.sum(mask)
        mean = jnp.sum(field * mask) / count
        return jnp.sqrt(jnp.sum(mask * (field - mean) ** 2) / count), jnp.sqrt(jnp.sum(mask * chi**2) / count)

    values = np.asarray([jax.device_get(jax.jit(strength)(jax.random.key(seed))) for seed in range(12)])
    for name, column in zip(("local field", "chi"), values.T):
        print(f"{name}: std {column.mean():.4f} ppm, {column.min():.4f} to {column.max():.4f} over 12 heads")


if __name__ == "__main__":
    main()
