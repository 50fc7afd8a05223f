"""The QSM-CI submissions through the published runner; the figures that its scorer prints are ours."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from qsmjax.evaluation.metrics import scores
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry

SUBMISSIONS = Path(__file__).parents[2] / "integrations" / "qsm_ci"
SHAPE = (21, 24, 23)
TE = (0.004, 0.012, 0.020)
B0 = 7.0


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Balls of susceptibility in the benchmark's layout, B0 tilted, with a segmentation."""
    points = np.array(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    ball = lambda centre, radius: np.linalg.norm(points - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius
    mask = ball((0, 0, 0), 9)
    seg = np.select([ball((2, 1, 0), 3), ball((-4, 3, 2), 2), ball((1, -4, -3), 2), mask], [1, 2, 16, 8], 0)
    chi = np.select([seg == 1, seg == 2, seg == 16], [0.10, 0.05, -0.2], 0.0)
    b0_dir = [0, np.sin(0.3), np.cos(0.3)]
    field = np.asarray(forward_field(chi, geometry(SHAPE, (1, 1, 1.2), b0_dir), padding=1))
    rng = np.random.default_rng(0)
    noisy = field + 0.002 * rng.normal(size=SHAPE)
    phase = np.stack([2 * np.pi * 42.577478518 * B0 * te * noisy + 0.2 for te in TE], -1)
    folder = tmp_path_factory.mktemp("case")
    volumes = {
        "localfield": noisy * mask,
        "mask": mask,
        "chimap": chi,
        "seg": seg,
        "phase": np.angle(np.exp(1j * phase)),
        "magnitude": np.stack([mask * np.exp(-20 * te) + 0.01 for te in TE], -1),
    }
    for name, data in volumes.items():
        data = np.asarray(data, np.float32)
        save_volume(folder / f"{name}.nii.gz", data, new_volume(data, np.diag([1, 1, 1.2, 1])))
    told = {"TE": TE, "B0": B0, "B0_dir": b0_dir, "voxel_size": [1, 1, 1.2]}
    (folder / "params.json").write_text(json.dumps(told))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "settings"),
    [
        ("qsmjax-tv", ["localfield"], ["--set", "weight=1e-4"]),
        ("qsmjax-learned", ["localfield"], []),
        ("qsmjax-pipeline", ["phase", "magnitude"], ["--set", "background=joint", "--set", "method=tkd"]),
    ],
)
def test_figures_that_the_runner_prints_are_ours(case, tmp_path, name, inputs, settings, capfd, monkeypatch):
    cli = pytest.importorskip("qsm_ci.cli")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    files = [word for key in (*inputs, "mask") for word in (f"--{key}", str(case / f"{key}.nii.gz"))]
    words = ["--params", str(case / "params.json"), "--truth", str(case / "chimap.nii.gz")]
    words += ["--seg", str(case / "seg.nii.gz"), "-o", str(tmp_path / "chi.nii.gz"), *settings]
    assert cli.main(["run", "--runner", "local", str(SUBMISSIONS / name), *files, *words]) == 0
    printed = dict(re.findall(r"^  (\w+)\s+([-\d.]+)$", capfd.readouterr().out, re.MULTILINE))
    read = lambda path: load_volume(path).data
    ours = scores(*(read(p) for p in (tmp_path / "chi.nii.gz", case / "chimap.nii.gz", case / "mask.nii.gz")),
                  labels=read(case / "seg.nii.gz").astype(int))  # fmt: skip
    shared = [key for key in printed if key in ours]
    assert {"nrmse", "nrmse_detrend", "hfen", "xsim", "correlation", "nrmse_dgm", "coverage"} <= set(shared)
    for key in shared:
        np.testing.assert_allclose(float(ours[key]), float(printed[key]), rtol=2e-4, atol=1e-4, err_msg=key)
    assert float(printed["nrmse"]) < 75


@pytest.mark.parametrize("folder", sorted(SUBMISSIONS.glob("qsmjax-*")), ids=lambda path: path.name)
def test_what_a_submission_declares_is_what_the_runner_knows(folder):
    runner = pytest.importorskip("qsm_ci.runner")
    told = runner._parse_manifest(folder)
    assert told["slug"] == folder.name and told["license"] == "Apache-2.0" and told["image"]
    script = (folder / "run.sh").read_text()
    for parameter in told["parameters"]:
        assert f"QSMCI_SET_{parameter['name'].upper()}" in script
