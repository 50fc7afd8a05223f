"""Train a network on simulated heads, or on your own maps.

  python train.py --workdir W                    QSMnet on heads that are drawn as it trains
  python train.py --workdir W --config tiny      a small one, ten minutes on two CPU cores
  python train.py --workdir W --labels LABELS    on heads of real anatomy, out of label maps
  python train.py --workdir W --config learned --labels LABELS    the inversion that is shipped; learned_total: its
                                                                  other weights, for total fields
  python train.py --workdir W --data MAPS        on NAME_chi.nii.gz (with NAME_field.nii.gz, NAME_mask.nii.gz)

Started again on the same W, with the same data, it goes on from its last checkpoint, to the same bits (on a GPU: see
docs/training.md). SIGTERM saves and ends it. W holds training.html, metrics.csv, checkpoints, and weights.safetensors:
`python infer.py FIELD --workdir W` needs no more.

On several machines start the same command on each, W on a file system that all see: under SLURM, Open MPI and on Cloud
TPU they find each other, elsewhere by --coordinator HOST:PORT --processes N --process-id I.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qsmjax.cli.errors import UserError
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.io.lock import locked
from qsmjax.training import hosts
from qsmjax.training.checkpoint import Checkpoints
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.data import Drawn, Maps, Patches, Source
from qsmjax.training.files import load_maps
from qsmjax.training.labels import load_labels
from qsmjax.training.learn import learn
from qsmjax.training.loop import Watcher, train
from qsmjax.training.presets import PRESETS, preset
from qsmjax.training.progress import stored_run

SIZELESS = ("dtype", "momentum", "remat")
"""What of a network a run may change as it goes on: no size hangs on it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--workdir", required=True, metavar="W", help="where the run lives; one that is there is taken up")
    add("--config", metavar="NAME", help=f"{', '.join(PRESETS)} (default: qsmnet)")
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")
    add("--steps", type=int, metavar="N", help="the same as --set steps=N")
    add("--data", metavar="DIR", help="susceptibility maps, with their fields and masks, if any")
    add("--labels", metavar="DIR", help="label maps of whole heads, in FreeSurfer's numbers; with --data: both, mixed")
    add("--validation", metavar="DIR", help="maps to validate on; by default the last given, if several")
    add("--devices", type=int, metavar="N", help="use at most N devices (default: all), in each process")
    add("--coordinator", metavar="HOST:PORT", help="of the first process, where several train together")
    add("--processes", type=int, metavar="N", help="how many; SLURM, Open MPI and Cloud TPU are asked by default")
    add("--process-id", type=int, metavar="I", help="which of them this is, from 0")
    add("--profile", action="store_true", help="write a trace of a few steps to W/profile")
    add("--quiet", action="store_true", help="print nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
      Its exit status: 0 at the end of training, and after a stop that was asked for.
    """
    # Orbax's threads print a traceback of what is told in one line
    if not os.environ.get("QSMJAX_DEBUG"):
        logging.getLogger("absl").setLevel(logging.CRITICAL)
    if args.devices is not None and args.devices < 1:
        raise UserError(f"--devices must be at least 1, got {args.devices}")
    check_config(args.config)
    workdir = Path(args.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"{workdir} must be a folder, got a file: choose another --workdir")
    hosts.join(args.coordinator, args.processes, args.process_id)
    with locked(workdir) if hosts.is_first() else contextlib.nullcontext():
        config = choose_config(workdir, args.config, args.set, args.steps)
        if config.network == "correction":
            return learn_inversion(workdir, config, args)
        # or one of them might take the folder that another makes for a run to go on with
        hosts.wait_for_all("config")
        with watching(args.quiet or not hosts.is_first()) as watcher:
            source, held_out = choose_data(config, args.data, args.labels, args.validation, watcher.said)
            outcome = train(workdir, config, source, held_out, watcher, devices=args.devices, profile=args.profile)
            if outcome.stopped:
                watcher.said(f"stopped and saved after step {outcome.step}; the same command goes on from there")
            else:
                watcher.said(f"done: {workdir / 'weights.safetensors'}, training.html, metrics.csv")
    return 0


def learn_inversion(workdir: Path, config: TrainConfig, args: argparse.Namespace) -> int:
    """Train the learned inversion, on label maps and in one process.

    Raises:
      UserError: if there are none, something was given that is not heeded, or the run is spread over processes.
    """
    for name in ("data", "validation", "profile"):
        if getattr(args, name):
            raise UserError(
                f"--{name} must be left out for --config {config.preset}, got {getattr(args, name)}: it is trained on "
                "--labels, judged on subjects of its own, and traces no steps"
            )
    if args.labels is None or not Path(args.labels).exists():
        raise UserError(f"--labels must be a folder of label maps for --config {config.preset}, got {args.labels}")
    if args.processes not in (None, 1) or jax.process_count() > 1:
        raise UserError(
            f"--config {config.preset} must be trained in one process, on all of its devices: leave out --processes"
        )
    with watching(args.quiet) as watcher:
        begun = read_weights(config.begin) if config.begin else None
        taken = learn(workdir, config, Path(args.labels), watcher.said, begun=begun, devices=args.devices)
        if taken < config.stages * config.steps:
            watcher.said(f"stopped and saved after step {taken}; the same command goes on from there")
        else:
            watcher.said(f"done: {workdir / 'weights.safetensors'}, metrics.csv")
    return 0


def read_weights(name: str) -> dict[str, Any]:
    """Read the parameters that a run begins from: of shipped weights, or out of a file."""
    shipped = FOLDER / f"{name}.safetensors"
    _, _, variables, _ = read_network(shipped if shipped.is_file() else name)
    return variables


def check_config(name: str | None) -> None:
    """Refuse a preset that there is not, before anything is written."""
    if name is not None:
        preset(name)


def choose_config(workdir: Path, name: str | None, settings: list[str], steps: int | None) -> TrainConfig:
    """Take the config from the run that is in the work folder, or from a preset; then apply the settings.

    Raises:
      UserError: if the run in the folder began from another preset, or its state would not fit the config.
    """
    stored = stored_config(workdir)
    if stored is not None and name is not None and name != stored.preset:
        raise UserError(f"--config must be {stored.preset} as in {workdir}, got {name}: choose another --workdir")
    base = preset(name or "qsmnet") if stored is None else stored
    config = with_settings(base, [*settings, *([] if steps is None else [f"steps={steps}"])])
    if stored is None:
        return config
    sizes = lambda config: {name: value for name, value in config.model().items() if name not in SIZELESS}
    if sizes(config) != sizes(stored):
        raise UserError(f"the network must stay that of {workdir}, got other sizes: choose another --workdir")
    # the state holds a moving average, or what clips, or it does not
    for name in ("ema", "clip"):
        kept, given = getattr(stored, name), getattr(config, name)
        if bool(given) != bool(kept):
            must = "above zero" if kept else "zero"
            raise UserError(f"{name} must stay {must} as in {workdir}, got {given:g}: choose another --workdir")
    return config


def stored_config(workdir: Path) -> TrainConfig | None:
    """Read the config of the run in a work folder; None where there is none."""
    if not (workdir / "checkpoints").is_dir():
        return stored_run(workdir)
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.config() if checkpoints.latest() is not None else None
    finally:
        checkpoints.close()


def choose_data(
    config: TrainConfig, data: str | None, labels: str | None, validation: str | None, say: Callable[[str], None]
) -> tuple[Source, list[Maps]]:
    """Return where batches come from, and the maps to validate on.

    Args:
      config: of the run.
      data: folder of maps to train on; None for none.
      labels: folder of label maps; None for none.
      validation: folder of maps to validate on; None to hold out some of the others.
      say: hears what is left out.

    Raises:
      UserError: if all maps to train on are of heads to validate on.
    """
    held_out = load_maps(validation, config) if validation else []
    given = [] if data is None else load_maps(data, config)
    known = {m.head for m in held_out}
    maps = [m for m in given if m.head not in known]
    if given and not maps:
        raise UserError(f"--data must hold maps of other heads than --validation, got none in {data}: give it others")
    if len(maps) < len(given):
        names = ", ".join(m.name for m in given if m.head in known)
        say(f"left out of training, as --validation holds their heads: {names}")
    maps += [] if labels is None else load_labels(labels, config)
    if not maps:
        return Drawn(config), held_out
    # all maps of the last head, turned or bent: none may be of one that the network knows
    last = [m.head == maps[-1].head for m in maps]
    if not held_out and not all(last):
        held_out = [m for m, own in zip(maps, last) if own]
        maps = [m for m, own in zip(maps, last) if not own]
    return Patches(config, maps), held_out


class _Lines:
    """Says its lines, and nothing of the steps between."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def begin(self, step: int, config: TrainConfig, devices: int) -> None:
        """Say what begins."""
        what = "begins" if step == 0 else f"goes on from step {step}"
        self.said(f"{config.preset} {what}: {config.steps} steps of batch {config.batch} on {devices} device(s)")

    def stepped(self, step: int, loss: float | None) -> None:
        """Say nothing."""

    def said(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(line, flush=True)


class _Bar(_Lines):
    """Draws a bar with loss, steps a second and time left."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(quiet=False)
        self.progress = progress

    def begin(self, step: int, config: TrainConfig, devices: int) -> None:
        """Draw the bar."""
        super().begin(step, config, devices)
        self.task = self.progress.add_task("", total=config.steps, completed=step, loss=float("nan"), rate=0.0)

    def stepped(self, step: int, loss: float | None) -> None:
        """Move it."""
        if loss is None:
            self.progress.update(self.task, completed=step)
        else:
            rate = self.progress.tasks[self.task].speed or 0.0
            self.progress.update(self.task, completed=step, loss=loss, rate=rate)

    def said(self, line: str) -> None:
        """Print a line above the bar."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def watching(quiet: bool) -> Iterator[Watcher]:
    """Give the one who looks on: a bar in a terminal, lines elsewhere."""
    if quiet or not sys.stdout.isatty():
        yield _Lines(quiet)
        return
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.2f} steps/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(), transient=True) as progress:
        yield _Bar(progress)
