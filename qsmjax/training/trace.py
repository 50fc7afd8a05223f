"""A profile of a few steps, taken after the first ones have been compiled: for TensorBoard, XProf or Perfetto."""

from pathlib import Path

import jax

SKIPPED, TRACED = 2, 5
"""Steps of a run before the trace begins, and in it."""


class Trace:
    """Begins and ends the trace of a run as its steps go by."""

    def __init__(self, folder: Path | None, begin: int) -> None:
        """Trace into a folder, or not at all; `begin` is the step that the run begins or goes on from."""
        self.folder, self.first, self.running = folder, begin + SKIPPED, False

    def step(self, taken: int) -> None:
        """Hear that a number of steps is taken."""
        if self.folder is not None and taken == self.first:
            jax.profiler.start_trace(self.folder)
            self.running = True
        if taken == self.first + TRACED:
            self.close()

    def close(self) -> None:
        """End the trace, if it runs."""
        if self.running:
            jax.profiler.stop_trace()
        self.running = False
