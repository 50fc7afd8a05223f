"""Time a training step of QSMnet beside the same network in PyTorch, on this machine's CPU or GPU, in turn.

    python benchmarks/training.py [--width 32] [--patch 64] [--batch 2] [--repeat 3] [--dtype float32]

A step is forward, L1 loss, gradient and Adam, on one batch that does not change. Prints seconds of wall and of
processor time of both (the best of the repetitions), and PyTorch's over ours: above 1, ours is the faster. Processor
time is the one that other programs on the machine disturb least. A step that makes its own data is timed last. Without
PyTorch ours is timed alone.
"""

import argparse
import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import best

from qsmjax.models.build import build
from qsmjax.training.config import with_settings
from qsmjax.training.presets import preset
from qsmjax.training.state import init_state
from qsmjax.training.step import train_step


def main() -> None:
    """Print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the arithmetic of both")
    parser.add_argument("--no-data", action="store_true", help="leave out the step that makes its data")
    args = parser.parse_args()
    names = ("width", "depth", "kernel", "patch", "batch", "dtype")
    config = with_settings(preset("qsmnet"), [f"{name}={getattr(args, name)}" for name in names])
    rng = np.random.default_rng(0)
    field, chi = (rng.standard_normal((args.batch, *config.patch, 1), np.float32) for _ in range(2))
    steps = {"qsmjax": our_step(config, field, chi)}
    if importlib.util.find_spec("torch"):
        steps["PyTorch"] = torch_step(config, field, chi)
    times = best(steps, args.repeat)
    print(f"QSMnet of width {args.width}, depth {args.depth}, {args.batch} patches of {args.patch}^3, {args.dtype}")
    print(f"on {jax.devices()[0].device_kind}")
    work = steps["qsmjax"].work
    for name, (wall, cpu) in times.items():
        rates = f"{1 / wall:6.2f} steps/s, {1e-9 * work / wall:7.0f} GFLOP/s"
        print(f"  {name:24s} {wall:8.3f} s, {cpu:8.3f} s of processor time, {rates}")
    held = jax.devices()[0].memory_stats()
    if held:
        print(f"  memory of qsmjax at its peak: {held['peak_bytes_in_use'] / 2**30:.1f} GiB")
    if "PyTorch" in times:
        wall, cpu = (times["PyTorch"][i] / times["qsmjax"][i] for i in (0, 1))
        print(f"  PyTorch / qsmjax         {wall:8.2f}    {cpu:8.2f}")
    if not args.no_data:
        whole = best({"with its data": whole_step(config)}, args.repeat)["with its data"]
        share = 1 - times["qsmjax"][1] / whole[1]
        print(f"  qsmjax, all of a step    {whole[0]:8.3f} s, {whole[1]:8.3f} s: data and losses {100 * share:.0f} %")


def our_step(config, field, chi):
    """Return a call that takes one step of ours."""
    network = build(config.model())
    state = init_state(config, network)
    optimiser = optax.adam(1e-3)

    def loss(params, stats):
        variables = {"params": params, "batch_stats": stats}
        out, updated = network.apply(variables, field, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.abs(out - chi)), updated["batch_stats"]

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params, stats, moments):
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats)
        updates, moments = optimiser.update(gradients, moments)
        return optax.apply_updates(params, updates), stats, moments

    held = [state.params, state.batch_stats, optimiser.init(state.params)]
    compiled = step.lower(*held).compile()

    def call():
        held[:] = jax.block_until_ready(compiled(*held))

    # by XLA's count, which PyTorch's rate goes by too
    call.work = compiled.cost_analysis()["flops"]
    return call


def whole_step(config):
    """Return a call of the training step itself: heads drawn, fields made, all losses."""
    network = build(config.model())
    step = jax.jit(partial(train_step, config=config, network=network), donate_argnums=0)
    held = [init_state(config, network)]
    batch = {"index": jnp.arange(config.batch, dtype=jnp.int32)}

    def call():
        held[0] = jax.block_until_ready(step(held[0], batch))[0]

    return call


def torch_step(config, field, chi):
    """Return a call that takes one step of the same network in PyTorch."""
    import torch

    nn = torch.nn

    def level(channels, features):
        layers = []
        for size in (channels, features):
            layers += [nn.Conv3d(size, features, config.kernel, padding=config.kernel // 2)]
            layers += [nn.BatchNorm3d(features), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [config.width * 2**i for i in range(config.depth + 1)]
            pairs = list(zip([1, *widths[:-1]], widths))
            self.down = nn.ModuleList([level(a, b) for a, b in pairs[:-1]])
            self.bottom = level(*pairs[-1])
            self.rise = nn.ModuleList([nn.ConvTranspose3d(2 * w, w, 2, 2) for w in widths[-2::-1]])
            self.up = nn.ModuleList([level(2 * w, w) for w in widths[-2::-1]])
            self.last = nn.Conv3d(config.width, 1, 1)

        def forward(self, maps):
            skips = []
            for down in self.down:
                skips.append(down(maps))
                maps = nn.functional.max_pool3d(skips[-1], 2)
            maps = self.bottom(maps)
            for rise, up in zip(self.rise, self.up):
                maps = up(torch.cat([skips.pop(), rise(maps)], 1))
            return self.last(maps)

    place = "cuda" if jax.default_backend() == "gpu" else "cpu"
    network = Net().to(place, memory_format=torch.channels_last_3d)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    given, wanted = (torch.tensor(np.moveaxis(a, -1, 1).copy(), device=place) for a in (field, chi))
    half = torch.autocast(place, torch.bfloat16, enabled=config.dtype == "bfloat16")
    # as XLA does by itself
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True

    def call():
        optimiser.zero_grad(set_to_none=True)
        with half:
            loss = (network(given) - wanted).abs().mean()
        loss.backward()
        optimiser.step()
        if place == "cuda":
            torch.cuda.synchronize()

    return call


if __name__ == "__main__":
    main()
