"""Workers of one machine: a job whose worker dies is done by another, and memory is kept to."""

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from qsmjax.cli import pool
from qsmjax.cli.memory import memory_of
from qsmjax.cli.participant import Job, Outcome, Settings
from qsmjax.cli.pool import room, run_here
from qsmjax.io.bids import Run
from qsmjax.io.nifti import new_volume, save_volume

GIB = 2**30


def job(name, out, memory=0):
    return Job(Run({"sub": name}, "MEGRE", Path(), {}), Settings(out, out, (), {}), memory)


def note(job):
    """Leave a note of when a job ran, dying as its name asks: once, or always."""
    out, name = job.settings.out_dir, job.run.entities["sub"]
    if name == "always" or (name == "once" and not (out / "tried").exists()):
        (out / "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    started = time.time()
    time.sleep(0.05)
    (out / f"{name}.txt").write_text(f"{started} {time.time()}")
    return Outcome(job.name, "done", str(os.getpid()))


def test_a_killed_worker_loses_nothing_and_stops_no_other(tmp_path):
    jobs = [job(name, tmp_path) for name in ("a", "once", "always", "b")]
    found = {outcome.name: outcome for outcome in run_here(jobs, workers=2, memory=GIB, work=note)}
    assert {name: outcome.state for name, outcome in found.items()} == {
        "sub-a": "done",
        "sub-once": "done",
        "sub-always": "failed",
        "sub-b": "done",
    }
    assert "out of memory?" in found["sub-always"].words
    assert found["sub-a"].words != str(os.getpid())


class Dying:
    """Work whose worker dies before it has read its job."""

    def __call__(self, job):
        raise AssertionError("never reached")

    def __reduce__(self):
        return os._exit, (9,)


def test_a_worker_that_dies_before_its_job_is_told_too(tmp_path):
    found = list(run_here([job(name, tmp_path) for name in "gh"], workers=2, memory=GIB, work=Dying()))
    assert [outcome.state for outcome in found] == ["failed"] * 2 and "exit status 9" in found[0].words


def test_jobs_that_do_not_fit_together_wait_for_each_other(tmp_path):
    jobs = [job(name, tmp_path, 600) for name in "cde"]
    assert [o.state for o in run_here(jobs, workers=3, memory=1000, work=note)] == ["done"] * 3
    times = sorted(tuple(map(float, (tmp_path / f"{name}.txt").read_text().split())) for name in "cde")
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def test_one_worker_is_this_process(tmp_path):
    (outcome,) = run_here([job("f", tmp_path)], workers=1, memory=GIB, work=note)
    assert outcome.words == str(os.getpid())


@pytest.mark.parametrize(("layout", "echoes"), [("files", 3), ("fourth axis", 3), ("one", 1)])
def test_memory_grows_with_voxels_and_echoes(tmp_path, layout, echoes):
    def made(n):
        shape = (n, n, n, echoes) if layout == "fourth axis" else (n, n, n)
        paths = [tmp_path / f"{n}-{i}.nii" for i in range(1 if layout != "files" else echoes)]
        for path in paths:
            save_volume(path, np.zeros(shape), new_volume(np.zeros(shape), np.eye(4)))
        return memory_of(Run({"sub": "1"}, "MEGRE", Path(), {"phase": tuple(paths)}))

    small, large = made(4), made(8)
    a_voxel = (large - small) / (8**3 - 4**3)
    assert 100 + 50 * echoes < a_voxel < 1000 + 300 * echoes and small < 2 * GIB


def test_broken_headers_cost_no_more_than_to_find_out(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"no header")
    assert memory_of(Run({"sub": "1"}, "MEGRE", Path(), {"phase": (tmp_path / "x.nii",)})) < 2 * GIB
    assert room(5) == 5 and room() > 0


def test_room_is_what_a_containers_or_a_jobs_limit_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(pool, "OWN_GROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/job/task\n")
    task = tmp_path / "cgroup" / "job" / "task"
    task.mkdir(parents=True)
    for folder, limit in ((task, "max"), (task.parent, str(200 << 20))):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.stat").write_text(f"anon {100 << 20}\nfile {90 << 20}\n")
    assert room() == int(0.9 * (100 << 20))
    (task.parent / "memory.max").write_text("max\n")
    assert room() > 100 << 20
