"""`qsmjax study` on folders of its user: a right result, or one line that says what is missing."""

import argparse
import csv
import dataclasses
import json
import os
import re

import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.cli.orientations import read_orientation
from qsmjax.cli.stages import Stage
from qsmjax.cli.study import add_arguments, doubts, plan
from qsmjax.cli.study_jobs import SubjectJob, as_head_scan, resolve_method, run_jobs
from qsmjax.inversion import tfi
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.registration.flirt import to_flirt, write_flirt
from qsmjax.registration.resample import resample

QUICK = ["--no-figures", "--quiet", "--lambda-subjects", "0"]
SHAPES = {"a": (20, 20, 20), "b": (22, 20, 19)}


def turn(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]])


def write_subject(folder, *, truth=True, names=("a", "b"), mask=True):
    """A head of balls, upright and turned by 28 degrees on a grid of its own."""
    for name in names:
        shape, motion = SHAPES[name], turn(28 if name == "b" else 0)
        affine = np.eye(4)
        affine[:3, 3] = -(np.asarray(shape) - 1) / 2
        index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        world = index @ affine[:3, :3].T + affine[:3, 3]
        own = world @ motion[:3, :3]
        one, other = (
            np.exp(-np.sum((own - centre) ** 2, -1) / (2 * width**2))
            for centre, width in (((2, 1, 0), 2.0), ((-4, 2, 3), 1.8))
        )
        inside = np.linalg.norm(world, axis=-1) < 8.5
        chi = inside * (0.1 * one - 0.06 * other)
        field = np.asarray(forward_field(chi, geometry_from_affine(affine, shape)))
        labels = np.select([one > 0.6, other > 0.6, inside], [7, 8, 9], 0)
        volumes = {"localfield": np.where(inside, field, 0) if mask else field + 1e-6}
        volumes |= {"truth": chi, "segmentation": labels} if truth else {}
        (folder / name).mkdir(parents=True)
        for what, data in volumes.items():
            save_volume(folder / name / f"{what}.nii.gz", data, new_volume(data, affine))
        if name == "a":
            reference = affine, shape
        write_flirt(folder / name / "to_reference.mat", to_flirt(motion, affine, shape, *reference))
    save_json(folder / "segmentation.json", {"caudate": [7], "putamen": [8], "white": [9]})


