"""One stage of the learned inversion: its steps, what is saved on the way, and what ends it."""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from qsmjax.models import unrolled
from qsmjax.models.correction import Correction
from qsmjax.training import correction, record
from qsmjax.training.arrivals import Arrivals
from qsmjax.training.devices import CompiledStep, compile_step, compiled
from qsmjax.training.judging import judge, publish, summary
from qsmjax.training.loader import Loader
from qsmjax.training.patches import Batch, Patches, kinds_of
from qsmjax.training.pool import gathered
from qsmjax.training.progress import STATE, Progress, Run, begin, restore, save
from qsmjax.training.stopping import stop_signals

EMA = 0.995


def train_stage(run: Run, arrivals: Arrivals, before: list[Any], until: int) -> tuple[Any, int]:
    """Train one stage on what it sees, or go on with it; SIGTERM ends it after a step, saved.

    Args:
      run: the run.
      arrivals: what the stage sees of each subject, those first that are not trained on.
      before: parameters of the stages before it.
      until: end after this many steps; the schedule stays the config's.

    Returns:
      Its parameters, the moving average, and the steps that it has taken.
    """
    config, network, folder = run.config, run.network, run.workdir / f"stage_{len(before)}"
    config = dataclasses.replace(config, seed=config.seed + 1000 * len(before))
    optimiser = correction.make_optimiser(config.steps, config.learning_rate)
    step = compile_step(partial(take_step, network=network, optimiser=optimiser), run.devices)
    # what a stage that is gone on with began from need no longer be there, nor of its sizes
    begun = None if (folder / STATE).is_file() else run.begun.get(f"stage_{len(before)}")
    params = begun or draw_params(network, config.seed)
    progress = restore(folder, begin(params, optimiser))
    first = len(before) * config.steps
    # waited for here, where a signal still ends the run at once: there is nothing new to save
    patches = Patches(config, arrivals)
    unseen = patches.unseen()
    judged = kinds_of(unseen)
    patches.own(int(progress.step))
    pool = patches.pool() if pools(run.devices) else None
    placed, rows = step.place(progress), record.read_rows(run.workdir, first + int(progress.step))
    pending: list[dict[str, Any]] = []
    started, spent = time.monotonic(), rows[-1]["seconds"] if rows else 0.0
    with stop_signals() as told:
        batch_of = lambda number: step.feed(patches.batch(number, lambda: told(number)))
        loader = Loader(batch_of, config.steps, int(progress.step))
        for taken in range(int(progress.step) + 1, until + 1):
            try:
                batch: Batch = next(loader)
            except Exception:
                # no more subjects come, or they are not waited for
                progress = keep(run, folder, step, placed, pending, taken - 1)
                if told(taken):
                    break
                raise
            if pool is not None:
                scans = [scan for kind in patches.own(taken - 1) for scan in kind]
                batch = {**batch, "pool": pool.holding(sorted(scans, key=lambda scan: scan.first))}
            placed, terms = step.run(placed, batch)
            # the step before this one's: the device is never waited for, nor left far behind
            pending.append(terms)
            pending[-2:-1] = map(step.take, pending[-2:-1])
            if told(taken) and taken != until:
                progress = keep(run, folder, step, placed, pending, taken)
                break
            if taken % config.validate_every and taken != until:
                continue
            spent_here = time.monotonic() - started
            pending[-1] = step.take(pending[-1])
            row = {"step": float(first + taken), "seconds": spent + spent_here, **record.mean_row(pending)}
            # before every save: a state whose loss or gradient is not finite is never saved
            record.check_finite(row, taken)
            progress, pending = step.take(placed), []
            rows.append(row | judge(network, progress.ema, config, judged))
            record.check_finite(rows[-1], taken)
            publish(run, [*before, progress.ema], rows, unseen if taken == config.steps else None)
            # last: a run that was killed before goes through the same once more
            save(folder, run.config, progress)
            run.say(summary(rows[-1], len(before), taken))
    return progress.ema, int(progress.step)


def pools(devices: Sequence[jax.Device]) -> bool:
    """Say whether patches are gathered on the device: each of several would hold the pool, and a CPU cuts as fast."""
    return [device.platform for device in devices] == ["gpu"]


def keep(
    run: Run, folder: Path, step: CompiledStep, placed: Any, pending: list[dict[str, Any]], taken: int
) -> Progress:
    """Save what was learned since the last validation, if all of it is finite, and return it."""
    if pending:
        record.check_finite(record.mean_row([*pending[:-1], step.take(pending[-1])]), taken)
    progress = step.take(placed)
    save(folder, run.config, progress)
    return progress


def draw_params(network: Correction, seed: int) -> Any:
    """Draw the weights of a run's beginning."""
    edge = 2 * network.stride
    box, numbers = jnp.zeros((1, edge, edge, edge, unrolled.FEATURES)), jnp.zeros((1, unrolled.ABOUT))
    return compiled(lambda: network.init(jax.random.key(seed), box, numbers)["params"])()


def take_step(
    progress: Progress, batch: Batch, *, network: nn.Module, optimiser: Any, axis_name: str | None = None
) -> tuple[Progress, dict[str, Any]]:
    """Take the gradient of a batch, or of a device's share of it, and step."""
    batch = gathered(batch)
    lossy = lambda params: correction.loss_of(network, params, batch)
    (loss, terms), gradient = jax.value_and_grad(lossy, has_aux=True)(progress.params)
    terms = {"loss": loss, **terms}
    if axis_name is not None:
        gradient, terms = jax.lax.pmean((gradient, terms), axis_name)
    terms["gradient_norm"] = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    updates, state = optimiser.update(gradient, progress.optimiser, progress.params)
    params = optax.apply_updates(progress.params, updates)
    # a short memory at first, so that the beginning is soon forgotten
    decay = jnp.minimum(EMA, (1 + progress.step) / (10 + progress.step))
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, progress.ema, params)
    return Progress(progress.step + 1, params, ema, state), terms
