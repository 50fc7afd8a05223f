"""Several processes that train one network: joining them, what each of them does, and what ends them.

Each process holds its devices, cuts its own rows of every batch, and steps with the others. The first writes what
is no checkpoint. A process that dies would leave the others waiting for its share of a sum: each keeps a beat, a file
in the work folder that all of them see, and one whose neighbour's beat stops says so and ends.
"""

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental import multihost_utils

BEAT, PATIENCE = 1.0, 60.0
"""Time between two beats, and without one until a process counts as lost [s]."""
LOST = 3
"""Exit status where another process was lost."""


def join(coordinator: str | None = None, processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes, if there are any: before anything asks JAX for its devices.

    What is not given is taken from the cluster where JAX knows it: SLURM, Open MPI, Cloud TPU. A TPU of which nothing
    tells that there are others is asked too, and goes on alone where it is.

    Args:
      coordinator: HOST:PORT of the first process, the same for all.
      processes: how many there are.
      process_id: which of them this is.

    Raises:
      ValueError: if they cannot be joined.
    """
    told = any(value is not None for value in (coordinator, processes, process_id)) or in_cluster()
    if processes == 1 or not (told or _has_tpu()) or jax.distributed.is_initialized():
        return
    if told:
        # on CPUs; NCCL and TPU links are found by themselves
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (ValueError, RuntimeError, OSError) as error:
        # no cluster was found, or nobody to ask; or a notebook has its devices already, and could join no more
        if not told and (not isinstance(error, RuntimeError) or "called before" in str(error)):
            return
        raise ValueError(
            f"processes must find each other, got {error}: give --coordinator HOST:PORT, --processes N and "
            "--process-id I to each"
        ) from error


def in_cluster() -> bool:
    """Tell whether the environment says that this is one process of several."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    workers = (os.environ.get(name, "") for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"))
    return any(int(count) > 1 for count in counts) or any("," in names for names in workers)


def _has_tpu() -> bool:
    """Tell whether this machine has a TPU, alone or in a pod, without asking JAX for its devices."""
    tpu = any(Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))
    return tpu and importlib.util.find_spec("libtpu") is not None


def is_first() -> bool:
    """Tell whether this process writes metrics, pictures and weights."""
    return jax.process_index() == 0


def own_rows(batch: int) -> slice:
    """Return this process' part of a batch: what its devices take, in the order in which all devices stand."""
    each = batch // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def wait_for_all(name: str) -> None:
    """Wait until every process has come this far."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def told_to_stop(step: int) -> bool:
    """Tell whether one of several processes got SIGTERM and this is the step after which all of them end.

    To be asked after every step, by all. JAX's own notice is used, since they must agree on the step.
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def watched(workdir: str | Path, patience: float = PATIENCE) -> Iterator[None]:
    """Keep this process' beat, and end the process where another one's stops.

    Args:
      workdir: the run's folder, which all processes see.
      patience: without a beat until a process counts as lost [s].
    """
    if jax.process_count() == 1:
        yield
        return
    folder = Path(workdir) / ".beats"
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(jax.process_index())
    others = [folder / str(i) for i in range(jax.process_count()) if i != jax.process_index()]
    own.touch()
    # from here on a beat that is missing belongs to a process that ended as it should
    wait_for_all("beats")
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(own, others, patience, over), daemon=True)
    thread.start()
    try:
        yield
        over.set()
        thread.join()
        own.unlink(missing_ok=True)
    except jax.errors.JaxRuntimeError as error:
        # a sum broke off before the beat was missed; leaving as usual would wait for the other process
        _end(f"a step broke off ({str(error).splitlines()[0]})")
    finally:
        over.set()


def _watch(own: Path, others: list[Path], patience: float, over: threading.Event) -> None:
    while not over.wait(BEAT):
        own.touch()
        # both times are the file server's, so clocks need not agree
        now = own.stat().st_mtime
        lost = [other.name for other in others if other.exists() and now - other.stat().st_mtime > patience]
        if lost:
            _end(f"got no beat from process {', '.join(lost)} for {patience:g} s")


def _end(reason: str) -> None:
    print(
        f"error: every process must stay with the others, {reason}: the run has ended; start it again, on any number "
        "of devices, and it goes on from its last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    # the thread that trains may wait inside a sum that will not come; checkpoints are renamed when they are whole
    os._exit(LOST)