def table(out, name):
    with (out / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_maps_of_a_shipped_network_are_not_those_of_its_next_weights():
    prints = [resolve_method(spec, []).fingerprint for spec in ("learned", "a=learned", "qsmnet", "tv")]
    assert prints[0] == prints[1] != prints[2] and prints[3] == "tv []"


def test_behind_the_default_removal_a_study_runs_what_infer_runs():
    method = resolve_method("mine=learned", ["mine.residue=false", "mine.halo=8"])
    other = method.behind["tfi"]
    assert (method.name, other.name, other.label) == ("learned", "learned_total", "mine")
    assert method.options == {"bootstrap": False, "residue": False, "halo": 8}, "no deviation is kept"
    assert other.options == {"bootstrap": False, "halo": 8}
    assert not resolve_method("tv", []).behind


def test_a_scan_carries_how_it_was_aligned_and_what_took_its_background_out(tmp_path):
    write_subject(tmp_path / "s", names=("a",))
    read = read_orientation(tmp_path / "s" / "a", None)
    given = as_head_scan(read, tmp_path / "s" / "a", {})
    assert (given.removal, given.correlation) == (None, None)
    made = dataclasses.replace(read, stages={"background": Stage("tfi", tfi, {})}, correlation=0.6)
    assert (as_head_scan(made, tmp_path, {}).removal, as_head_scan(made, tmp_path, {}).correlation) == ("tfi", 0.6)


def test_one_orientation_has_no_curve_over_the_weight(tmp_path):
    for name in ("one/a", "two/a", "two/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "localfield.nii.gz").touch()
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    jobs = plan(parser.parse_args(["out", "--data", str(tmp_path), "--lambda-subjects", "2"]), tmp_path / "out")
    assert {job.name: job.variation for job in jobs} == {"one": False, "two": True}


def test_a_doubtful_registration_is_told(tmp_path):
    (tmp_path / "maps" / "s").mkdir(parents=True)
    known = {"Orientations": ["a", "b", "c"], "Correlations": [None, 0.99, 0.5]}
    save_json(tmp_path / "maps" / "s" / "subject.json", known)
    (line,) = doubts(tmp_path, ["s"])
    assert "subject s, orientation c was registered with a correlation of 0.50" in line


class Dying(SubjectJob):
    """A subject at which a worker dies."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_worker_that_dies_takes_its_own_subject_along_and_no_other(tmp_path):
    jobs = [
        kind(out=str(tmp_path / "out"), name=name, index=0, folder=str(tmp_path), methods=("tkd",))
        for name, kind in (("a", SubjectJob), ("b", Dying))
    ]
    failed = run_jobs(jobs, workers=2, quiet=True)
    assert "subject b must leave its worker alive" in failed.pop("b")
    assert set(failed) == {"a"} and "must hold at least 1 folder(s)" in failed["a"]


@pytest.mark.slow
def test_two_orientations_on_two_grids_are_compared_and_added_to(tmp_path):
    write_subject(tmp_path / "s1")
    words = ["--data", str(tmp_path / "s1"), *QUICK]
    out = tmp_path / "out"
    assert run_command("study", [str(out), "--methods", "one=tkd,two=tkd", *words]) == 0
    rows = [r for r in table(out, "tests_truth") if r["methods"] == "one - two"]
    assert len(rows) == 5 and all(float(r["p"]) == 1 and float(r["d_z"]) == 0 and r["anatomies"] == "1" for r in rows)
    assert all(float(r["p (Holm)"]) == 1 for r in rows)
    merit = {r["method"]: r for r in table(out, "metrics_truth")}
    assert float(merit["cosmos"]["NRMSE [%] mean"]) < float(merit["one"]["NRMSE [%] mean"])
    # COSMOS turned back lies where that orientation's truth lies
    maps = [load_volume(out / "maps" / "s1" / "b" / f"{n}_Chimap.nii.gz").data for n in ("cosmos", "truth")]
    assert np.corrcoef(*(m.ravel() for m in maps))[0, 1] > 0.9
    assert {r["region"] for r in table(out, "regions")} == {"caudate", "putamen", "white matter"}

    kept = out / "maps" / "s1" / "a" / "one.json"
    before = kept.stat().st_mtime_ns
    again = ["--methods", "one=tkd,two=tkd,soft=tikhonov", "--set", "two.threshold=0.2", *words]
    assert run_command("study", [str(out), *again]) == 0
    assert kept.stat().st_mtime_ns == before
    told = json.loads((out / "maps" / "s1" / "a" / "two.json").read_text())
    assert "threshold" in told["Fingerprint"]
    assert {r["method"] for r in table(out, "metrics_cosmos")} == {"one", "two", "soft"}
    assert "| soft |" in (out / "study.md").read_text()
    points = [r for r in table(out, "every_scan") if r["method"] == "soft" and r["metric"] == "nrmse"]
    assert {(r["subject"], r["orientation"], r["against"]) for r in points} == {
        ("s1", o, r) for o in ("a", "b") for r in ("truth", "cosmos")
    }


@pytest.mark.slow
def test_a_truth_of_one_orientation_is_used_where_it_is(tmp_path):
    write_subject(tmp_path / "s")
    (tmp_path / "s" / "b" / "truth.nii.gz").unlink()
    words = ["--data", str(tmp_path / "s"), "--methods", "tkd", "--quiet", "--lambda-subjects", "0"]
    assert run_command("study", [str(tmp_path / "out"), *words]) == 0
    assert "against the truth: mean ± std over 1 scans" in (tmp_path / "out" / "study.md").read_text()
    assert np.isfinite(float(table(tmp_path / "out", "metrics_truth")[0]["NRMSE [%] mean"]))
    assert (tmp_path / "out" / "figures" / "orientations.png").exists()


@pytest.mark.slow
def test_one_subject_that_fails_leaves_the_others_whole(tmp_path, capsys):
    write_subject(tmp_path / "data" / "good", truth=False)
    write_subject(tmp_path / "data" / "lone", truth=False, names=("a",))
    words = [str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--methods", "tkd", "--jobs", "2", *QUICK]
    assert run_command("study", words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "lone must have two orientations or a truth.nii.gz" in said
    assert [r["method"] for r in table(tmp_path / "out", "metrics_cosmos")] == ["tkd"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": False, "names": ("a",)}, "subject s, orientation a: .*must be zero outside the head"),
        ({"truth": False, "names": ("a",)}, "must have two orientations or a truth"),
        ({"names": ()}, "--data must hold SUBJECT/ORIENTATION folders"),
    ],
)
def test_what_is_missing_is_said_in_a_line(tmp_path, options, message, capsys):
    (tmp_path / "data" / "s").mkdir(parents=True)
    write_subject(tmp_path / "data" / "s", **options)
    words = [str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--methods", "tkd", *QUICK]
    assert run_command("study", words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "tkdd"], "did you mean tkd?"),
        (["--methods", "tkd,tkd"], "must have a label each"),
        (
            ["--methods", "cosmos=tkd"],
            "the study's own truth, cosmos, subject, regularisation, got 'cosmos'",
        ),
        (["--methods", "subject=tkd"], "got 'subject': say LABEL=NAME"),
        (["--methods", "regularisation=tkd"], "got 'regularisation': say LABEL=NAME"),
        (["--methods", "tkd,one=tfi"], "--methods must be inversions of a local field, got tfi"),
        (["--methods", "../x=tkd"], "labels that can be file names"),
        (["--methods", "tkd", "--set", "tkd.treshold=1"], "did you mean threshold?"),
        (["--methods", "tkd", "--set", "tv.weight=1"], "--set must be LABEL.KEY=VALUE, LABEL one of tkd"),
        (["--data", "nowhere"], "--data must be a folder"),
        (["--orientations", "0"], "--orientations must be 1 to 9"),
        (["--subjects", "0"], "--subjects must be at least 1"),
        (["--tilt", "0"], "--tilt must be above 0"),
        (["--labels", "nowhere.nii.gz"], "nowhere.nii.gz must be a NIfTI file or a folder of them"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, words, message, capsys):
    assert run_command("study", [str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_simulated_subject_goes_through_and_its_cohort_is_kept(tmp_path, capsys):
    x, y, z = np.meshgrid(*[np.arange(12) - 5.5] * 3, indexing="ij")
    r = np.sqrt(x**2 + (1.1 * y) ** 2 + z**2)
    labels = np.select([(x - 1.5) ** 2 + y**2 + z**2 < 3, r < 3.5, r < 5], [11, 2, 3], 0).astype(np.float32)
    save_volume(tmp_path / "head.nii.gz", labels, new_volume(labels, np.diag([4.0, 4.0, 4.0, 1.0])))
    words = ["--labels", str(tmp_path / "head.nii.gz"), "--voxel-size", "4", "4", "4", "--fine", "2"]
    words += ["--orientations", "2", "--methods", "tkd", "--no-lesions", *QUICK]
    out = tmp_path / "out"
    assert run_command("study", [str(out), *words]) == 0
    # the matrix that is written brings one truth onto the other
    a, b = (load_volume(out / "maps" / "sub-01" / f"orient-{i}" / "truth_Chimap.nii.gz") for i in (1, 2))
    transform = np.asarray(json.loads((out / "maps" / "sub-01" / "subject.json").read_text())["Transforms"][1])
    back = np.asarray(resample(b.data, b.affine, a.affine, a.data.shape, transform))
    inside = a.data != 0
    assert np.corrcoef(back[inside], a.data[inside])[0, 1] > 0.7
    assert run_command("study", [str(out), *words, "--seed", "1"]) == 2
    assert "must go on with the cohort that it began with, got seed 1" in capsys.readouterr().err
    # a scan that is another one by now
    (out / "scans" / "sub-01" / "orient-2" / "noise.nii.gz").unlink()
    assert run_command("study", [str(out), *words]) == 2
    assert "sub-01 must go on with the scans that it was made of, got other orient-2/noise" in capsys.readouterr().err
