"""A work folder that 0.1.0 left is read, gives the map that it gave then, and is trained on.

workdir_0.1.0 was made by `train.py --config tiny --data MAPS --set width=1 depth=1 kernel=1 patch=8 batch=2 steps=2`
on maps of noise; map.npy is what its network made of `scan()` then.
"""

import pathlib
import shutil

import jax
import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.inference.network import load_network
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.models.build import build
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.training.checkpoint import Checkpoints, load_for_inference
from qsmjax.training.state import init_state

OLD = pathlib.Path(__file__).parent / "workdir_0.1.0"


def scan() -> FieldMap:
    """Sources of sines in a box."""
    at = np.indices((10, 9, 8))
    return field_map(
        0.02 * np.sin(at[0]) * np.cos(0.7 * at[1]) * np.sin(0.4 * at[2] + 1),
        (at > 0).all(axis=0),
        geometry((10, 9, 8), (1, 1, 1), (0, 0, 1)),
    )


def test_its_network_gives_the_map_that_it_gave():
    network = load_network(OLD)
    assert (network.name, network.card["step"]) == ("tiny", 2)
    expected = np.load(OLD / "map.npy", allow_pickle=False)
    assert np.abs(expected).max() > 0.003
    np.testing.assert_allclose(network.invert(scan()).chi, expected, atol=1e-7)


def test_its_checkpoint_is_restored(tmp_path):
    shutil.copytree(OLD, tmp_path / "W")
    checkpoints = Checkpoints(tmp_path / "W")
    try:
        config = checkpoints.config()
        like = jax.device_get(jax.jit(lambda: init_state(config, build(config.model())))())
        state = checkpoints.restore(like)
        assert (int(state.step), checkpoints.next_batch(), config.width, config.steps) == (2, 2, 1, 2)
    finally:
        checkpoints.close()
    exported = load_for_inference(OLD)[0]
    jax.tree.map(np.testing.assert_array_equal, exported, jax.device_get(state.variables()))


@pytest.mark.slow
def test_its_training_goes_on(tmp_path, capsys):
    workdir, maps = tmp_path / "W", tmp_path / "maps"
    shutil.copytree(OLD, workdir)
    maps.mkdir()
    mask = np.pad(np.ones((6, 6, 6)), 1)
    for seed, name in enumerate(("one", "two")):
        chi = 0.05 * mask * np.random.default_rng(seed).normal(size=mask.shape)
        for end, data in (("chi", chi), ("mask", mask), ("field", chi / 3)):
            save_volume(maps / f"{name}_{end}.nii.gz", data, new_volume(data, np.eye(4)))
    words = ["--workdir", str(workdir), "--data", str(maps), "--devices", "1", "--steps", "3"]
    assert run_command("train", words) == 0
    assert "goes on from step 2: 3 steps" in capsys.readouterr().out
    assert load_for_inference(workdir)[1]["step"] == 3
