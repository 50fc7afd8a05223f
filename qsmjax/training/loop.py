"""A run from its first step, or from its last checkpoint, to its end.

What the loop adds to the step touches no number: batches follow from the step, so a run that was killed and taken up
again ends with the same bits as one that was not, wherever the compiler makes the same of the same (docs/training.md).
Of several processes all validate, so that none waits for another in the midst of a sum; the first one writes.
"""

import contextlib
import dataclasses
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
from qsmjax.training import hosts, record, validation
from qsmjax.training.checkpoint import Checkpoints, check_data
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Batch, Maps, Source
from qsmjax.training.devices import CompiledStep, choose_devices, compile_step, compiled
from qsmjax.training.journal import Journal
from qsmjax.training.loader import Loader
from qsmjax.training.state import TrainState, init_state
from qsmjax.training.step import train_step
from qsmjax.training.stopping import stop_signals
from qsmjax.training.trace import Trace

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
    profile: bool = False,
) -> Outcome:
    """Train to the end, validating and saving on the way.

    Args:
      workdir: where checkpoints, metrics, weights and pictures go; a run that is in it is taken up.
      config: of the run.
      source: of its batches.
      held_out: maps to validate on; none for drawn heads.
      watcher: who hears of it.
      devices: the most devices to use, in each process.
      until: stop after this many steps, as if told to; the schedule stays the config's.
      profile: write a trace of a few steps to the folder profile/.

    Raises:
      ValueError: if the batch cannot be shared by the devices, the run in the folder has other data, or loss, gradient
        or scores are no longer finite.
    """
    chosen = choose_devices(config.batch, config.accumulate, devices)
    rows = hosts.own_rows(config.batch)
    checkpoints = Checkpoints(workdir)
    try:
        network = build(config.model())
        step = compile_step(partial(train_step, config=config, network=network), chosen)
        state = jax.device_get(compiled(partial(init_state, config, network))())
        if checkpoints.latest() is None:
            state = dataclasses.replace(state, scaling=measure_scaling(step, state, lambda i: source.batch(i, rows)))
            checkpoints.save(state, config, source.description)
        else:
            check_data(workdir, checkpoints.data(), source.description)
            state = checkpoints.restore(state)
        taken, count = int(state.step), len(chosen) * jax.process_count()
        loader = Loader(lambda number: step.feed(source.batch(number, rows)), config.steps, checkpoints.next_batch())
        trace = Trace(Path(workdir) / "profile" if profile and hosts.is_first() else None, taken)
        journal = Journal(Path(workdir), config, source.description, count, taken, writing=hosts.is_first())
        run = _Run(config, network, step, checkpoints, watcher, held_out, journal)
        watcher.begin(taken, config, count)
        with stop_signals() as told, hosts.watched(workdir), contextlib.closing(trace), contextlib.closing(journal):
            stop = lambda taken: told(taken) or (until is not None and taken >= until)
            return run.to_end(state, loader, stop, trace)
    finally:
        checkpoints.close()


def measure_scaling(step: CompiledStep, state: TrainState, batch: Callable[[int], Batch]) -> Scaling:
    """Measure mean and standard deviation of field and chi over the masks of the first batches.

    The step itself is run, and its state thrown away: what makes the samples is then compiled once only.

    Raises:
      ValueError: if one of them does not vary.
    """
    sums = np.zeros(5)
    for i in range(SCALING_BATCHES):
        placed = step.place(dataclasses.replace(state, step=np.int32(i)))
        sums += step.take(step.run(placed, batch(i))[1]["moments"])
    means = sums[[1, 3]] / max(sums[0], 1)
    deviations = np.sqrt(np.maximum(sums[[2, 4]] / max(sums[0], 1) - means**2, 0))
    if not min(deviations) > 0:
        raise ValueError("field and chi must vary within the masks, got constant maps: check their units (ppm)")
    return Scaling(*map(np.float32, (means[0], deviations[0], means[1], deviations[1])))


