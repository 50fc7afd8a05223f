"""The one place of the training side that compiles: one device by `jit`, several by `pmap`, from the same step.

`pmap` stands in `compile_step` alone, so that `shard_map` can take its place. Devices may belong to several processes
(`training.hosts`): each process then gives its own rows of the batch, in the order of the processes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

AXIS = "devices"


class CompiledStep(NamedTuple):
    """A step for the devices at hand.

    Attributes:
      run: (state, batch) -> (state, metrics); the state that goes in is given up.
      place: brings a state from the host to the devices.
      take: brings a state, or metrics, back: one device's, since all hold the same.
      feed: brings a batch to the device ahead of its step, where there is one that would have to wait for it.
    """

    run: Callable[[Any, Any], tuple[Any, Any]]
    place: Callable[[Any], Any]
    take: Callable[[Any], Any]
    feed: Callable[[Any], Any] = lambda batch: batch


def choose_devices(batch: int, accumulate: int = 1, limit: int | None = None) -> list[jax.Device]:
    """Return this process' devices, after checking that those of all processes can share the batch evenly.

    Args:
      batch: samples a step, over all devices.
      accumulate: parts that each device works its share off in.
      limit: the most devices to use, in each process.

    Raises:
      ValueError: if the batch cannot be shared.
    """
    devices = jax.local_devices()[:limit]
    count = len(devices) * jax.process_count()
    if batch % (count * accumulate):
        raise ValueError(
            f"batch must be a multiple of devices x accumulate ({count} x {accumulate}), got {batch}: "
            "--set batch=N, or --devices N"
        )
    return devices


def compile_step(step: Callable, devices: Sequence[jax.Device]) -> CompiledStep:
    """Compile step(state, batch, axis_name=...) for one device or several.

    Args:
      step: takes its share of the batch; sums over `axis_name` where that is not None.
      devices: those of this process to use; of other processes as many.
    """
    if len(devices) * jax.process_count() == 1:
        alone = jax.jit(partial(step, axis_name=None), donate_argnums=0)
        place = lambda state: jax.device_put(state, devices[0])
        if devices[0].platform == "cpu":
            return CompiledStep(alone, place, jax.device_get)
        return CompiledStep(alone, place, jax.device_get, lambda batch: jax.device_put(batch, devices[0]))

    count = len(devices)
    everywhere = _of_all_processes(count)
    mapped = jax.pmap(partial(step, axis_name=AXIS), AXIS, donate_argnums=0, devices=everywhere)
    # arrays that lie as a step leaves them: from NumPy's the step would be compiled once more
    spread = jax.pmap(lambda state: state, AXIS, devices=everywhere)
    share = lambda a: np.reshape(a, (count, -1, *np.shape(a)[1:]))
    copies = lambda a: np.broadcast_to(np.asarray(a), (count, *np.shape(a)))
    run = lambda state, batch: mapped(state, jax.tree.map(share, batch))
    # steps that the CPU's devices have not ended share its threads, and can wait for one another without end
    orderly = lambda state, batch: jax.block_until_ready(run(state, batch))
    # this process' own copy: indexing what several hold has all of them compute, and many at a time wait without end
    own = lambda a: np.asarray(a.addressable_data(0)).reshape(a.shape[1:])
    return CompiledStep(
        run=orderly if devices[0].platform == "cpu" else run,
        place=lambda state: spread(jax.tree.map(copies, jax.device_get(state))),
        take=lambda tree: jax.tree.map(own, tree),
    )


def _of_all_processes(count: int) -> list[jax.Device]:
    """Return the first devices of each process, process by process."""
    return [device for i in range(jax.process_count()) for device in jax.local_devices(i)[:count]]


def compiled(function: Callable, **options: Any) -> Callable:
    """Compile what runs beside the step (validation, measuring) for one device."""
    return jax.jit(function, **options)
