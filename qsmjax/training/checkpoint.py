"""What a run leaves in its work folder, and how it is taken up again.

    checkpoints/N/       state after N steps, scaling included, the config, the data in words, the loader's state
                         (orbax)
    weights.safetensors  the network as last validated: all that inference needs

Orbax writes a checkpoint aside and renames it, so one that was cut off is not one. Of several processes all take part:
they agree when it is whole. A lock keeps a second run out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from qsmjax.io.weights import load_weights, save_weights
from qsmjax.models.scaling import Scaling
from qsmjax.training.config import TrainConfig, from_dict
from qsmjax.training.samples import B0_DIR
from qsmjax.training.state import TrainState

KEPT = 3
WEIGHTS = "weights.safetensors"


class Checkpoints:
    """The checkpoints of one work folder."""

    def __init__(self, workdir: str | Path) -> None:
        """Open the folder, and make it where there is none."""
        self._folder = folder = Path(workdir).absolute() / "checkpoints"
        # in this thread: a run that says that it has saved has saved
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder, options=options)

    def latest(self) -> int | None:
        """Return the number of steps of the last whole checkpoint; None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, config: TrainConfig, data: str, loader: Mapping[str, Any] | None = None) -> None:
        """Write the state (a host's, not spread over devices) with config, data in words, and the loader's state."""
        step = int(state.step)
        if self.latest() == step:
            return
        about = ocp.args.JsonSave(config.to_dict())
        loader = {"next_index": step} if loader is None else dict(loader)
        # NumPy's scalars are no arrays to the older orbax
        state_part = ocp.args.StandardSave(jax.tree.map(np.asarray, state))
        told = ocp.args.JsonSave({"description": data})
        parts = ocp.args.Composite(state=state_part, config=about, loader=ocp.args.JsonSave(loader), data=told)
        self._manager.save(step, args=parts)

    def config(self) -> TrainConfig:
        """Read the config of the last checkpoint."""
        return from_dict(self._read("config", ocp.args.JsonRestore()))

    def data(self) -> str | None:
        """Read what the run is trained on, in words; None for a checkpoint from before they were kept."""
        folder = self._folder / str(self.latest())
        if not (folder / "data").exists():
            return None
        told = self._read("data", ocp.args.JsonRestore())
        if not isinstance(told, dict) or not isinstance(told.get("description"), str):
            raise ValueError(f"{folder} must hold the data's description, got {str(told)[:80]}: move it away")
        return told["description"]

    def next_batch(self) -> int:
        """Read the step whose batch comes next."""
        step = self.latest() or 0
        # checkpoints from before there was a loader hold none
        if not (self._folder / str(step) / "loader").exists():
            return step
        told = self._read("loader", ocp.args.JsonRestore())
        if not isinstance(told, dict) or not isinstance(told.get("next_index"), int):
            raise ValueError(f"{self._folder / str(step)} must hold the loader's next_index, got {str(told)[:80]}")
        return told["next_index"]

    def restore(self, like: TrainState) -> TrainState:
        """Read the last checkpoint's state, into the tree of `like`."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._read("state", ocp.args.StandardRestore(abstract))

    def _read(self, part: str, how: Any) -> Any:
        step = self.latest()
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{part: how}))[part]
        # of many kinds, and of a thousand letters
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise ValueError(
                f"{self._folder / str(step)} must be a whole checkpoint, got one with another {part} ({reason}): go "
                "on by the config that it holds; if it is broken move it away, and training goes on from the one before"
            ) from error

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def check_data(workdir: str | Path, kept: str | None, given: str) -> None:
    """Check that a run goes on with the data that it began with, since its card names no others.

    Args:
      workdir: the run's folder.
      kept: its data, in words; None where that was not kept.
      given: the data at hand.

    Raises:
      ValueError: if they are others.
    """
    if kept not in (None, given):
        raise ValueError(
            f"data must stay those of {workdir} ({kept[:120]}), got {given[:120]}: give the same again, or choose "
            "another --workdir"
        )


LICENCE = "of whoever trained it, as far as the terms of the training data allow"
"""What a card says until its owner says more."""


def export_weights(
    workdir: str | Path, state: TrainState, config: TrainConfig, scores: dict[str, float], trained_on: str
) -> Path:
    """Write the network with the card that inference reads.

    Args:
      workdir: the run's folder.
      state: a host's.
      config: of the run.
      scores: of the last validation.
      trained_on: the data, in words.

    Returns:
      The file.
    """
    path = Path(workdir) / WEIGHTS
    card: dict[str, Any] = {
        "name": config.preset,
        "network": config.model(),
        "scaling": scaling_dict(state.scaling),
        "voxel_size": list(config.voxel_size),
        "b0_dir": list(B0_DIR),
        "step": int(state.step),
        "scores": scores,
        "training_data": trained_on,
        "licence": LICENCE,
        "config": config.heeded(),
    }
    save_weights(path, jax.device_get(state.variables()), card)
    return path


def load_for_inference(workdir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the variables of the network that a run left, and its card."""
    return load_weights(Path(workdir) / WEIGHTS)


def scaling_dict(scaling: Scaling) -> dict[str, float]:
    """Return a scaling as JSON holds it."""
    return {name: float(getattr(scaling, name)) for name in Scaling.__dataclass_fields__}
