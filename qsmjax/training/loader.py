"""Batches, read ahead of the step by grain.

A batch follows from its step (`training.data`), so the loader's state is the step alone: the same for every process,
and for any number of them. It stands in the checkpoint, and a run that is taken up reads on from there.
"""

import time
from typing import Any

import grain

from qsmjax.training.data import Batch, Source

THREADS, AHEAD = 2, 4
"""Threads that cut batches (NumPy leaves Python free while it copies), and batches that wait to be taken."""


class Loader:
    """The batches of a source, one a step, some of them cut before they are asked for."""

    def __init__(self, source: Source, rows: slice, steps: int, begin: int = 0) -> None:
        """Begin to read.

        Args:
          source: of the batches.
          rows: this process' part of each.
          steps: how many there are.
          begin: the step to begin with.
        """
        batches = grain.MapDataset.range(steps).map(lambda step: source.batch(int(step), rows))
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
