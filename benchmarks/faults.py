"""Kill training at random moments, and compare what it ends with to a run that nothing disturbed.

    python benchmarks/faults.py                      50 kills of the smallest QSMnet, about a quarter of an hour
    python benchmarks/faults.py --kills 10 --learned the learned inversion's run, its simulated scans included

`kill -9` at a moment drawn evenly over the time of a whole run: start, steps, validation; half of them then wait for
the next half-written file (a checkpoint, weights, metrics) and strike while it is there. The same command goes on, is
killed again, and so forth until it reaches its end; then the next run begins. Exit status 1 if a start did not take the
last whole checkpoint up, or a run ended with other bits.
"""

import argparse
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from qsmjax.cli.main import run_command
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.io.weights import load_weights
from qsmjax.training import bank, judging
from qsmjax.training.progress import STATE

TINY = ["width=2", "depth=1", "kernel=3", "patch=8", "batch=2", "validation_shape=16"]
TINY += ["steps=12", "validate_every=6", "checkpoint_every=1"]
STAGES, STEPS = 2, 6
LEARNED = ["width=16", "dtype=float32", "scans=1", "subjects=1", "patch=16"]
LEARNED += [f"stages={STAGES}", f"steps={STEPS}", "validate_every=1"]
LOADED = ["qsmjax.cli.train", "orbax.checkpoint", "qsmjax.report.figures", "matplotlib.pyplot"]
"""Loaded once, in a server that every run is forked from: two thirds of a start are imports."""
Words = list[str]


