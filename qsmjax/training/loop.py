"""A run from its first step, or from its last checkpoint, to its end.

What the loop adds to the step touches no number: batches follow from the step, so a run that was killed and taken up
again ends with the same bits as one that was not.
"""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np

from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling
from qsmjax.report.figures import learning_curve, three_plane
from qsmjax.training import record, validation
from qsmjax.training.checkpoint import Checkpoints, export_weights
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Maps, Source
from qsmjax.training.devices import CompiledStep, choose_devices, compile_step, compiled
from qsmjax.training.state import TrainState, init_state
from qsmjax.training.step import train_step

SCALING_BATCHES = 8
"""Batches over which field and chi are measured before the first step."""


@runtime_checkable
class Watcher(Protocol):
    """Who looks on: `cli.train` draws a progress bar."""

    def begin(self, step: int, config: TrainConfig, devices: int) -> None:
        """Hear of the start."""

    def stepped(self, step: int, loss: float | None) -> None:
        """Hear of a step; the loss only where it has been fetched."""

    def said(self, line: str) -> None:
        """Hear a line for the user."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the steps it reached, the last scores, whether it was told to stop before its end."""

    step: int
    scores: dict[str, float]
    stopped: bool


def train(
    workdir: str | Path,
    config: TrainConfig,
    source: Source,
    held_out: Sequence[Maps],
    watcher: Watcher,
    *,
    devices: int | None = None,
    until: int | None = None,
) -> Outcome:
    """Train to the end, validating and saving on the way.

    Args:
      workdir: where checkpoints, metrics, weights and pictures go; a run that is in it is taken up.
      config: of the run.
      source: of its batches.
      held_out: maps to validate on; none for drawn heads.
      watcher: who hears of it.
      devices: the most devices to use.
      until: stop after this many steps, as if told to; the schedule stays the config's.

    Raises:
      ValueError: if the batch cannot be shared by the devices, or the loss is no longer finite.
    """
    chosen = choose_devices(config.batch, config.accumulate, devices)
    checkpoints = Checkpoints(workdir)
    try:
        network = build(config.model())
        step = compile_step(partial(train_step, config=config, network=network), chosen)
        state = jax.device_get(compiled(partial(init_state, config, network))())
        if checkpoints.latest() is None:
            state = dataclasses.replace(state, scaling=measure_scaling(step, state, source))
            checkpoints.save(state, config)
        else:
            state = checkpoints.restore(state)
        run = _Run(Path(workdir), config, network, step, checkpoints, watcher, held_out, source.description)
        watcher.begin(int(state.step), config, len(chosen))
        with _stop_signals() as told:
            return run.to_end(state, source, lambda taken: told.is_set() or (until is not None and taken >= until))
    finally:
        checkpoints.close()


def measure_scaling(step: CompiledStep, state: TrainState, source: Source) -> Scaling:
    """Measure mean and standard deviation of field and chi over the masks of the first batches.

    The step itself is run, and its state thrown away: what makes the samples is then compiled once only.

    Raises:
      ValueError: if one of them does not vary.
    """
    sums = np.zeros(5)
    for i in range(SCALING_BATCHES):
        placed = step.place(dataclasses.replace(state, step=np.int32(i)))
        sums += step.take(step.run(placed, source.batch(i))[1]["moments"])
    means = sums[[1, 3]] / max(sums[0], 1)
    deviations = np.sqrt(np.maximum(sums[[2, 4]] / max(sums[0], 1) - means**2, 0))
    if not min(deviations) > 0:
        raise ValueError("field and chi must vary within the masks, got constant maps: check their units (ppm)")
    return Scaling(*map(np.float32, (means[0], deviations[0], means[1], deviations[1])))