class _Run:
    """The moving parts of a run, held together."""

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        step: CompiledStep,
        checkpoints: Checkpoints,
        watcher: Watcher,
        held_out: Sequence[Maps],
        journal: Journal,
    ) -> None:
        self.config, self.step, self.checkpoints = config, step, checkpoints
        self.watcher, self.journal = watcher, journal
        self.cases = validation.make_cases(config, held_out)
        self.predict = validation.make_predict(network)
        self.reference = validation.mean_scores([case.tkd for case in self.cases], self.cases)

    def to_end(self, state: TrainState, loader: Loader, stop: Callable[[int], bool], trace: Trace) -> Outcome:
        """Take the steps that are left."""
        config, taken = self.config, int(state.step)
        clock = _Clock(loader, self.journal.seconds)
        looked = time.monotonic()
        stretch = max(config.validate_every // 10, 1)
        placed, pending, scores = self.step.place(state), [], {}
        stopped = stop(taken)
        while taken < config.steps and not stopped:
            placed, metrics = self.step.run(placed, next(loader))
            taken, stopped = taken + 1, stop(taken + 1)
            trace.step(taken)
            pending.append({name: value for name, value in metrics.items() if name != "moments"})
            last = taken == config.steps
            # asking for the loss waits for the device: not at every step
            asked = time.monotonic() - looked > 1
            self.watcher.stepped(taken, float(self.step.take(metrics["loss"])) if asked else None)
            looked = time.monotonic() if asked else looked
            saving = taken % config.checkpoint_every == 0 or last or stopped
            validating = taken % config.validate_every == 0 or last
            # before every save too: a state whose loss or gradient is not finite is never saved
            if taken % stretch == 0 or validating or saving:
                row = {"step": float(taken), **self._mean(pending, taken), **clock.lap(len(pending))}
                pending = []
                if validating:
                    scores = self._validate(self.step.take(placed), row)
                    row |= scores
                    clock.skip()
                self.journal.add(row)
            if saving:
                self.checkpoints.save(self.step.take(placed), config, self.journal.trained_on, loader.state)
                clock.skip()
        if not scores:
            rows = self.journal.rows
            scores = {name: value for row in rows for name, value in row.items() if name.startswith("val_")}
        return Outcome(taken, scores, taken < config.steps)

    def _mean(self, pending: list, taken: int) -> record.Row:
        row = record.mean_row([self.step.take(metrics) for metrics in pending])
        record.check_finite(row, taken)
        return row

    def _validate(self, state: TrainState, row: record.Row) -> record.Row:
        scores, made = validation.validate(self.predict, state, self.cases)
        record.check_finite(scores, int(state.step))
        reference = self.reference["val_nrmse"]
        scores["tkd_nrmse"] = reference
        self.watcher.said(
            f"step {int(state.step)}, {row['seconds']:.0f} s: loss {row['loss']:.4f}, "
            f"NRMSE {scores['val_nrmse']:.1f} % (TKD {reference:.1f} %), pSNR {scores['val_psnr']:.1f} dB, "
            f"HFEN {scores['val_hfen']:.1f} %, SSIM {scores['val_ssim']:.3f}"
        )
        self.journal.validated(state, {**row, **scores}, self.cases[0], made, self.reference)
        return scores


class _Clock:
    """Times the stretches of a run: all of it, steps a second, and the share of time that the step waited for data."""

    def __init__(self, loader: Loader, before: float) -> None:
        self.loader, self.before = loader, before
        self.begun = time.monotonic()
        self.skip()

    def skip(self) -> None:
        """Begin a stretch here: what went before was no step."""
        self.lapped, self.waited = time.monotonic(), self.loader.waited

    def lap(self, steps: int) -> record.Row:
        """End a stretch of so many steps, and begin another."""
        now, waited = time.monotonic(), self.loader.waited - self.waited
        took = max(now - self.lapped, 1e-9)
        self.skip()
        return {
            "seconds": self.before + now - self.begun,
            "steps_per_second": steps / took,
            "input_wait": waited / took,
        }