def child(words: Words, log: Path) -> None:
    """Be a run: `qsmjax train` with its output in a file."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    # a bank that is made in seconds
    bank.BOX, bank.BOXES, judging.JUDGED = 24, 1, 2
    sys.exit(run_command("train", words))


def half_written(workdir: Path) -> set[Path]:
    """Return what a writer has begun and not yet given its name."""
    found = set()
    stages = [stage for n in range(STAGES) for stage in (workdir / f"stage_{n}", workdir / f"stage_{n}" / "seen")]
    for folder in (workdir, workdir / "checkpoints", workdir / "bank", *stages):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        found |= {folder / n for n in names if "checkpoint-tmp" in n or (n[0] == "." and n != ".lock")}
    return found


def states(workdir: Path) -> list[Path]:
    """Return where the stages of the learned inversion keep their training."""
    return [workdir / f"stage_{number}" / STATE for number in range(STAGES)]


def taken_up(text: str) -> int | None:
    """Return the step that a run went on from, as its lines say; None if it did not get to a step."""
    if found := re.search(r"goes on from step (\d+)|tiny (begins)", text):
        return int(found[1] or 0)
    # the learned inversion says a line a step
    found = re.search(r"stage (\d), step (\d+),", text)
    return int(found[1]) * STEPS + int(found[2]) - 1 if found else None


def whole_checkpoint(workdir: Path) -> int:
    """Return the step of the last checkpoint that has its name, 0 for none; over all stages where there are some."""
    for number, state in reversed(list(enumerate(states(workdir)))):
        if state.is_file():
            # the first leaf of `training.progress.Progress`
            return number * STEPS + int(np.ravel(load_weights(state)[0]["0000"])[0])
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


def run(words: Words, workdir: Path, log: Path, after: float, amid: bool) -> tuple[int | None, bool]:
    """Start a run, and kill it after some seconds; with `amid`, when something is half written from then on.

    Returns:
      Its status, None if it was killed; and whether something was left half written.
    """
    before, started = half_written(workdir), time.monotonic()
    process = multiprocessing.get_context("forkserver").Process(
        target=child, args=([*words, "--workdir", str(workdir)], log)
    )
    process.start()
    while process.exitcode is None:
        late = time.monotonic() - started > after
        if late and (not amid or half_written(workdir) - before):
            process.kill()
            process.join()
            return None, bool(half_written(workdir) - before)
        time.sleep(0.0005 if late else 0.02)
    return process.exitcode, False


def state_of(workdir: Path) -> list[np.ndarray]:
    """Return every array that a run ended with: parameters, moving averages, optimiser; and the exported network."""
    exported = jax.tree.leaves(load_weights(workdir / "weights.safetensors")[0])
    kept = [load_weights(state)[0] for state in states(workdir) if state.is_file()]
    if kept:
        return exported + jax.tree.leaves(kept)
    with ocp.StandardCheckpointer() as reader:
        stored = reader.restore(workdir.absolute() / "checkpoints" / str(whole_checkpoint(workdir)) / "state")
    return exported + [np.asarray(leaf) for leaf in jax.tree.leaves(stored)]


def same(a: list[Any], b: list[Any]) -> bool:
    """Whether all bits are the same."""
    return len(a) == len(b) and all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b))


def tiny_words(folder: Path) -> Words:
    """Return the arguments that train the smallest QSMnet."""
    return ["--config", "tiny", "--devices", "1", "--set", *TINY]


def learned_words(folder: Path) -> Words:
    """Return the arguments that train the learned inversion, on a head of a few shells."""
    index = np.indices((40, 40, 40)) - 19.5
    r = np.sqrt((index**2).sum(0))
    labels = np.select([r < 12, r < 15, r < 17, r < 19], [2, 3, 24, 515], 0)
    labels[(np.abs(index[0]) > 2) & (np.abs(index[0]) < 7) & (np.abs(index[1]) < 4) & (np.abs(index[2]) < 3)] = 10
    save_volume(folder / "head.nii.gz", labels, new_volume(labels, np.diag([2.0, 2, 2, 1])))
    return ["--config", "learned", "--labels", str(folder / "head.nii.gz"), "--devices", "1", "--set", *LEARNED]


def kill_and_resume(words: Words, folder: Path, kills: int, rng: random.Random, say: Callable[[str], None]) -> bool:
    """Kill runs until there have been so many kills, and print what became of them.

    Returns:
      Whether all went on and ended with the same bits.
    """
    log = folder / "log"
    # twice: the first compiles
    for name in ("compiling", "whole"):
        started = time.monotonic()
        if run(words, folder / name, log, 1e9, False)[0] != 0:
            raise RuntimeError(log.read_text())
    seconds, wanted = time.monotonic() - started, state_of(folder / "whole")
    say(f"undisturbed: {seconds:.0f} s; twice the same bits: {same(wanted, state_of(folder / 'compiling'))}")
    killed = halves = starts = wrong = runs = equal = 0
    while killed < kills:
        workdir, runs, status, last = folder / f"run{runs}", runs + 1, None, 0
        while status is None:
            expected, again = whole_checkpoint(workdir), last > 0
            after = rng.uniform(0, seconds) if killed < kills else 1e9
            status, half = run(words, workdir, log, after, rng.random() < 0.5)
            killed, halves, last = killed + (status is None), halves + half, last + 1
            text = log.read_text()
            begun = taken_up(text)
            starts += again and (begun is not None or status == 0)
            if status or begun not in (None, expected):
                wrong += 1
                say(f"run {runs}, start {last}: status {status}, whole checkpoint {expected}: {text[-2000:]}")
        same_bits = status == 0 and same(wanted, state_of(workdir))
        equal += same_bits
        say(f"run {runs}: ended after {last - 1} kills, {'the same' if same_bits else 'OTHER'} bits ({killed} kills)")
    say(f"{killed} kills, {halves} of them amid a write; {starts} later starts got to steps, {wrong} of them wrongly;")
    say(f"{equal} of {runs} runs ended bit-equal")
    return not wrong and equal == runs


def main() -> int:
    """Print what became of the kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learned", action="store_true", help="--config learned in place of tiny")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        multiprocessing.set_forkserver_preload(LOADED)
        words = learned_words(folder) if args.learned else tiny_words(folder)
        rng = random.Random(args.seed)
        good = kill_and_resume(words, folder, args.kills, rng, lambda line: print(line, flush=True))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
