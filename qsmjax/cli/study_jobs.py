"""The subjects of a study, one after another or side by side: each a job that can be sent to another process."""

import contextlib
import dataclasses
import multiprocessing
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from qsmjax.cli.errors import UserError, describe, mendable
from qsmjax.cli.methods import choose
from qsmjax.cli.orientations import REGISTER, Orientation, orientation_folders, read_orientation
from qsmjax.cli.scan import on_grid
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.stages import INPUTS, TRAINED_FOR
from qsmjax.inference.shipped import FOLDER, INVERSIONS, NETWORKS
from qsmjax.inversion import taken
from qsmjax.io.nifti import file_hash, load_volume
from qsmjax.io.sidecar import load_json
from qsmjax.simulate.tissue import FREESURFER
from qsmjax.study.cohort import Cohort, anatomy_name, simulate_lesions, simulate_orientation
from qsmjax.study.lesions import run_lesions
from qsmjax.study.regularisation import run_regularisation
from qsmjax.study.scans import HeadScan, Method, number_regions
from qsmjax.study.subject import run_subject

Told = Callable[[str, str], None]
"""Hears which subject has come how far."""
READ = (*INPUTS, "mask", "magnitude", "noise", "params", "to_reference", "truth", "segmentation")
"""How the names of files begin that an orientation's maps and their scores depend on."""


@dataclasses.dataclass(frozen=True)
class SubjectJob:
    """A subject and all that is to be done of it.

    Attributes:
      out: folder of the study.
      name: of the subject.
      index: its number.
      folder: holds its orientations.
      methods: as the user typed them.
      settings: LABEL.KEY=VALUE.
      register: whether scans without a matrix are registered.
      cohort: how it is simulated; None for a user's own.
      lesions: whether it is also scanned with lesions.
      variation: whether the curve over MEDI's lambda is made of it.
    """

    out: str
    name: str
    index: int
    folder: str
    methods: tuple[str, ...]
    settings: tuple[str, ...] = ()
    register: bool = True
    cohort: Cohort | None = None
    lesions: bool = False
    variation: bool = False

    @property
    def steps(self) -> int:
        """What it will tell of."""
        count = self.cohort.orientations if self.cohort else len(named_orientations(Path(self.folder)))
        simulated = (count if self.cohort else 0) + (1 if self.lesions else 0)
        return simulated + 1 + (count + self.lesions) * len(self.methods) + self.variation


def named_orientations(folder: Path) -> list[str]:
    """Return the names of the orientations in a folder; none where there are none."""
    return [p.name for p in orientation_folders(folder, least=0)]


def resolve_method(spec: str, settings: Sequence[str]) -> Method:
    """Find the method that a user named: NAME, LABEL=NAME, or LABEL=PATH (or PATH) of a network.

    Raises:
      UserError: if there is none, if it takes the total field, or an option is not its own.
    """
    label, equals, where = spec.strip().partition("=")
    where = where if equals else label
    own = [pair.partition(".")[2] for pair in settings if pair.partition(".")[0] == label]
    if where in INVERSIONS or not Path(where).exists():
        name, invert = where, choose(where, INVERSIONS, what="--methods (a name, or LABEL=PATH of a network)")
        if taken(invert) == "totalfield":
            raise UserError(f"--methods must be inversions of a local field, got {where}, of a total one: leave it out")
        # maps of a release's network are not taken for those of the next one's
        files = [where, *(["learned_total"] if where == "learned" else [])] if where in NETWORKS else []
        origin = " ".join(file_hash(FOLDER / f"{file}.safetensors") for file in files) or where
    else:
        from qsmjax.inference.network import WEIGHTS, load_network  # not paid for where no network is asked for

        path = Path(where) / WEIGHTS if Path(where).is_dir() else Path(where)
        network = load_network(path)
        name, invert = network.name, network.invert
        origin = file_hash(path)
        label = label if equals else path.parent.name if path.name == WEIGHTS else path.stem
    if not label or set(label) & set('/\\."') or label.startswith("-"):
        raise UserError(f"--methods must have labels that can be file names, got {label!r}: say LABEL=PATH")
    possible = options_of(invert)
    # no deviation is kept, so that none need be rehearsed
    unneeded = {"bootstrap": False} if "bootstrap" in possible else {}
    options = unneeded | parse_settings(own, possible, label)
    behind = {
        removal: _with_other_weights(label, other, options)
        for (removal, inversion), other in TRAINED_FOR.items()
        if inversion == where
    }
    return Method(label, name, invert, options, origin, behind)


