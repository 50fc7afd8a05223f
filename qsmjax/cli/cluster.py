"""Jobs on a Dask cluster that runs: SLURM, PBS, LSF or SGE by dask-jobqueue, or any machines that share a file system.

Every worker is told how much memory it has, and takes a job only while that leaves room for it. If a worker dies, the
scheduler gives its jobs to others; what was finished stands on the disk.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError

from qsmjax.cli.errors import UserError, describe
from qsmjax.cli.participant import Job, Outcome, work
from qsmjax.cli.pool import Work, killed

try:
    from distributed import Client, Worker, WorkerPlugin, as_completed
    from distributed.scheduler import KilledWorker
    from distributed.system import MEMORY_LIMIT
except ImportError as error:
    raise UserError("--scheduler needs Dask, got a Python without it: pip install 'qsmjax[cluster]'") from error

MEMORY = "qsmjax-memory"
GIB = 2**30


class Room(WorkerPlugin):
    """Tells the scheduler of a worker's memory; those that join later are told of too."""

    name = MEMORY

    async def setup(self, worker: Worker) -> None:
        """Set the resource that jobs ask for, unless the user started the worker with one."""
        if MEMORY not in worker.state.total_resources:
            limit = worker.memory_manager.memory_limit or MEMORY_LIMIT
            await worker.set_resources(**{MEMORY: float(limit)})


def run_on_cluster(jobs: Sequence[Job], address: str, *, work: Work = work, timeout: float = 30.0) -> Iterator[Outcome]:
    """Do jobs on the workers of a scheduler; their paths must be good on all of them.

    Args:
      jobs: what to do.
      address: of the scheduler.
      work: does one job, and raises nothing.
      timeout: to reach the scheduler [s].

    Yields:
      The outcomes, as they come.

    Raises:
      UserError: if the scheduler can't be reached, or is lost.
    """
    try:
        client = Client(address, timeout=timeout)
    except (OSError, ValueError) as error:
        raise UserError(f"--scheduler must be the address of a Dask scheduler, got {address}: {error}") from error
    with client:
        client.register_plugin(Room())
        futures = {
            client.submit(work, job, resources={MEMORY: max(job.memory, 1)}, pure=False, key=(job.name, id(jobs))): job
            for job in jobs
        }
        # workers may be started only as there is work for them
        client.wait_for_workers(1)
        for future, outcome in _too_large(client, futures):
            futures.pop(future)
            future.cancel()
            yield outcome
        try:
            for future in as_completed(futures):
                yield _outcome(future, futures[future])
        except CancelledError as error:
            raise UserError(f"{address} must stay up, got no answer: call again, finished maps are kept") from error


def _too_large(client: Client, futures: dict) -> list:
    largest = 0.0
    with contextlib.suppress(ValueError):
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        largest = max(worker["resources"].get(MEMORY, 0.0) for worker in workers)
    words = "a scan must fit into a worker's memory, got about {:.1f} GiB for {:.1f}: start larger workers"
    return [
        (future, Outcome(job.name, "failed", words.format(job.memory / GIB, largest / GIB)))
        for future, job in futures.items()
        if job.memory > largest > 0
    ]


def _outcome(future, job: Job) -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KilledWorker):
        return Outcome(job.name, "failed", killed("on the cluster"))
    words = f"a worker must be able to do it, got {type(error).__name__}: {describe(error)}"
    return Outcome(job.name, "failed", f"{words[:300]}: is qsmjax installed there?")
