"""Jobs side by side on one machine, none of which can take the others down.

Each worker is a process of its own (spawned: JAX does not survive a fork) that takes one job after another, so that
what it compiled serves the next. A job starts when the memory of those that run leaves room for its own. If a worker
dies (the kernel's out-of-memory killer, say), its job is given once more to a new one, and told as failed if that dies
too.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qsmjax.cli.participant import Job, Outcome, work

ATTEMPTS = 2
CONTROL_GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

Work = Callable[[Job], Outcome]


class _Worker(NamedTuple):
    process: Any
    pipe: Any


def run_here(jobs: Sequence[Job], *, workers: int, memory: int, work: Work = work) -> Iterator[Outcome]:
    """Do jobs on this machine; one worker is this very process.

    Args:
      jobs: what to do.
      workers: how many at a time.
      memory: that all running jobs may take together [bytes].
      work: does one job, and raises nothing.

    Yields:
      The outcomes, as they come.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    waiting, attempts = deque(jobs), dict.fromkeys((job.name for job in jobs), 0)
    idle: list[_Worker] = []
    busy: dict[_Worker, Job] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers and _fits(waiting[0], busy.values(), memory):
                job = waiting.popleft()
                attempts[job.name] += 1
                idle = [worker for worker in idle if worker.process.is_alive()]
                worker = idle.pop() if idle else _start(work)
                # one that has died since takes no job: it is told by its sentinel
                with contextlib.suppress(OSError):
                    worker.pipe.send(job)
                busy[worker] = job
            yield from _collect(busy, idle, waiting, attempts)
    finally:
        for worker in (*idle, *busy):
            worker.process.terminate()
            worker.process.join()


def room(limit: int | None = None) -> int:
    """Return the memory that jobs may take together [bytes]: the limit given, else nine tenths of what is free."""
    if limit is not None:
        return limit
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free = 1024 * int(told["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return int(0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(0.9 * min(free, *_left_in_groups()))


def _left_in_groups() -> list[float]:
    """Return what is left within the limits of this process' control groups [bytes]: of containers, and of SLURM."""
    left = [float("inf")]
    with contextlib.suppress(OSError):
        own = CONTROL_GROUPS / OWN_GROUP.read_text("ascii").strip().rpartition(":")[2].lstrip("/")
        for folder in (own, *own.parents[: len(own.parts) - len(CONTROL_GROUPS.parts)]):
            # files that are kept in memory make way, so that what is taken is the rest; "max" is no number: no limit
            with contextlib.suppress(OSError, ValueError, KeyError):
                taken = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
                left.append(int((folder / "memory.max").read_text("ascii")) - int(taken["anon"]))
    return left


def _fits(job: Job, running, memory: int) -> bool:
    taken = sum(other.memory for other in running)
    return not taken or taken + job.memory <= memory


def _collect(busy: dict[_Worker, Job], idle: list[_Worker], waiting: deque[Job], attempts) -> Iterator[Outcome]:
    """Wait until a worker has something to say or dies."""
    ends = {worker.pipe: worker for worker in busy} | {worker.process.sentinel: worker for worker in busy}
    for worker in {ends[end] for end in multiprocessing.connection.wait(list(ends))}:
        job = busy.pop(worker)
        try:
            outcome = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            # a reset, not an end, where it died before it had read its job
            outcome = None
        if outcome is not None:
            idle.append(worker)
            yield outcome
            continue
        worker.process.join()
        if attempts[job.name] < ATTEMPTS:
            waiting.appendleft(job)
        else:
            yield Outcome(job.name, "failed", killed(f"exit status {worker.process.exitcode}"))


def killed(how: str) -> str:
    """Say in a line that workers died at one job, again and again."""
    return f"a worker must live through a scan, got several that died ({how}): out of memory? Run fewer at a time"


def _start(work: Work) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    process.start()
    # so that the pipe ends with the worker
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Any, work: Work) -> None:
    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
