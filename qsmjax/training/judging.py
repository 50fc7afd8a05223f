"""What a stage of the learned inversion is worth: on subjects held out, told, and written with its weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from qsmjax.io.weights import save_weights
from qsmjax.models import unrolled
from qsmjax.training import correction, record
from qsmjax.training.calibration import WITHIN, calibrate, calibrate_level
from qsmjax.training.checkpoint import LICENCE, WEIGHTS
from qsmjax.training.config import TrainConfig
from qsmjax.training.devices import compiled
from qsmjax.training.patches import draw, is_whole
from qsmjax.training.progress import Run
from qsmjax.training.sight import Seen, take_scan

JUDGED = 24
"""Patches of subjects held out that are looked at."""
CALIBRATED = 40
"""Scans that the deviation is calibrated on, at most."""


def publish(run: Run, stages: list[Any], rows: list[record.Row], unseen: dict[str, Seen] | None) -> None:
    """Export what was learned with the last row's scores, and write all rows.

    Args:
      run: the run.
      stages: parameters of all stages so far.
      rows: of the whole run, the last one new.
      unseen: what the stage sees of the subjects held out, to calibrate its deviation by; None before its end.
    """
    told = {"calibration": [float(np.log(rows[-1]["calibration"])), 1.0]}
    export(run, stages, rows[-1], told if unseen is None else calibrated(run, stages, unseen))
    record.write_rows(run.workdir, rows)


def summary(row: record.Row, stage: int, taken: int) -> str:
    """Say the scores of a row, and the steps that the stage has taken."""
    return (
        f"stage {stage}, step {taken}, {row['seconds']:.0f} s: errors over the start's: L1 {row['val_l1']:.3f}, "
        f"RMS {row['val_rms']:.3f}, gradient {row['val_gradient']:.3f}, 1 - xSIM {row['val_dissimilarity']:.3f}"
    )


def judge(network: nn.Module, params: Any, config: TrainConfig, kinds: list[list[Seen]]) -> record.Row:
    """Look at subjects that were not trained on: errors over the start's, and what the predicted std is short of."""
    look = _looking(network)
    rows, offs = [], []
    for number in range(JUDGED):
        batch = draw(dataclasses.replace(config, seed=config.seed + 1), number, kinds, 1)
        terms, off = jax.device_get(look(params, batch))
        rows.append(terms)
        offs.append(np.abs(off[batch["mask"]]))
    calibration = float(np.quantile(np.concatenate(offs), WITHIN[0][1]))
    return {**{f"val_{name}": value for name, value in record.mean_row(rows).items()}, "calibration": calibration}


def _looking(network: nn.Module) -> Callable:
    def look(params, batch):
        numbers = jax.vmap(unrolled.about)(batch["voxel_size"], batch["b0_dir"])
        made: Any = network.apply({"params": params}, batch["features"].astype(jnp.float32), numbers)
        change, spread = made
        error = correction.start_error(batch) + change
        return correction.loss_of(network, params, batch)[1], error * jnp.exp(-spread)

    return compiled(look)


def calibrated(run: Run, stages: list[Any], unseen: dict[str, Seen]) -> dict[str, list[float]]:
    """Calibrate the deviation on scans that were not trained on: what the card says of it."""
    # what users scan: a box's errors are others than a head's
    heads = [name for name in unseen if is_whole(name)] or list(unseen)
    some = heads[:: -(-len(heads) // CALIBRATED)]
    calibration = calibrate(run.network, stages[-1], [unseen[name] for name in some], 0)
    scans = [take_scan(run.workdir / "bank", name, run.config.seed) for name in some]
    level = calibrate_level(run.network, stages, scans, calibration, 0)
    return {"calibration": calibration} | ({} if level is None else {"bootstrap": level})


def export(run: Run, stages: list[Any], row: record.Row, told_by: dict[str, list[float]]) -> None:
    """Write the weights of all stages so far, with their card."""
    card = {
        "name": run.config.preset,
        # half precision is for training: maps are made in single
        "network": run.config.model() | {"dtype": "float32"},
        "config": run.config.heeded(),
        "optimisation": correction.OPTIMISATION,
        "trained": {"seconds": round(row["seconds"]), "devices": len(run.devices), "kind": run.devices[0].device_kind},
        **told_by,
        "step": int(row["step"]),
        "scores": {name: value for name, value in row.items() if name.startswith("val_")},
        "training_data": run.data,
        "licence": LICENCE,
    }
    variables = {f"stage_{number}": jax.device_get(params) for number, params in enumerate(stages)}
    save_weights(run.workdir / WEIGHTS, variables, card)