def _with_other_weights(label: str, name: str, options: Mapping[str, Any]) -> Method:
    invert = INVERSIONS[name]
    # such as the residue, which is looked for in a local field that was given
    shared = {key: value for key, value in options.items() if key in options_of(invert)}
    return Method(label, name, invert, shared, file_hash(FOLDER / f"{name}.safetensors"))


def work(job: SubjectJob, told: Told) -> None:
    """Do a subject: what is done already is found done.

    Raises:
      ValueError: if something is missing; the subject is named.
    """
    out, tell = Path(job.out), lambda what: told(job.name, what)
    place, folder = out / "maps" / job.name, Path(job.folder)
    methods = [resolve_method(spec, job.settings) for spec in job.methods]
    if job.cohort is not None:
        for orientation in range(job.cohort.orientations):
            simulate_orientation(out / "scans", job.cohort, job.index, orientation)
            tell("simulated")
    read = lambda: read_subject(folder, register=job.register)
    try:
        run_subject(place, origin_of(job), read, methods, tell)
    except UserError as error:
        raise UserError(f"subject {job.name}, {error}") from error
    if job.lesions and job.cohort is not None:
        simulate_lesions(out / "lesions", job.cohort, job.index)
        tell("simulated with lesions")
        ill = out / "lesions" / job.name
        scan = as_head_scan(read_orientation(ill, None), ill, FREESURFER)
        numbers = np.rint(load_volume(ill / "lesions.nii.gz").data).astype(np.int32)
        for method in methods:
            run_lesions(place / "lesions", scan, numbers, method)
            tell(f"{method.label} with lesions")
    if job.variation:
        run_regularisation(place, read)
        tell("lambda")


def origin_of(job: SubjectJob) -> dict[str, Any]:
    """Say what a subject's maps are made of, as `study.subject.run_subject` keeps it."""
    folder = Path(job.folder)
    places = [folder / name for name in named_orientations(folder)]
    files = [file for place in (folder, *places) for file in sorted(place.iterdir()) if file.is_file()]
    return {
        "Orientations": [place.name for place in places],
        "Anatomy": job.name if job.cohort is None else anatomy_name(job.cohort, job.index),
        "Register": job.register,
        "InputSHA256": {
            file.relative_to(folder).as_posix(): file_hash(file) for file in files if file.name.startswith(READ)
        },
    }


def read_subject(folder: Path, *, register: bool = True) -> list[HeadScan]:
    """Read all orientations of a subject, the reference first.

    Raises:
      UserError: if something is missing or does not fit.
    """
    table: Mapping[str, Sequence[int]] = FREESURFER
    if (folder / "segmentation.json").is_file():
        table = load_json(folder / "segmentation.json")
        if not all(isinstance(v, list) and all(isinstance(n, int) for n in v) for v in table.values()):
            raise UserError(f"{folder / 'segmentation.json'} must hold lists of whole numbers under tissues' names")
    scans: list[HeadScan] = []
    first: Orientation | None = None
    for place in orientation_folders(folder, least=1):
        read = read_orientation(place, first, registration=REGISTER if register else None)
        first = first or read
        scans.append(as_head_scan(read, place, table))
    return scans


