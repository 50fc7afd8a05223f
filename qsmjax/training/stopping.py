"""How a run is told to end: by a signal, after whose step it saves."""

import signal
import threading
from collections.abc import Callable

import jax

from qsmjax.training import hosts


class stop_signals:
    """Within it SIGTERM sets an event instead of ending the process, so that the run can save.

    Several processes must end after the same step; JAX has its own way for them to agree on it.
    """

    def __enter__(self) -> Callable[[int], bool]:
        event = threading.Event()
        self.own = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
        if self.own:
            self.previous = signal.signal(signal.SIGTERM, lambda *_: event.set())
        return lambda step: event.is_set() or hosts.told_to_stop(step)

    def __exit__(self, *_: object) -> None:
        if self.own:
            signal.signal(signal.SIGTERM, self.previous)
