"""A run of the learned inversion, how far a stage of it has come, and the file that it goes on from."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qsmjax.io.weights import load_weights, save_weights
from qsmjax.models.correction import Correction
from qsmjax.training.config import TrainConfig, from_dict

STATE = "state.safetensors"


class Run(NamedTuple):
    """What all stages of a run share: where, by what config, which network, the data's name, who hears, devices, and
    what parameters they begin from.
    """

    workdir: Path
    config: TrainConfig
    network: Correction
    data: str
    say: Callable[[str], None]
    devices: list[jax.Device]
    begun: Mapping[str, Any] = {}


@flax.struct.dataclass
class Progress:
    """What training changes: steps taken, parameters, their moving average, the optimiser's state."""

    step: Any
    params: Any
    ema: Any
    optimiser: Any


def begin(params: Any, optimiser: optax.GradientTransformation) -> Progress:
    """Begin a run from its first weights."""
    # copies: a step gives its buffers away
    params = jax.tree.map(jnp.array, params)
    return Progress(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), optimiser.init(params))


def save(folder: Path, config: TrainConfig, progress: Progress) -> None:
    """Write the state, whole or not at all."""
    leaves = jax.tree.leaves(progress)
    arrays = {f"{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    save_weights(folder / STATE, arrays, {"name": "state", "config": config.to_dict()})


def stored_run(workdir: Path) -> TrainConfig | None:
    """Return the config of the run that is in a folder; None where there is none."""
    state = workdir / "stage_0" / STATE
    return from_dict(load_weights(state)[1].get("config")) if state.is_file() else None


def restore(folder: Path, fresh: Progress) -> Progress:
    """Read the state of a run that is in the folder, or begin.

    Raises:
      ValueError: if it is that of another network.
    """
    if not (folder / STATE).is_file():
        return fresh
    arrays, _ = load_weights(folder / STATE)
    leaves, tree = jax.tree.flatten(fresh)
    stored = [arrays[name] for name in sorted(arrays)]
    if [np.size(a) for a in stored] != [np.size(a) for a in leaves]:
        raise ValueError(f"{folder} must hold a run of this network, got other sizes: choose another --workdir")
    # files hold no arrays without axes
    return jax.tree.unflatten(tree, [np.reshape(a, np.shape(leaf)) for a, leaf in zip(stored, leaves)])
