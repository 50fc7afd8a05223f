"""Batches, read ahead of the step by grain.

A batch follows from its step (`training.data`), so the loader's state is the step alone: the same for every process,
and for any number of them. It stands in the checkpoint, and a run that is taken up reads on from there.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import grain

from qsmjax.training.data import Batch

THREADS = min(max((os.cpu_count() or 1) // 2, 2), 8)
"""Threads that cut batches: NumPy leaves Python free while it copies."""
AHEAD = 2 * THREADS
"""Batches that wait to be taken."""


class Loader:
    """Batches, one a step, some of them cut before they are asked for."""

    def __init__(self, cut: Callable[[int], Batch], steps: int, begin: int = 0) -> None:
        """Begin to read.

        Args:
          cut: makes the batch of a step, of this process' rows.
          steps: how many there are.
          begin: the step to begin with.
        """
        batches = grain.MapDataset.range(steps).map(lambda step: cut(int(step)))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        self._batches = iter(batches.to_iter_dataset(options))
        self._batches.set_state({"next_index": begin})
        self.waited = 0.0

    def __next__(self) -> Batch:
        """Return the next step's batch, and add to `waited` the seconds until it was there."""
        begun = time.monotonic()
        batch = next(self._batches)
        self.waited += time.monotonic() - begun
        return batch

    @property
    def state(self) -> dict[str, Any]:
        """Return grain's state: the next step."""
        return self._batches.get_state()
