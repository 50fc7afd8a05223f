"""The run that trains the learned inversion: a bank of scans, what the physics sees of them, and a correction of it.

    W/bank/                       sources, and the names of their label maps; with `joining` made while it trains
    W/stage_0/seen/               scans of them as the first stage sees them
    W/stage_0/state.safetensors   its training; then W/stage_1/, which sees what the first stage made of them
    W/weights.safetensors, W/metrics.csv

Whatever is there is not made again, so a run that was ended goes on. Batches follow from the seed, stage and step.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import volume_files
from qsmjax.models.build import build
from qsmjax.models.correction import Correction, check_params
from qsmjax.training.arrivals import Arrivals, turns
from qsmjax.training.bank import SOURCES, make_bank
from qsmjax.training.checkpoint import check_data
from qsmjax.training.config import TrainConfig
from qsmjax.training.devices import choose_devices
from qsmjax.training.progress import Run, stored_run
from qsmjax.training.sight import Seen, see_bank
from qsmjax.training.stage import train_stage
from qsmjax.training.totals import TOTALS

NAMES = "labels.txt"
TOLD = 8
"""Subjects between two lines about how many are there."""


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
