"""One training step, the same function for one device and for many.

    gradient = Σ over devices and parts of ∂ (Σ_i weight_i sum_i) / (voxels of the whole batch)

The voxels are counted before any gradient is taken, so that all of them weigh alike however the batch is shared. Over
devices that is the gradient of the whole batch. Parts that are worked off one after the other (`accumulate`) have batch
norms of their own, as a smaller batch would.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.training import losses
from qsmjax.training.config import TrainConfig
from qsmjax.training.samples import Samples, make_samples, training_kernel
from qsmjax.training.state import TrainState, advance

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    config: TrainConfig,
    network: nn.Module,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Make the samples, take the gradient, step.

    Args:
      state: before the step.
      batch: this device's share (`training.data`).
      config: of the run.
      network: from `models.build`.
      axis_name: of the devices that share the batch.

    Returns:
      The state after it, and the batch's loss, its terms, the gradient's norm, and the moments that a scaling is
      measured by.
    """
    samples = make_samples(config, state.step, batch)
    gradients, sums, stats, voxels = gradient_of(state, samples, config, network, axis_name)
    terms = sums / voxels
    metrics = {"loss": losses.weighted_loss(sums, voxels, config.loss_weights())}
    metrics |= {f"loss_{name}": term for name, term in zip(losses.TERMS, terms)}
    metrics["gradient_norm"] = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradients)))
    metrics["moments"] = moments(samples, axis_name)
    return advance(state, config, gradients, stats), metrics


def moments(samples: Samples, axis_name: str | None) -> Float[Array, "5"]:
    """Sum over the mask: 1, field, field², chi, chi²."""
    ones = jnp.ones_like(samples.field)
    powers = (ones, samples.field, samples.field**2, samples.chi, samples.chi**2)
    sums = jnp.stack([jnp.sum(jnp.where(samples.mask, power, 0)) for power in powers])
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def gradient_of(
    state: TrainState,
    samples: Samples,
    config: TrainConfig,
    network: nn.Module,
    axis_name: str | None = None,
) -> tuple[Any, Float[Array, "3"], Any, Float[Array, ""]]:
    """Return the batch's gradient, the sums of the loss's terms, the new running statistics, the voxel count."""
    voxels = losses.count(samples.mask, axis_name)
    lossy = partial(
        _part_loss, config=config, network=network, scaling=state.scaling, axis_name=axis_name, voxels=voxels
    )
    differentiate = jax.grad(lossy, has_aux=True)
    if config.accumulate == 1:
        gradients, (sums, stats) = differentiate(state.params, state.batch_stats, samples)
    else:
        parts = jax.tree.map(lambda a: a.reshape(config.accumulate, -1, *a.shape[1:]), samples)

        def add(carry, part):
            gradients, sums, stats = carry
            more, (more_sums, stats) = differentiate(state.params, stats, part)
            return (jax.tree.map(jnp.add, gradients, more), sums + more_sums, stats), None

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        (gradients, sums, stats), _ = jax.lax.scan(add, (zeros, jnp.zeros(3), state.batch_stats), parts)
    if axis_name is not None:
        gradients, sums = jax.lax.psum((gradients, sums), axis_name)
    return gradients, sums, stats, voxels


def _part_loss(params, batch_stats, samples: Samples, *, config, network, scaling, axis_name, voxels):
    field = scaling.field_in(samples.field, samples.mask)[..., None]
    variables = {"params": params, "batch_stats": batch_stats}
    chi, updated = network.apply(variables, field, train=True, axis_name=axis_name, mutable=["batch_stats"])
    truth = scaling.chi_in(samples.chi, samples.mask)
    scale = scaling.chi_std / scaling.field_std
    kernel = training_kernel(config, samples.chi.shape[-3:])
    each = jax.vmap(losses.loss_sums, (0, 0, 0, None, None))(chi[..., 0], truth, samples.mask, kernel, scale)
    sums = jnp.sum(each, 0)
    return losses.weighted_loss(sums, voxels, config.loss_weights()), (sums, updated["batch_stats"])