def as_head_scan(read: Orientation, folder: Path, table: Mapping[str, Sequence[int]]) -> HeadScan:
    """Add to an orientation its truth and its regions, where its folder has them.

    Raises:
      UserError: if one is on another grid.
    """
    known: dict[str, Any] = {}
    for name in ("truth", "segmentation"):
        files = [folder / f"{name}{suffix}" for suffix in (".nii.gz", ".nii")]
        file = next((f for f in files if f.is_file()), None)
        known[name] = None if file is None else on_grid(load_volume(file), read.scan.volume, f"{read.name}: {name}")
    truth, labels = known["truth"], known["segmentation"]
    if truth is not None and not np.isfinite(truth).all():
        raise UserError(f"orientation {read.name}: truth must be finite, got NaN or infinity")
    tissues = {name: tuple(numbers) for name, numbers in table.items()}
    regions = None if labels is None else number_regions(np.rint(labels).astype(np.int64), tissues)
    removal = read.stages["background"].name if "background" in read.stages else None
    return HeadScan(read.name, read.local, read.scan.volume, read.transform, truth, regions, removal, read.correlation)


def run_jobs(jobs: Sequence[SubjectJob], *, workers: int, quiet: bool) -> dict[str, str]:
    """Do all subjects, and show how far they are.

    Args:
      jobs: the subjects.
      workers: how many at a time; one is this very process.
      quiet: show nothing.

    Returns:
      The line that says what went wrong, for each subject that could not be done.
    """
    failed: dict[str, str] = {}
    with watching(sum(job.steps for job in jobs), quiet=quiet) as told:
        if min(workers, len(jobs)) == 1:
            for job in jobs:
                line = _attempt(job, told)
                failed |= {job.name: line} if line else {}
            return failed
        # spawned: JAX does not survive a fork
        context = multiprocessing.get_context("spawn")
        news = context.Queue()
        waiting = deque(jobs)
        idle: list[ProcessPoolExecutor] = []
        running: dict[Future, tuple[str, ProcessPoolExecutor]] = {}
        with contextlib.ExitStack() as pools:
            while waiting or running:
                while waiting and len(running) < workers:
                    # a pool for each worker: one that dies takes its own subject along, and no other
                    pool = idle.pop() if idle else pools.enter_context(ProcessPoolExecutor(1, context, _hear, (news,)))
                    job = waiting.popleft()
                    running[pool.submit(_remote, job)] = job.name, pool
                with contextlib.suppress(queue.Empty):
                    while True:
                        told(*news.get(timeout=0.2))
                for future in [f for f in running if f.done()]:
                    name, pool = running.pop(future)
                    error = future.exception()
                    idle += [] if isinstance(error, BrokenProcessPool) else [pool]
                    line = future.result() if error is None else _said(name, error)
                    failed |= {name: line} if line else {}
    return failed


def _said(name: str, error: BaseException) -> str:
    if isinstance(error, BrokenProcessPool):
        return f"subject {name} must leave its worker alive, got one that died: out of memory? Run again, fewer --jobs"
    return describe(error)


@contextlib.contextmanager
def watching(total: int, *, quiet: bool) -> Iterator[Told]:
    """Give the one who shows the steps: a bar in a terminal, a line a minute elsewhere."""
    if quiet:
        yield lambda name, what: None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *times, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda name, what: progress.update(task, advance=1, description=f"{name} {what}")
    else:
        yield _Lines(total)


class _Lines:
    def __init__(self, total: int) -> None:
        self.total, self.done, self.started, self.said = total, 0, time.monotonic(), 0.0

    def __call__(self, name: str, what: str) -> None:
        self.done += 1
        passed = time.monotonic() - self.started
        if passed - self.said > 60:
            self.said = passed
            left = passed / self.done * (self.total - self.done) / 60
            print(f"{name} {what}: {self.done} of {self.total} steps, {left:.0f} min left", file=sys.stderr, flush=True)


_news: Any = None
"""In a worker: where it tells how far it is."""


def _hear(news: Any) -> None:
    global _news
    _news = news


def _remote(job: SubjectJob) -> str | None:
    return _attempt(job, lambda name, what: _news.put((name, what)))


def _attempt(job: SubjectJob, told: Told) -> str | None:
    try:
        work(job, told)
    except Exception as error:
        if not mendable(error):
            raise
        return describe(error)
    return None
