"""How long calls take beside one another, on a machine that is shared."""

import time


def best(calls: dict, repeat: int) -> dict[str, tuple[float, float]]:
    """Return the least wall and processor time of each call, all called in turn after a round that warms up [s]."""
    for call in calls.values():
        call()
    times: dict[str, tuple[float, float]] = {}
    for _ in range(repeat):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            now = time.perf_counter() - wall, time.process_time() - cpu
            times[name] = tuple(map(min, now, times.get(name, now)))
    return times
