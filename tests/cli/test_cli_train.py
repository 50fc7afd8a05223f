"""train.py as a user meets it: one run from the command line, and one line for what cannot be."""

import json

import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.cli.train import choose_config
from qsmjax.io.lock import locked
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.training.checkpoint import load_for_inference
from qsmjax.training.config import with_settings
from qsmjax.training.presets import preset

SMALL = ["width=2", "depth=1", "kernel=3", "patch=8", "batch=2", "steps=2", "validate_every=1", "checkpoint_every=2"]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    mask = np.zeros((10, 10, 10), np.float32)
    mask[1:-1, 1:-1, 1:-1] = 1
    for name in ("one", "two"):
        chi = new_volume(0.05 * mask * rng.normal(size=mask.shape), np.eye(4))
        for end, data in (("chi", chi.data), ("mask", mask), ("field", chi.data / 3)):
            save_volume(folder / f"{name}_{end}.nii.gz", data, chi)
    return folder


@pytest.fixture(scope="module")
def trained(maps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "W"
    arguments = ["--workdir", str(workdir), "--config", "tiny", "--data", str(maps), "--devices", "1", "--set", *SMALL]
    assert run_command("train", arguments) == 0
    return workdir


def test_a_run_leaves_weights_metrics_and_pictures(trained):
    for name in ("weights.safetensors", "metrics.csv", "learning_curve.png", "validation.png", "checkpoints"):
        assert (trained / name).exists()
    card = load_for_inference(trained)[1]
    assert card["step"] == 2 and card["config"]["width"] == 2
    assert card["training_data"].startswith("1 maps: one") and card["licence"] and len(card["sha256"]) == 64
    json.dumps(card)


def test_the_same_command_finds_the_run_done(trained, maps, capsys):
    assert run_command("train", ["--workdir", str(trained), "--data", str(maps), "--devices", "1"]) == 0
    assert "goes on from step 2: 2 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--config", "tinny"], "did you mean 'tiny'"),
        (["--set", "widht=3"], "did you mean 'width'"),
        (["--set", "width=x"], "width must be a whole number"),
        (["--steps", "0"], "steps must be positive"),
        (["--devices", "0"], "--devices must be at least 1"),
        (["--data", "no/such/folder"], "must be a folder of maps"),
        (["--config", "learned", "--set", "noise=1,2"], "--set noise must be left out"),
        (["--config", "learned", "--data", "maps"], "--data must be left out for --config learned, got maps"),
        (["--config", "learned", "--validation", "maps"], "--validation must be left out"),
        (["--config", "learned", "--profile"], "--profile must be left out"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(extra, message, tmp_path, capsys):
    assert run_command("train", ["--workdir", str(tmp_path / "W"), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_run_keeps_its_network_and_its_preset(trained, capsys):
    assert run_command("train", ["--workdir", str(trained), "--config", "qsmnet"]) == 2
    assert "--config must be tiny" in capsys.readouterr().err
    assert run_command("train", ["--workdir", str(trained), "--set", "width=3"]) == 2
    assert "network must stay" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["remat=true", "dtype=bfloat16", "momentum=0.5", "schedule=constant"])
def test_what_has_no_size_may_change_as_a_run_goes_on(trained, setting):
    name = setting.split("=")[0]
    assert getattr(choose_config(trained, None, [setting], None), name) == getattr(
        with_settings(preset("tiny"), [setting]), name
    )


@pytest.mark.parametrize(
    ("setting", "message"), [("ema=0", "ema must stay above zero"), ("clip=1", "clip must stay zero")]
)
def test_what_a_state_would_not_fit_is_told_by_name(trained, setting, message, capsys):
    assert run_command("train", ["--workdir", str(trained), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert message in error and "move it away" not in error


def test_a_run_goes_on_with_its_own_data_alone(trained, maps, capsys):
    assert run_command("train", ["--workdir", str(trained), "--steps", "3", "--devices", "1"]) == 2
    assert "data must stay those of" in capsys.readouterr().err
    assert load_for_inference(trained)[1]["training_data"].startswith("1 maps: one")


def test_a_tpu_alone_trains_the_learned_inversion(maps, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("qsmjax.training.hosts._has_tpu", lambda: True)
    monkeypatch.setattr("qsmjax.cli.train.learn", lambda *given, **_: asked.append(given) or 10**9)
    words = ["--workdir", str(tmp_path / "W"), "--config", "learned", "--labels", str(maps), "--quiet"]
    assert run_command("train", words) == 0 and len(asked) == 1


def test_a_second_run_in_the_folder_is_refused(trained, capsys):
    with locked(trained):
        assert run_command("train", ["--workdir", str(trained)]) == 2
    assert "must belong to one run" in capsys.readouterr().err
