"""Two processes over loopback: the same parameters as one, stopped together, and what is left when one is killed."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from one_of_two import CONFIG, Watcher, train

from qsmjax.models.build import build
from qsmjax.training import hosts, loop
from qsmjax.training.checkpoint import Checkpoints

SCRIPT = pathlib.Path(__file__).with_name("one_of_two.py")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def two_processes(workdir):
    """Run both to their end."""
    # compiling is most of what they do
    flags = os.environ["XLA_FLAGS"].replace("device_count=4", "device_count=2") + " --xla_backend_optimization_level=0"
    arguments = [sys.executable, str(SCRIPT), str(workdir), str(free_port())]
    both = [
        subprocess.Popen(
            [*arguments, str(i)],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in (0, 1)
    ]
    try:
        told = [process.communicate(timeout=240) for process in both]
    finally:
        for process in both:
            process.kill()
    return [process.returncode for process in both], told


def _at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def final_state(workdir):
    checkpoints = Checkpoints(workdir)
    try:
        like = jax.device_get(jax.jit(lambda: loop.init_state(CONFIG, build(CONFIG.model())))())
        return checkpoints.restore(like)
    finally:
        checkpoints.close()


@pytest.mark.slow
def test_two_processes_train_stop_and_break_as_they_should(tmp_path):
    codes, told = two_processes(tmp_path)
    # both stopped after the same step, soon after the signal; the one that was left later said what had happened
    first, second = (next(line for line in out.splitlines() if line.startswith("from")) for out, _ in told)
    assert first == second and first.startswith("from 0 on 4 stopped ")
    step = int(first.split()[-1])
    assert 2 <= step < CONFIG.steps
    assert codes == [hosts.LOST, -9], told
    assert "every process must stay with the others" in told[0][1] and "start it again" in told[0][1]

    # one process with as many devices, and the same parameters where the second was killed
    alone = tmp_path / "alone"
    train(alone, Watcher(), devices=4, until=step + 2)
    other = final_state(alone)
    for path, value in jax.tree_util.tree_leaves_with_path(final_state(tmp_path).params):
        name = jax.tree_util.keystr(path)
        # but for what the batch norm takes away again: its gradient is rounding, which Adam blows up
        if not ("conv" in name and "bias" in name):
            np.testing.assert_allclose(value, _at(other.params, path), atol=1e-5, err_msg=name)

    watcher = Watcher()
    assert train(tmp_path, watcher, devices=2, until=step + 4).step == step + 4
    assert watcher.lines[0] == f"from {step + 2} on 2"


def test_one_process_is_not_made_to_wait(monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    hosts.join()
    hosts.join(processes=1)
    assert hosts.is_first() and not hosts.told_to_stop(1) and hosts.own_rows(8) == slice(0, 8)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert hosts.in_cluster()


@pytest.fixture
def a_tpu(monkeypatch):
    """A machine that looks as if it had a TPU, and tells nothing of others."""
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    exists = pathlib.Path.exists
    monkeypatch.setattr(pathlib.Path, "exists", lambda path, **_: str(path) == "/dev/vfio/0" or exists(path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())


def test_a_tpu_whose_devices_a_notebook_has_goes_on_alone(a_tpu):
    assert jax.devices() and not hosts.in_cluster()
    hosts.join()
    assert jax.process_count() == 1


@pytest.mark.parametrize(
    ("error", "alone"), [(ValueError("no address"), True), (OSError(), True), (RuntimeError("timed out"), False)]
)
def test_a_tpu_goes_on_alone_only_where_there_is_no_cluster(a_tpu, monkeypatch, error, alone):
    def initialize(*given):
        asked.append(given)
        raise error

    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with contextlib.nullcontext() if alone else pytest.raises(ValueError, match="must find each other"):
        hosts.join()
    assert asked == [(None, None, None)]


@pytest.mark.parametrize(("hostnames", "several"), [("localhost", False), ("10.0.0.1,10.0.0.2", True)])
def test_a_pod_that_names_its_workers_is_a_cluster(a_tpu, monkeypatch, hostnames, several):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", hostnames)
    assert hosts.in_cluster() == several


def test_processes_that_cannot_find_each_other_are_told_how():
    with pytest.raises(ValueError, match="--coordinator HOST:PORT"):
        hosts.join(processes=2)
