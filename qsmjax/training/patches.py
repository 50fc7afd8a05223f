"""The patches that a stage of the learned inversion is trained on: cut of those subjects that have joined."""

import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from qsmjax.numerics.memory import exhausted
from qsmjax.training import correction
from qsmjax.training.arrivals import Arrivals, held_out, joined
from qsmjax.training.config import TrainConfig
from qsmjax.training.pool import Placed, Pool, in_rows, rows_of
from qsmjax.training.sight import Seen

Batch = dict[str, Any]
Scan = TypeVar("Scan")
Cut = Callable[[np.random.Generator, Any, int], dict[str, np.ndarray]]


class Patches:
    """Batches of a stage, each from its number and the config's seed."""

    def __init__(self, config: TrainConfig, arrivals: Arrivals) -> None:
        """Take the stage's config, and the subjects as they come: those that are held out first."""
        self._config, self._arrivals, self._held = config, arrivals, held_out(config)
        self._cut: Cut = lambda rng, scan, edge: correction.cut(rng, scan.seen, edge)
        # batches are cut ahead of the step, for which subjects may have joined that it does not yet see
        self._of_first = lru_cache(4)(self._kinds)
        self._placed: dict[str, Placed] = {}
        self._placing = threading.Lock()

    def unseen(self) -> dict[str, Seen]:
        """Return the scans that are not trained on; all, where there are too few subjects to hold any out."""
        return self._arrivals.first(self._held or self._config.subjects)

    def own(self, number: int, given_up: Callable[[], bool] = lambda: False) -> list[list[Placed]]:
        """Return the scans that a step's patches are cut of, heads and boxes apart, once they are there."""
        config = self._config
        count = joined(config.subjects - self._held, number, config.steps, config.joining)
        self._arrivals.first(self._held + count, given_up)
        return self._of_first(count)

    def batch(self, number: int, given_up: Callable[[], bool] = lambda: False) -> Batch:
        """Cut a step's batch; steps count from 0."""
        return draw(self._config, number + 1, self.own(number, given_up), self._config.batch, self._cut)

    def pool(self) -> Pool | None:
        """Make room on the device for all that will be trained on, by what is held out; None if it has none.

        From then on batches say where in the pool their patches are, for `gathered` to take them.
        """
        voxels = sum(seen.mask.size for seen in self.unseen().values())
        try:
            made = Pool(voxels * (self._config.subjects - self._held) // (self._held or self._config.subjects))
        except RuntimeError as error:
            if not exhausted(error):
                raise
            return None
        self._cut = rows_of
        return made

    def _kinds(self, count: int) -> list[list[Placed]]:
        unseen = self._arrivals.first(self._held)
        scans = {name: seen for name, seen in self._arrivals.first(self._held + count).items() if name not in unseen}
        with self._placing:
            # each keeps its place, whoever joins after it
            new = {name: seen for name, seen in scans.items() if name not in self._placed}
            after = max((scan.end for scan in self._placed.values()), default=1)
            self._placed |= zip(new, in_rows(list(new.values()), after))
            return kinds_of({name: self._placed[name] for name in scans})


def kinds_of(scans: dict[str, Scan]) -> list[list[Scan]]:
    """Part scans by name into those of whole heads and those of boxes, the heads first; no empty part."""
    kinds: dict[bool, list[Scan]] = {True: [], False: []}
    for name, seen in scans.items():
        kinds[is_whole(name)].append(seen)
    return [part for part in kinds.values() if part]


def draw(
    config: TrainConfig,
    step: int,
    kinds: Sequence[Sequence[Any]],
    count: int,
    cut: Cut = correction.cut,
) -> Batch:
    """Cut a batch of patches, of heads as often as of boxes: the same for the same seed and step.

    There are more boxes, but a head has more that is its own to cut, and users scan heads.
    """
    rng = np.random.default_rng((config.seed, step))

    def one() -> Batch:
        scans = kinds[int(rng.integers(len(kinds)))]
        return cut(rng, scans[int(rng.integers(len(scans)))], config.patch[0])

    patches = [one() for _ in range(count)]
    return {name: np.stack([patch[name] for patch in patches]) for name in patches[0]}


def is_whole(name: str) -> bool:
    """Tell from a scan's name whether it is of a whole head: the first source of its subject."""
    return name.split("_")[1] == "0"
