"""What is kept of a subject: by what it was made, how much a map covers, and what may not take its place."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion.solution import Solution
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import geometry
from qsmjax.study import regularisation
from qsmjax.study.scans import HeadScan, Method
from qsmjax.study.subject import run_subject

SHAPE = (8, 8, 8)
MASK = np.ones(SHAPE, bool)
CHI = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
ORIGIN = {"Orientations": ["a"], "Register": True, "InputSHA256": {"a/phase.nii.gz": "1"}}


def head_scan(name="a", **known):
    local = FieldMap(jnp.asarray(CHI), jnp.asarray(MASK), geometry(SHAPE))
    return HeadScan(name, local, new_volume(CHI, np.eye(4)), **({"transform": np.eye(4), "truth": CHI} | known))


def half(field_map):
    """The field itself, known in one half."""
    return Solution(chi=field_map.field.at[:4].set(0), iterations=jnp.int32(1), residual=jnp.float32(0))


def record(place, scan, method):
    run_subject(place, ORIGIN, lambda: [scan], [method], lambda what: None)
    return json.loads((place / scan.name / f"{method.label}.json").read_text())


def test_a_map_that_is_known_in_one_half_covers_one_half(tmp_path):
    told = record(tmp_path, head_scan(), Method("mine", "half", half, {}, "half"))
    assert told["Scores"]["truth"]["coverage"] == 0.5 and told["Inversion"] == "half"


@pytest.mark.parametrize("removal", [None, "tfi", "vsharp"])
def test_other_weights_run_behind_the_removal_that_they_were_trained_for(tmp_path, removal):
    other = Method("mine", "other", half, {}, "other")
    method = Method("mine", "first", half, {}, "first", {"tfi": other})
    told = record(tmp_path, head_scan(removal=removal, correlation=0.5), method)
    ran = "other" if removal == "tfi" else "first"
    assert (told["Inversion"], told["Fingerprint"]) == (ran, f"{ran} []")
    assert json.loads((tmp_path / "subject.json").read_text())["Correlations"] == [0.5]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"Register": False}, "Register"),
        ({"InputSHA256": {"a/phase.nii.gz": "2"}}, "a/phase.nii.gz"),
        ({"InputSHA256": {}}, "a/phase.nii.gz"),
        ({"Orientations": ["a", "b"]}, "Orientations"),
    ],
)
def test_other_scans_do_not_take_the_place_of_those_that_were_done(tmp_path, changed, named):
    (tmp_path / "subject.json").write_text(json.dumps(ORIGIN))
    with pytest.raises(ValueError, match=f"got other {named}: choose another OUT, or remove that folder"):
        run_subject(tmp_path, ORIGIN | changed, list, [], lambda what: None)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("shift", [0, 100])
def test_what_the_curve_over_the_weight_has_nothing_for_is_left_out(tmp_path, monkeypatch, shift):
    """No region in the segmentation; and no voxel that both orientations share."""
    moved = np.eye(4)
    moved[0, 3] = shift
    scans = [head_scan("a"), head_scan("b", transform=moved)]
    for scan in scans:
        (tmp_path / scan.name).mkdir()
        for name, data in (("mask", MASK), ("regions", np.zeros(SHAPE))):
            save_volume(tmp_path / scan.name / f"{name}.nii.gz", data, scan.volume)
    made = Solution(chi=jnp.asarray(CHI), iterations=jnp.int32(1), residual=jnp.float32(0), weight=jnp.float32(1))
    monkeypatch.setattr(regularisation, "medi", lambda *_, **__: made)
    regularisation.run_regularisation(tmp_path, lambda: scans, (1.0,))
    (row,) = json.loads((tmp_path / "regularisation.json").read_text())["Rows"]
    assert set(row) == ({"weight", "variation"} if shift == 0 else {"weight"})
