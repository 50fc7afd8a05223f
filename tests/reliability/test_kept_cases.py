"""Every defect that the fuzzer and the properties found, kept."""

import contextlib
import importlib
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from qsmjax.cli.errors import guarded
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.inference.card import check_card
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion import METHODS
from qsmjax.io.aside import write_aside
from qsmjax.io.kspace import load_kspace
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.weights import save_weights
from qsmjax.models.build import build
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.training.checkpoint import Checkpoints
from qsmjax.training.config import from_dict, with_settings
from qsmjax.training.presets import preset
from qsmjax.training.progress import STATE, stored_run
from qsmjax.training.state import init_state

from .strategies import Case

CARD = {
    "name": "tiny",
    "network": {"name": "qsmnet"},
    "scaling": {"field_mean": 0.0, "field_std": 1.0, "chi_mean": 0.0, "chi_std": 1.0},
    "voxel_size": [1.0, 1.0, 1.0],
    "b0_dir": [0.0, 0.0, 1.0],
}


@pytest.mark.filterwarnings("ignore")
def test_a_few_of_the_fuzzers_cases(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "benchmarks")
    fuzz, lines = importlib.import_module("fuzz"), []
    readers = ["nifti", "params", "settings", "config", "weights", "bids", "matrix", "kspace"]
    assert fuzz.run_cases(300, readers, 1, lines.append) == 0, "\n".join(lines)


def test_an_affine_that_is_not_finite_is_refused(tmp_path):
    volume = new_volume(np.zeros((2, 2, 2)), np.eye(4))
    volume.header["srow_y"] = [0, 1, 0, np.nan]
    save_volume(tmp_path / "v.nii", volume.data, volume)
    with pytest.raises(ValueError, match="finite affine"):
        load_volume(tmp_path / "v.nii")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scaling", {"-1": 0}),
        ("scaling", 3),
        ("voxel_size", [1, 1, 0]),
        ("voxel_size", None),
        ("b0_dir", [0, 0, 0]),
        ("b0_dir", [0, float("nan"), 1]),
        ("network", 7),
        ("voxel_size", [1, 1, 10**40]),
        ("calibration", -1.0),
        ("bootstrap", [0.0, 1.0]),
    ],
)
def test_a_card_that_says_anything_is_refused(tmp_path, key, value):
    check_card(tmp_path, CARD)
    with pytest.raises(ValueError, match=key):
        check_card(tmp_path, CARD | {key: value})


@pytest.mark.parametrize(
    "config",
    [
        {"name": ["qsmnet"]},
        {"name": "qsmnet", "depth": [2]},
        {"name": "qsmnet", "dtype": {}},
        {"name": "qsmnet", "width": 2**70},
        {"name": "qsmnet", "remat": 3},
    ],
)
def test_a_network_of_other_kinds_is_refused(config):
    with pytest.raises(ValueError, match="must be"):
        build(config)


def test_numbers_without_end_are_refused():
    with pytest.raises(ValueError, match="below 2147483648"):
        parse_settings(["max_iterations=" + "9" * 400], options_of(METHODS["tv"]), "tv")
    with pytest.raises(ValueError, match="below 2147483648"):
        with_settings(preset("tiny"), ["learning_rate=" + "9" * 400])
    with pytest.raises(ValueError, match="below 2147483648"):
        from_dict({"steps": 2**70})


def test_k_space_with_a_header_of_open_brackets_is_refused(tmp_path):
    path = tmp_path / "k.npy"
    np.save(path, np.zeros((2, 2, 2, 2), np.complex64))
    path.write_bytes(path.read_bytes().replace(b")", b"("))
    with pytest.raises(ValueError, match=r"whole \.npy file"):
        load_kspace(path)
    np.save(path, np.full((2, 2, 2, 2), 1e300 + 0j))
    with pytest.raises(ValueError, match="finite"):
        load_kspace(path)


@pytest.mark.parametrize("card", [{}, {"config": [1]}])
def test_a_state_without_its_config_is_refused(tmp_path, card):
    (tmp_path / "stage_0").mkdir()
    save_weights(tmp_path / "stage_0" / STATE, {"0000": np.zeros(1)}, {"name": "state", **card})
    with pytest.raises(ValueError, match="config must hold keys"):
        stored_run(tmp_path)


@pytest.mark.parametrize(("part", "text"), [("config", "{"), ("loader", '{"next": 2}'), ("state", "")])
def test_a_checkpoint_that_is_not_whole_is_told_in_one_line(tmp_path, part, text):
    shutil.copytree(pathlib.Path(__file__).parent / "workdir_0.1.0", tmp_path / "W")
    step = tmp_path / "W" / "checkpoints" / "2"
    (step / part / ("_METADATA" if part == "state" else "metadata")).write_text(text)
    with contextlib.closing(Checkpoints(tmp_path / "W")) as checkpoints, pytest.raises(ValueError) as raised:
        config = checkpoints.config()
        checkpoints.next_batch()
        checkpoints.restore(jax.eval_shape(lambda: init_state(config, build(config.model()))))
    assert str(raised.value).startswith(f"{step} must ") and "\n" not in str(raised.value)


@pytest.mark.parametrize("method", [METHODS["ndi"], METHODS["tkd"], INVERSIONS["learned"], BACKGROUNDS["ismv"]])
def test_what_is_not_finite_gives_no_map(method):
    case = Case((16, 16, 16), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), "full", "nan inside", False, False, 0)
    with pytest.raises((ValueError, FloatingPointError), match="finite"):
        method(case.scan())


def test_broken_numbers_and_signals_get_one_line_and_leave_no_half_file(tmp_path, capsys):
    # a shell may have started the tests with interrupts ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def broken() -> int:
        raise FloatingPointError("tv must stay finite")

    assert guarded(broken) == 2 and capsys.readouterr().err == "error: tv must stay finite\n"
    (tmp_path / "map.nii").write_text("old")
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):

        def stopped(number=number) -> int:
            with write_aside(tmp_path / "map.nii") as temporary:
                temporary.write_text("half")
                os.kill(os.getpid(), number)
                for _ in range(1000):
                    pass
            return 0

        assert guarded(stopped) == status and capsys.readouterr().err.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["map.nii"] and (tmp_path / "map.nii").read_text() == "old"
    signal.signal(signal.SIGINT, before)
