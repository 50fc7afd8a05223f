"""The run that trains the learned inversion: a bank of scans, what the physics sees of them, and a correction of it.

    W/bank/                       sources, and the names of their label maps; with `joining` made while it trains
    W/stage_0/seen/               scans of them as the first stage sees them
    W/stage_0/state.safetensors   its training; then W/stage_1/, which sees what the first stage made of them
    W/weights.safetensors, W/metrics.csv

Whatever is there is not made again, so a run that was ended goes on. Batches follow from the seed, stage and step.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import volume_files
from qsmjax.io.weights import save_weights
from qsmjax.models import unrolled
from qsmjax.models.build import build
from qsmjax.models.correction import Correction, check_params
from qsmjax.training import correction, record
from qsmjax.training.arrivals import Arrivals, turns
from qsmjax.training.bank import SOURCES, make_bank
from qsmjax.training.calibration import WITHIN, calibrate, calibrate_level
from qsmjax.training.checkpoint import LICENCE, WEIGHTS, check_data
from qsmjax.training.config import TrainConfig
from qsmjax.training.devices import CompiledStep, choose_devices, compile_step, compiled
from qsmjax.training.loader import Loader
from qsmjax.training.patches import Batch, Patches, draw, is_whole, kinds_of
from qsmjax.training.progress import STATE, Progress, begin, restore, save, stored_run
from qsmjax.training.sight import Seen, see_bank, take_scan
from qsmjax.training.stopping import stop_signals
from qsmjax.training.totals import TOTALS

NAMES = "labels.txt"
EMA = 0.995
TOLD = 8
"""Subjects between two lines about how many are there."""
JUDGED = 24
"""Patches of them that are looked at."""
CALIBRATED = 40
"""Scans that the deviation is calibrated on, at most."""


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


def learn(
    workdir: Path,
    config: TrainConfig,
    labels: Path,
    say: Callable[[str], None],
    *,
    begun: Mapping[str, Any] | None = None,
    devices: int | None = None,
    until: int | None = None,
) -> int:
    """Train to the end, saving on the way.

    Args:
      workdir: where all goes; what is in it is gone on with.
      config: of the run.
      labels: folder of label maps in FreeSurfer's numbers.
      say: hears lines for the user.
      begun: parameters, of each stage, of a network of the same sizes to begin from; None for none.
      devices: the most to use.
      until: end after this many steps; the schedule stays the config's.

    Returns:
      The steps that were taken of all stages' together: fewer than there are if it was told to stop.

    Raises:
      FileNotFoundError: if there is no label map.
      ValueError: if the batch cannot be shared by the devices, the weights to begin from are of other sizes, the run in
        the folder is of other label maps, or loss, gradient or scores are no longer finite.
    """
    found = volume_files(labels)
    # before the scans, which take long
    chosen = choose_devices(config.batch, 1, devices)
    network = build(config.model())
    assert isinstance(network, Correction)
    if stored_run(workdir) is None:
        check_begun(network, config, begun or {})
    data = f"{config.subjects} subjects of {keep_names(workdir, found)}"
    say(f"{config.subjects} subjects out of {len(found)} label maps: their scans are simulated")
    run = Run(workdir, config, network, data, say, chosen, begun or {})
    scans: dict[str, Seen] = {}
    stages: list[Any] = []
    left = config.stages * config.steps if until is None else until
    for _ in range(config.stages):
        with Arrivals(coming(run, found, scans, tuple(stages))) as arrivals:
            params, taken = train_stage(run, arrivals, stages, min(left, config.steps))
            stages.append(params)
            left -= config.steps
            if left <= 0 or taken < config.steps:
                break
            scans = arrivals.first(config.subjects)
    return (len(stages) - 1) * config.steps + taken


def coming(run: Run, labels: list[Path], before: dict[str, Seen], stages: Sequence[Any]) -> Generator[dict[str, Seen]]:
    """Make the bank's subjects, and see their scans as the stage after these does: those first that are held out."""
    config, bank = run.config, run.workdir / "bank"
    holding = TOTALS if config.input == "totalfield" else SOURCES
    workers = os.cpu_count() or 1
    seen = run.workdir / f"stage_{len(stages)}" / "seen"
    params = stages[-1] if stages else None
    see = partial(see_bank, bank, seen, scans=config.scans, seed=config.seed)
    # closed at once, whichever of them ends the others: workers must not go on
    with (
        closing(make_bank(bank, labels, turns(config), holding=holding, seed=config.seed, workers=workers)) as made,
        closing(see(made, before, run.network, params)) as subjects,
    ):
        for count, scans in enumerate(subjects, 1):
            if count % TOLD == 0 or count == config.subjects:
                run.say(f"{count} of {config.subjects} subjects are there")
            yield scans


