"""A disk that is full, a folder that is closed or goes away, a signal: one line, and the old results whole."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pytest

from qsmjax.cli import infer as command
from qsmjax.cli.errors import guarded
from qsmjax.cli.main import run_command
from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import load_volume, new_volume, save_volume

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def field(tmp_path):
    """A field, and a folder beside it that holds its map from an earlier run."""
    rng = np.random.default_rng(0)
    data = np.zeros((12, 12, 12))
    data[2:-2, 2:-2, 2:-2] = 0.01 * rng.normal(size=(8, 8, 8))
    save_volume(tmp_path / "field.nii", data, new_volume(data, np.eye(4)))
    (tmp_path / "out").mkdir()
    assert infer(tmp_path, "--method", "tkd") == 0
    return tmp_path


def infer(folder, *words):
    words = [str(folder / "field.nii"), "-o", str(folder / "out"), "--quiet", "--no-figure", *words]
    return run_command("infer", words)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("room", [0, 1500])
def test_a_full_disk_gets_one_line_and_leaves_the_old_map_with_its_sidecar(field, room, monkeypatch, capsys):
    """Full at the first byte, and amid the files."""
    write, before = command.write_result, contents(field)
    assert max(len(b) for b in before.values()) > 3000

    def cramped(*args):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            return write(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(command, "write_result", cramped)
    assert infer(field, "--method", "tkd", "--set", "threshold=0.2") == 2
    said = capsys.readouterr().err
    assert said == "error: the disk must have room for the results, got 'File too large': free some, then again\n"
    assert contents(field) == before and len(list((field / "out").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("room", [300, 20_000])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_training_on_a_full_disk_gets_one_line_and_goes_on_once_there_is_room(tmp_path, room, capfd, caplog):
    """Full at the first file of a checkpoint, and amid it."""
    sizes = ["width=2", "depth=1", "kernel=3", "patch=8", "batch=2", "validation_shape=16", "checkpoint_every=1"]
    words = ["--config", "tiny", "--devices", "1", "--workdir", str(tmp_path / "W"), "--set", *sizes]
    assert run_command("train", [*words, "steps=1"]) == 0
    kept = contents(tmp_path / "W" / "checkpoints" / "1")
    capfd.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        status = run_command("train", [*words, "steps=2"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capfd.readouterr().err
    assert status == 2 and "Traceback" not in caplog.text
    assert said == "error: the disk must have room for the results, got 'File too large': free some, then again\n"
    assert contents(tmp_path / "W" / "checkpoints" / "1") == kept
    assert run_command("train", [*words, "steps=2"]) == 0
    assert "goes on from step 1" in capfd.readouterr().out


def test_a_folder_that_goes_away_meanwhile_gets_one_line(field, monkeypatch, capsys):
    make = command.reconstruct

    def slow(args):
        made = make(args)
        shutil.rmtree(field / "out")
        return made

    monkeypatch.setattr(command, "reconstruct", slow)
    assert infer(field, "--method", "tkd") == 2
    assert f"error: {field / 'out'} must be a folder, got none (any more): make it first\n" == capsys.readouterr().err
    assert [p.name for p in field.iterdir()] == ["field.nii"]


def test_a_device_without_room_gets_one_line(field, monkeypatch, capsys):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 99 bytes.")

    before = contents(field)
    monkeypatch.setattr(command, "reconstruct", refuse)
    assert infer(field, "--method", "tkd") == 2
    got = "got RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."
    cure = "crop it, use a machine with more, or on a GPU say JAX_PLATFORMS=cpu"
    assert capsys.readouterr().err == f"error: the volume must fit into memory, {got}: {cure}\n"
    assert contents(field) == before


def test_a_folder_that_may_not_be_written_to_is_found_out_first(field, capsys):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copytree(field, folder, dirs_exist_ok=True)
        before = contents(folder)
        for path in (folder / "out", folder):
            path.chmod(0o555)
        # permissions do not hold for root
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)
            assert infer(folder, "--method", "tkd") == 2
        finally:
            if root:
                os.seteuid(0)
            for path in (folder, folder / "out"):
                path.chmod(0o755)
        reason = "got 'permission denied': change its permissions, or choose another place"
        assert capsys.readouterr().err == f"error: {folder / 'out'} must be accessible, {reason}\n"
        assert contents(folder) == before


def test_what_is_written_aside_together_moves_together(tmp_path):
    (tmp_path / "map.nii").write_text("old")
    with pytest.raises(KeyboardInterrupt), write_aside(tmp_path / "map.nii") as temporary:
        temporary.write_text("new")
        temporary.with_name("map.json").write_text("new")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {pathlib.Path("map.nii"): b"old"}
    with write_aside(tmp_path / "map.nii") as temporary:
        with write_aside(temporary.with_name("map.json")) as inner:
            inner.write_text("new")
        temporary.write_text("new")
        # what a kill leaves is taken for no volume by a search for volumes
        assert not [p for p in tmp_path.glob("*.nii") if p != tmp_path / "map.nii"]
    assert contents(tmp_path) == {pathlib.Path("map.nii"): b"new", pathlib.Path("map.json"): b"new"}


@pytest.mark.parametrize(("number", "wait"), [(signal.SIGTERM, 4), (signal.SIGINT, 0.5)])
def test_a_signal_amid_compiled_iterations_ends_infer_in_one_line(field, number, wait):
    """Where it compiles, and in a loop that ends in a year and never looks for signals."""
    before = contents(field)
    words = ["field.nii", "-o", "out", "--method", "tv", "--no-figure", "--set", "max_iterations=100000000"]
    # a shell may have started the tests with interrupts ignored, and a child inherits that
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, str(ROOT / "infer.py"), *words, "--set", "tolerance=1e-30"],
        cwd=field,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # lines come through the pipe as they are said, whether or not Python was told to keep none back
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        signal.signal(signal.SIGINT, ours)
        try:
            while "B0 along" not in process.stdout.readline():
                assert process.poll() is None
            time.sleep(wait)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert (process.returncode, said.count("\n")) == (128 + number, 1), said
    assert contents(field) == before and load_volume(field / "out" / "field_Chimap.nii.gz").shape == (12, 12, 12)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_falls_into_a_callback_is_raised_again_behind_it(number, capsys):
    """Python drops what a finaliser or a garbage collector's callback raises, and goes on."""

    class Finalised:
        def __del__(self):
            signal.raise_signal(number)
            for _ in range(10):
                pass

    def run():
        it = Finalised()
        del it
        for _ in range(400):
            time.sleep(0.05)
        return 0

    start, hook = time.monotonic(), sys.unraisablehook
    # a shell may have started the tests with interrupts ignored
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert guarded(run) == 128 + number and time.monotonic() - start < 10
    finally:
        signal.signal(signal.SIGINT, ours)
    assert sys.unraisablehook is hook and capsys.readouterr().err.count("\n") == 1
