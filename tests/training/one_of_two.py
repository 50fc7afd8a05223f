"""One of two processes that train together, run by test_hosts: WORKDIR PORT ID.

The second gets SIGTERM after two steps. Both take the run up again, and the second is killed after three more.
"""

import os
import pathlib
import signal
import sys
from functools import partial
from unittest import mock

import numpy as np

from qsmjax.training import hosts, loop
from qsmjax.training.config import TrainConfig, with_settings
from qsmjax.training.data import Maps, Patches

TEXTS = ["width=2", "depth=0", "kernel=3", "patch=8", "batch=4", "rotation=0", "steps=60"]
CONFIG = with_settings(TrainConfig(), [*TEXTS, "validate_every=1000", "checkpoint_every=1"])


def subject(seed: int) -> Maps:
    rng = np.random.default_rng(seed)
    mask = np.ones((12, 12, 12), bool)
    chi, field = (s * rng.normal(size=mask.shape).astype(np.float32) for s in (0.05, 0.02))
    return Maps(f"subject {seed}", chi, mask, field)


class Watcher:
    """Sends its own process a signal after some steps."""

    def __init__(self, number: int = 0, after: int = 0) -> None:
        self.number, self.after, self.lines = number, after, []

    def begin(self, step, config, devices):
        self.lines.append(f"from {step} on {devices}")
        self.first = step

    def stepped(self, step, loss):
        if self.number and step == self.first + self.after:
            os.kill(os.getpid(), self.number)

    def said(self, line):
        self.lines.append(line)


def train(workdir: pathlib.Path, watcher: Watcher, **options) -> loop.Outcome:
    """Train without validating, whose compiling would take longer than all the rest."""
    with (
        mock.patch.object(loop, "SCALING_BATCHES", 1),
        mock.patch.object(loop.validation, "make_cases", lambda config, maps: []),
        mock.patch.object(loop.validation, "mean_scores", lambda made, cases: {}),
    ):
        return loop.train(workdir, CONFIG, Patches(CONFIG, [subject(0)]), [subject(1)], watcher, **options)


if __name__ == "__main__":
    workdir, port, number = sys.argv[1:]
    hosts.join(f"127.0.0.1:{port}", 2, int(number))
    hosts.watched = partial(hosts.watched, patience=10.0)
    made, make = [], loop.compile_step
    loop.compile_step = lambda *options: made[0] if made else made.append(make(*options)) or made[0]
    for name, after in (("SIGTERM", 2), ("SIGKILL", 3)):
        watcher = Watcher(signal.Signals[name], after) if number == "1" else Watcher()
        outcome = train(pathlib.Path(workdir), watcher)
        print(watcher.lines[0], "stopped" if outcome.stopped else "ended", outcome.step, flush=True)
        # this process had its notice
        hosts.told_to_stop = lambda step: False
