"""Networks that are trained side by side on one device, for the same seconds each.

All that they may differ in but their patches' size is an argument of the step: loss weights, augmentation, seed, rate.
So one compiled step serves all of a size: compiling one may take longer than training by it.
"""

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qsmjax.io.weights import save_weights
from qsmjax.models.build import build
from qsmjax.simulate.augment import augment
from qsmjax.training.checkpoint import LICENCE, scaling_dict
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Patches
from qsmjax.training.devices import CompiledStep
from qsmjax.training.loader import Loader
from qsmjax.training.loop import measure_scaling
from qsmjax.training.samples import B0_DIR, Samples
from qsmjax.training.state import TrainState, init_state, make_optimiser
from qsmjax.training.step import gradient_of, moments

TURN = 20
"""Steps of a network before the next one's."""
ENDLESS = 1_000_000
"""More steps than there will be."""


@dataclasses.dataclass(frozen=True)
class Weighted(TrainConfig):
    """A config whose loss takes its weights as they come, traced."""

    weights: Any = None

    def loss_weights(self) -> Any:
        """Return them."""
        return self.weights


def knobs_of(config: TrainConfig, outer: bool) -> dict[str, Any]:
    """Return all that a compiled step takes as an argument, so that networks can share it."""
    return {
        "weights": np.asarray(config.loss_weights(), np.float32),
        "angle": np.float32(np.radians(config.rotation)),
        "scale": np.asarray(config.chi_scale, np.float32),
        "negate": np.float32(config.negate),
        "noise": np.asarray(config.noise, np.float32),
        "seed": np.int32(config.seed),
        "outer": np.bool_(outer),
    }


def draw_samples(config: TrainConfig, step: jax.Array, batch: dict[str, Any], knobs: dict[str, Any]) -> Samples:
    """Make samples as `training.samples` does, what differs between the networks traced."""
    base = jax.random.fold_in(jax.random.key(knobs["seed"]), step)

    def one(arrays):
        turning, level, noising = jax.random.split(jax.random.fold_in(base, arrays["index"]), 3)
        field, chi, mask = augment(
            turning,
            arrays["chi"],
            arrays["mask"],
            voxel_size=config.voxel_size,
            b0_dir=B0_DIR,
            max_angle=knobs["angle"],
            scale=tuple(knobs["scale"]),
            negate=knobs["negate"],
        )
        field = jnp.where(knobs["outer"], arrays["field"], field)
        low, high = knobs["noise"]
        field += jax.random.uniform(level, minval=low, maxval=high) * jax.random.normal(noising, field.shape)
        return Samples(jnp.where(mask, field, 0), jnp.where(mask, chi, 0), mask)

    # as in `training.samples`: XLA for the CPU compiles the batched random numbers for minutes
    return jax.lax.platform_dependent(dict(batch), cpu=partial(jax.lax.map, one), default=jax.vmap(one))


def take_step(
    state: TrainState, batch: dict[str, Any], knobs: dict[str, Any], *, config: TrainConfig, network: nn.Module
) -> tuple[TrainState, dict[str, Any]]:
    """Step as `training.step` does, loss weights and learning rate traced."""
    samples = draw_samples(config, state.step, batch, knobs)
    weighted = Weighted(**{**vars(config), "weights": knobs["weights"]})
    gradients, sums, stats, voxels = gradient_of(state, samples, weighted, network)
    updates, optimiser = make_optimiser(config).update(gradients, state.optimiser, state.params)
    params = optax.apply_updates(state.params, jax.tree.map(lambda u: knobs["rate"] * u, updates))
    decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
    new = {"params": params, "batch_stats": stats}
    ema = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state.ema, new)
    terms = {"terms": sums / voxels, "moments": moments(samples, None)}
    return TrainState(state.step + 1, params, stats, optimiser, ema, state.scaling), terms


class Training:
    """One network in training: its state, its batches, its clock."""

    def __init__(self, name: str, config: TrainConfig, patches: Patches, state: TrainState, *, outer: bool) -> None:
        """Begin at the first step.

        Args:
          name: of the network.
          config: of the training.
          patches: that it sees.
          state: from `first_state`.
          outer: whether the patches' own fields are used, and none is made of what lies in the patch.
        """
        self.name, self.base = name, config
        self.config = _at_rate_one(config)
        self.knobs = knobs_of(config, outer)
        self.network = build(config.model())
        self.state = jax.device_put(state)
        self.batches = Loader(patches.batch, ENDLESS)
        self.seconds, self.taken, self.terms = 0.0, 0, np.full(3, np.nan)
        # set by `compile_steps`
        self.step: Any = None

    def lowered(self) -> jax.stages.Lowered:
        """Trace the step."""
        take = partial(take_step, config=self.config, network=self.network)
        rate = {"rate": np.float32(0)}
        return jax.jit(take, donate_argnums=0).lower(self.state, next(self.batches), self.knobs | rate)

    def scale(self) -> None:
        """Measure the normalisation on the first batches."""
        run = lambda state, batch: self.step(state, batch, self.knobs | {"rate": np.float32(0)})
        step = CompiledStep(run, jax.device_put, jax.device_get)
        scaling = measure_scaling(step, jax.device_get(self.state), lambda _: next(self.batches))
        self.state = jax.device_put(dataclasses.replace(self.state, scaling=scaling))

    def turn(self, seconds: float) -> None:
        """Take some steps, of a training that lasts so long."""
        begun, gone = time.monotonic(), min(self.seconds / seconds, 1.0)
        for _ in range(TURN):
            rising = min((self.taken + 1) / max(self.base.warmup, 1), 1.0)
            rate = self.base.learning_rate * rising * 0.5 * (1 + np.cos(np.pi * gone))
            self.state, terms = self.step(self.state, next(self.batches), self.knobs | {"rate": np.float32(rate)})
            self.taken += 1
        self.terms = np.asarray(terms["terms"])
        self.seconds += time.monotonic() - begun

    def save(self, out: Path, data: str, *, finished: bool) -> None:
        """Write the moving average, kernels in half precision, and its card."""
        card = {
            "name": self.name,
            "network": {**self.base.model(), "dtype": "float32"},
            "scaling": scaling_dict(self.state.scaling),
            "voxel_size": list(self.base.voxel_size),
            "b0_dir": list(B0_DIR),
            "step": self.taken,
            "seconds": round(self.seconds, 1),
            "finished": finished,
            "training_data": data,
            "licence": LICENCE,
            "config": self.base.to_dict(),
        }
        halved = lambda array: np.asarray(array, np.float16 if np.ndim(array) > 1 else np.float32)
        save_weights(out / f"{self.name}.safetensors", jax.tree.map(halved, jax.device_get(self.state.ema)), card)


def first_state(config: TrainConfig) -> TrainState:
    """Draw the weights of a beginning: the same for all trainings of a network and a seed."""
    config = _at_rate_one(config)
    return jax.device_get(jax.jit(partial(init_state, config, build(config.model())))())


def _at_rate_one(config: TrainConfig) -> TrainConfig:
    """Leave the learning rate to the step's arguments."""
    return dataclasses.replace(config, learning_rate=1.0, schedule="constant", warmup=0)


def compile_steps(trainings: list[Training]) -> None:
    """Compile a step for each patch size, all at once, and measure every normalisation."""
    first = {t.config.patch: t for t in reversed(trainings)}
    lowered = {patch: training.lowered() for patch, training in first.items()}
    with ThreadPoolExecutor() as pool:
        compiled = dict(zip(lowered, pool.map(lambda low: low.compile(), lowered.values())))
    for training in trainings:
        training.step = compiled[training.config.patch]
        training.scale()
