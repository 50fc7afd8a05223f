"""Time the forms of the 3-D convolution on this machine's CPU, beside PyTorch's.

    python benchmarks/convolution.py [--kernel 5] [--shapes 2x64x8x8 2x32x32x32 ...]

For each shape (batch x edge x channels in x channels out): milliseconds of wall time and GFLOP per second of
processor time, for the convolution and for its gradient with respect to the kernel. Processor time, of all threads
together, is what other programs on the machine disturb least; each figure is the best of the repetitions, taken in
turn.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from timing import best

from qsmjax.models import convolution

SHAPES = ["2x64x1x8", "2x64x8x8", "2x64x16x8", "2x32x32x32", "2x16x64x64", "2x8x128x128"]


def main() -> None:
    """Print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--native", action="store_true", help="XLA's own 3-D convolution too: slow")
    args = parser.parse_args()
    for shape in args.shapes:
        n, edge, channels, out = map(int, shape.split("x"))
        flop = 2 * n * edge**3 * channels * out * args.kernel**3
        print(f"{n} x {edge}^3, {channels} -> {out} channels, kernel {args.kernel}: {flop / 1e9:.1f} GFLOP")
        for name, (wall, cpu) in best(forms(n, edge, channels, out, args), args.repeat).items():
            print(f"  {name:28s} {1e3 * wall:9.1f} ms {flop / cpu / 1e9:8.1f} GFLOP/s a core")


def forms(n: int, edge: int, channels: int, out: int, args: argparse.Namespace) -> dict:
    """Return a call of each form under its name."""
    keys = jax.random.split(jax.random.key(0), 3)
    size = (args.kernel,) * 3
    maps = jax.random.normal(keys[0], (n, edge, edge, edge, channels))
    weights = jax.random.normal(keys[1], (*size, channels, out)) / np.sqrt(channels * args.kernel**3)
    cotangent = jax.random.normal(keys[2], (*maps.shape[:4], out))

    def call(function, *arrays):
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arrays))

    named = {"planes": convolution.convolve_planes, "taps": convolution.convolve_taps}
    if args.native:
        named["native"] = convolution.convolve_native
    calls = {f"convolution, {name}": call(function, maps, weights) for name, function in named.items()}
    through = lambda function: lambda m, c: jax.vjp(lambda w: function(m, w), jnp.zeros_like(weights))[1](c)
    calls["weights, planes"] = call(lambda m, c: convolution.weight_gradient_planes(m, c, size), maps, cotangent)
    calls["weights, taps by autodiff"] = call(through(convolution.convolve_taps), maps, cotangent)
    return calls | torch_forms(maps, weights, cotangent)


def torch_forms(maps, weights, cotangent) -> dict:
    """Return PyTorch's calls on the same arrays, where it is installed."""
    try:
        import torch
    except ImportError:
        return {}
    tensor = lambda array: torch.tensor(np.moveaxis(np.asarray(array), -1, 1).copy())
    t_maps, t_cotangent = tensor(maps), tensor(cotangent)
    t_weights = torch.tensor(np.transpose(np.asarray(weights), (4, 3, 0, 1, 2)).copy())
    pad = weights.shape[0] // 2
    return {
        "convolution, PyTorch": lambda: torch.nn.functional.conv3d(t_maps, t_weights, padding=pad),
        "weights, PyTorch": lambda: torch.nn.grad.conv3d_weight(t_maps, t_weights.shape, t_cotangent, padding=pad),
    }


if __name__ == "__main__":
    main()
