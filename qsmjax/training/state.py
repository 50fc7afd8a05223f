"""What training changes: parameters, running statistics, the optimiser's state, their moving average, the step.

No random key is among them: keys are folded from the config's seed, the step and the sample, so that a run that was
stopped draws on as if it had not been.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from qsmjax.models.scaling import Scaling
from qsmjax.training.config import TrainConfig


@flax.struct.dataclass
class TrainState:
    """The state after `step` steps.

    Attributes:
      step: optimiser steps taken.
      params: the network's.
      batch_stats: the running statistics of its batch norms.
      optimiser: the optimiser's own state.
      ema: moving average of params and batch_stats under these names; empty where the config asks for none.
      scaling: measured before the first step, and kept.
    """

    # not typed by shape: JAX fills the tree with other things than arrays too
    step: Any
    params: Any
    batch_stats: Any
    optimiser: Any
    ema: Any
    scaling: Scaling

    def variables(self) -> dict[str, Any]:
        """Return what the network is applied with: the moving average where there is one."""
        return dict(self.ema) if self.ema else {"params": self.params, "batch_stats": self.batch_stats}


def make_optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """Make Adam with the config's schedule and clipping."""
    decay = max(config.steps - config.warmup, 1)
    after = (
        optax.cosine_decay_schedule(config.learning_rate, decay)
        if config.schedule == "cosine"
        else optax.constant_schedule(config.learning_rate)
    )
    rising = optax.linear_schedule(0.0, config.learning_rate, max(config.warmup, 1))
    rate = optax.join_schedules([rising, after], [config.warmup]) if config.warmup else after
    adam = optax.adam(rate)
    return optax.chain(optax.clip_by_global_norm(config.clip), adam) if config.clip else adam


def init_state(config: TrainConfig, network: nn.Module) -> TrainState:
    """Draw the weights of a run's beginning."""
    # fully convolutional: the smallest box gives the same weights as a patch
    box = jnp.zeros((1, *(2**config.depth,) * 3, 1))
    variables = network.init(jax.random.key(config.seed), box)
    params, stats = variables["params"], variables["batch_stats"]
    ema = {"params": params, "batch_stats": stats} if config.ema else {}
    # a copy: donated buffers must not stand in the state twice
    ema = jax.tree.map(jnp.copy, ema)
    identity = Scaling(*map(jnp.float32, (0, 1, 0, 1)))
    return TrainState(jnp.zeros((), jnp.int32), params, stats, make_optimiser(config).init(params), ema, identity)


def advance(state: TrainState, config: TrainConfig, gradients: Any, batch_stats: Any) -> TrainState:
    """Take one step of the optimiser, and move the average."""
    updates, optimiser = make_optimiser(config).update(gradients, state.optimiser, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema:
        new = {"params": params, "batch_stats": batch_stats}
        # a short memory at first, so that the beginning is soon forgotten
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        ema = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, ema, new)
    return TrainState(state.step + 1, params, batch_stats, optimiser, ema, state.scaling)
