"""Scans of subjects that are simulated and looked at while others are already trained on.

Simulation takes cores and training an accelerator, so neither waits for the other. How many subjects a step's patches
are cut of follows from the step (`joined`), so batches do not depend on how fast they come: a step waits for them.
"""

import math
import threading
from collections.abc import Callable, Generator
from types import TracebackType

from qsmjax.training.config import TrainConfig
from qsmjax.training.sight import Seen

EARLIEST = 1 / 16
"""Part of the subjects that are there at the first step, where others join later."""
POLLED = 0.5
"""Seconds between two looks at whether who waits has given up."""
HELD_OUT, FEWEST = 16, 2
"""One subject in so many is not trained on, and no fewer than so many: the last of the bank. The deviation is
calibrated on them, since errors are smaller where a network has been."""


class Arrivals:
    """Scans of subjects as they come, in their order, drawn by a thread.

    Attributes:
      ended: whether no more will come.
    """

    def __init__(self, coming: Generator[dict[str, Seen]]) -> None:
        """Begin to draw.

        Args:
          coming: the scans of each subject, by name; it is closed in the end.
        """
        self._scans: list[dict[str, Seen]] = []
        self._changed, self.ended, self._told = threading.Condition(), False, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._draw, args=(coming,), daemon=True)
        self._thread.start()

    def first(self, count: int, given_up: Callable[[], bool] = lambda: False) -> dict[str, Seen]:
        """Return the scans of the first subjects, once they are there.

        Args:
          count: how many.
          given_up: whether they are not waited for any longer.

        Raises:
          Exception: what ended them before so many were there.
          RuntimeError: if nothing went wrong, but no more come or they were given up.
        """
        with self._changed:
            while len(self._scans) < count and not self.ended and not given_up():
                self._changed.wait(POLLED)
            if len(self._scans) < count:
                raise self._error or RuntimeError(f"{count} subjects must come, got {len(self._scans)} before the end")
            return {name: seen for scans in self._scans[:count] for name, seen in scans.items()}

    def _draw(self, coming: Generator[dict[str, Seen]]) -> None:
        try:
            for scans in coming:
                with self._changed:
                    self._scans.append(scans)
                    self._changed.notify_all()
                    if self._told:
                        break
        except BaseException as error:
            # raised where the scans are asked for
            self._error = error
        finally:
            try:
                coming.close()
            finally:
                with self._changed:
                    self.ended = True
                    self._changed.notify_all()

    def __enter__(self) -> "Arrivals":
        """Return itself; on leaving no more are drawn, but for the one that is being made."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        with self._changed:
            self._told = True
        self._thread.join()


def joined(subjects: int, step: int, steps: int, joining: float) -> int:
    """Return of how many subjects a step's patches are cut: they join evenly over a part of all steps.

    Args:
      subjects: how many there are in the end.
      step: from 0.
      steps: of the whole run.
      joining: the part; 0 if all are there at once.
    """
    if joining == 0:
        return subjects
    part = EARLIEST + (1 - EARLIEST) * step / (joining * steps)
    return min(math.ceil(part * subjects), subjects)


def turns(config: TrainConfig) -> list[int]:
    """Return a bank's subjects in the order of their making: those held out, which are the last, come first."""
    own = config.subjects - held_out(config)
    return [*range(own, config.subjects), *range(own)]


def held_out(config: TrainConfig) -> int:
    """Return how many subjects are not trained on."""
    return max(config.subjects // HELD_OUT, FEWEST) if config.subjects > FEWEST + 1 else 0