class _Run:
    """The moving parts of a run, held together."""

    def __init__(
        self,
        workdir: Path,
        config: TrainConfig,
        network: nn.Module,
        step: CompiledStep,
        checkpoints: Checkpoints,
        watcher: Watcher,
        held_out: Sequence[Maps],
        trained_on: str,
    ) -> None:
        self.workdir, self.config, self.trained_on = workdir, config, trained_on
        self.step, self.checkpoints, self.watcher = step, checkpoints, watcher
        self.cases = validation.make_cases(config, held_out)
        self.predict = validation.make_predict(network)
        self.reference = validation.mean_scores([case.tkd for case in self.cases], self.cases)
        self.rows: list[record.Row] = []

    def to_end(self, state: TrainState, source: Source, stop: Callable[[int], bool]) -> Outcome:
        """Take the steps that are left."""
        config, taken = self.config, int(state.step)
        self.rows = record.read_rows(self.workdir, taken)
        before = self.rows[-1]["seconds"] if self.rows else 0.0
        begun = looked = time.monotonic()
        stretch = max(config.validate_every // 10, 1)
        placed, pending, scores = self.step.place(state), [], {}
        stopped = stop(taken)
        while taken < config.steps and not stopped:
            placed, metrics = self.step.run(placed, source.batch(taken))
            taken, stopped = taken + 1, stop(taken + 1)
            pending.append({name: value for name, value in metrics.items() if name != "moments"})
            last = taken == config.steps
            # asking for the loss waits for the device: not at every step
            asked = time.monotonic() - looked > 1
            self.watcher.stepped(taken, float(self.step.take(metrics["loss"])) if asked else None)
            looked = time.monotonic() if asked else looked
            saving = taken % config.checkpoint_every == 0 or last or stopped
            # before every save too: a loss that is not finite is never saved
            if taken % stretch == 0 or saving:
                row = {"step": float(taken), "seconds": before + time.monotonic() - begun, **self._mean(pending, taken)}
                pending = []
                if taken % config.validate_every == 0 or last:
                    scores = self._validate(self.step.take(placed), row)
                    row |= scores
                self.rows.append(row)
                record.write_rows(self.workdir, self.rows)
            if saving:
                self.checkpoints.save(self.step.take(placed), config)
        if not scores:
            scores = {name: value for row in self.rows for name, value in row.items() if name.startswith("val_")}
        return Outcome(taken, scores, taken < config.steps)

    def _mean(self, pending: list, taken: int) -> record.Row:
        row = record.mean_row([self.step.take(metrics) for metrics in pending])
        if not np.isfinite(row["loss"]):
            raise ValueError(f"loss must stay finite, got {row['loss']} by step {taken}: lower --set learning_rate")
        return row

    def _validate(self, state: TrainState, row: record.Row) -> record.Row:
        scores, made = validation.validate(self.predict, state, self.cases)
        export_weights(self.workdir, state, self.config, scores, self.trained_on)
        reference = self.reference["val_nrmse"]
        self.watcher.said(
            f"step {int(state.step)}, {row['seconds']:.0f} s: loss {row['loss']:.4f}, "
            f"NRMSE {scores['val_nrmse']:.1f} % (TKD {reference:.1f} %), pSNR {scores['val_psnr']:.1f} dB, "
            f"HFEN {scores['val_hfen']:.1f} %, SSIM {scores['val_ssim']:.3f}"
        )
        case, rows = self.cases[0], [*self.rows, {**row, **scores}]
        learning_curve(rows, self.workdir / "learning_curve.png", reference=self.reference)
        volumes = {"field": case.field, "truth": case.chi, "network": made, "TKD": case.tkd}
        windows = [None, (-0.1, 0.1), (-0.1, 0.1), (-0.1, 0.1)]
        three_plane(
            volumes,
            self.workdir / "validation.png",
            mask=case.mask,
            window=windows,
            voxel_size=self.config.voxel_size,
            title=f"{case.name} after {int(state.step)} steps",
        )
        return {**scores, "tkd_nrmse": reference}


class _stop_signals:
    """Within it SIGTERM sets an event instead of ending the process, so that the run can save."""

    def __enter__(self) -> threading.Event:
        self.event = threading.Event()
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.previous = signal.signal(signal.SIGTERM, lambda *_: self.event.set())
        return self.event

    def __exit__(self, *_: object) -> None:
        if self.main:
            signal.signal(signal.SIGTERM, self.previous)