def check_begun(network: Correction, config: TrainConfig, begun: Mapping[str, Any]) -> None:
    """Check that weights to begin from are of the config's sizes.

    Raises:
      ValueError: if they are others.
    """
    for params in begun.values():
        try:
            check_params(network, params)
        except ValueError as error:
            raise ValueError(
                f"begin must be weights of the config's sizes (width {config.width}, blocks {config.blocks}), got "
                f"others in {config.begin or 'what was given'}: --set width=N blocks=N as in their card"
            ) from error


def keep_names(workdir: Path, labels: list[Path]) -> str:
    """Name the label maps that a run's bank is made of, and keep the names beside it.

    Raises:
      ValueError: if the bank that is there is of others.
    """
    names = f"{len(labels)} label maps: " + ", ".join(path.name for path in labels)
    kept = workdir / "bank" / NAMES
    check_data(workdir, kept.read_text(encoding="utf-8") if kept.is_file() else None, names)
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(kept) as temporary:
            temporary.write_text(names, encoding="utf-8")
    return names


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
    placed, rows = step.place(progress), record.read_rows(run.workdir, first + int(progress.step))
    pending: list[dict[str, Any]] = []
    started, spent = time.monotonic(), rows[-1]["seconds"] if rows else 0.0
    with stop_signals() as told:
        batch_of = lambda number: step.feed(patches.batch(number, lambda: told(number)))
        loader = Loader(batch_of, config.steps, int(progress.step))
        for taken in range(int(progress.step) + 1, until + 1):
            try:
                batch = next(loader)
            except Exception:
                # no more subjects come, or they are not waited for
                progress = keep(run, folder, step, placed, pending, taken - 1)
                if told(taken):
                    break
                raise
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
            row |= judge(network, progress.ema, config, judged)
            record.check_finite(row, taken)
            rows.append(row)
            told_by = {"calibration": [float(np.log(row["calibration"])), 1.0]}
            if taken == config.steps:
                told_by = calibrated(run, [*before, progress.ema], unseen)
            export(run, [*before, progress.ema], row, told_by)
            record.write_rows(run.workdir, rows)
            # last: a run that was killed before goes through the same once more
            save(folder, run.config, progress)
            run.say(
                f"stage {len(before)}, step {taken}, {row['seconds']:.0f} s: errors over the start's: "
                f"L1 {row['val_l1']:.3f}, RMS {row['val_rms']:.3f}, gradient {row['val_gradient']:.3f}, "
                f"1 - xSIM {row['val_dissimilarity']:.3f}"
            )
    return progress.ema, int(progress.step)


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


def calibrated(run: Run, stages: list[Any], unseen: dict[str, Seen]) -> dict[str, list[float]]:
    """Calibrate the deviation on scans that were not trained on: what the card says of it."""
    # what users scan: a box's errors are others than a head's
    heads = [name for name in unseen if is_whole(name)] or list(unseen)
    some = heads[:: -(-len(heads) // CALIBRATED)]
    calibration = calibrate(run.network, stages[-1], [unseen[name] for name in some], 0)
    scans = [take_scan(run.workdir / "bank", name, run.config.seed) for name in some]
    level = calibrate_level(run.network, stages, scans, calibration, 0)
    return {"calibration": calibration} | ({} if level is None else {"bootstrap": level})


def _looking(network: nn.Module) -> Callable:
    def look(params, batch):
        numbers = jax.vmap(unrolled.about)(batch["voxel_size"], batch["b0_dir"])
        made: Any = network.apply({"params": params}, batch["features"].astype(jnp.float32), numbers)
        change, spread = made
        error = correction.start_error(batch) + change
        return correction.loss_of(network, params, batch)[1], error * jnp.exp(-spread)

    return compiled(look)


def export(run: Run, stages: list[Any], row: record.Row, told_by: dict[str, list[float]]) -> None:
    """Write the weights of all stages so far, with their card."""
    card = {
        "name": run.config.preset,
        # half precision is for training: maps are made in single
        "network": run.config.model() | {"dtype": "float32"},
        "config": run.config.to_dict(),
        **told_by,
        "step": int(row["step"]),
        "scores": {name: value for name, value in row.items() if name.startswith("val_")},
        "training_data": run.data,
        "licence": LICENCE,
    }
    variables = {f"stage_{number}": jax.device_get(params) for number, params in enumerate(stages)}
    save_weights(run.workdir / WEIGHTS, variables, card)
