"""`qsmjax bids` on six simulated subjects, on a real scheduler with worker processes, one of which is killed."""

import errno
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bids_dataset import make_dataset

from qsmjax.cli import participant
from qsmjax.cli.bids_scan import told_of
from qsmjax.cli.main import main
from qsmjax.inference import network
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.inversion.direct import solve_tkd, tkd
from qsmjax.inversion.method import method
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import load_json, save_json

METHODS = ("--set", "background.method=joint", "--method", "tkd")
"""Spheres take too much off so small a head."""


def bids(root, out, *words, level="participant"):
    return main(["bids", str(root), str(out), level, *map(str, words)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("bids") / "raw"
    truth = make_dataset(root)
    image = load_volume(root / "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz")
    folder = root / "derivatives" / "strip" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    save_volume(folder / "sub-01_desc-brain_mask.nii.gz", truth["sub-01"][1], image)
    return root, truth


@pytest.fixture(scope="module")
def cohort(dataset, tmp_path_factory):
    """The derivatives, made by two workers of which one is killed at its work, and what was said."""
    distributed = pytest.importorskip("distributed")
    out = tmp_path_factory.mktemp("derivatives") / "out"
    script = (Path(sys.executable).with_name("qsmjax"), "bids", dataset[0], out, "participant", *METHODS)
    script = (*script, "--derivatives", dataset[0] / "derivatives" / "strip")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit="3GiB"
    ) as cluster:
        killer = threading.Thread(target=kill_one_at_work, args=(cluster, out), daemon=True)
        killer.start()
        told = subprocess.run(
            [*map(str, script), "--scheduler", cluster.scheduler_address], capture_output=True, text=True, check=False
        )
        killed = getattr(killer, "killed", None)
    return out, told, killed


def kill_one_at_work(cluster, out):
    """Wait for the first map, then kill a worker that has a scan in hand."""
    limit = time.monotonic() + 300
    while time.monotonic() < limit:
        if any(out.glob("sub-*/anat/*_Chimap.nii.gz")):
            for nanny in list(cluster.workers.values()):
                state = cluster.scheduler.workers.get(nanny.worker_address)
                if state and state.processing:
                    os.kill(nanny.pid, signal.SIGKILL)
                    threading.current_thread().killed = list(state.processing)
                    return
        time.sleep(0.01)


def test_a_killed_worker_loses_nothing(cohort):
    out, told, killed = cohort
    assert killed, "no worker was at work as the first map stood"
    assert told.returncode == 1, told.stderr
    # a map that stood just before the kill is not made twice
    summary = re.search(r"(\d) maps made, (\d) skipped, 1 failed, of 6 scans", told.stdout)
    assert summary and int(summary[1]) + int(summary[2]) == 5, told.stdout
    # what the kill broke off may lie in a hidden folder
    assert len(list(out.glob("**/anat/*_Chimap.nii.gz"))) == 5


def test_the_broken_one_has_its_reason_in_one_line(cohort):
    out, told, _ = cohort
    failed = [line for line in told.stderr.splitlines() if "failed" in line]
    assert len(failed) == 1 and failed[0].startswith("sub-05: failed: ") and "whole NIfTI file" in failed[0]
    assert "whole NIfTI file" in (out / "logs" / "sub-05.txt").read_text()
    assert not list(out.glob("sub-05/anat/*.nii.gz"))


def test_maps_are_right_on_their_own_grids(cohort, dataset):
    root, truth = dataset
    for stem, (chi, _) in truth.items():
        if stem == "sub-05":
            continue
        (path,) = cohort[0].glob(f"**/anat/{stem}_Chimap.nii.gz")
        found = load_volume(path)
        kept = load_volume(path.with_name(f"{stem}_desc-qsm_mask.nii.gz")).data > 0
        assert np.corrcoef(found.data[kept], chi[kept])[0, 1] > 0.8, stem
        image = next((root / path.relative_to(cohort[0]).parent).glob(f"{stem}*_part-*.nii*"))
        np.testing.assert_array_equal(found.affine, load_volume(image).affine)


def test_sidecars_say_where_a_map_came_from(cohort):
    told = load_json(cohort[0] / "sub-02" / "anat" / "sub-02_Chimap.json")
    np.testing.assert_allclose(told["MagneticFieldStrength"], 123.2 / 42.577478518)
    np.testing.assert_allclose(told["B0Direction"], [0, np.sin(np.radians(25)), np.cos(np.radians(25))], atol=1e-6)
    assert told["EchoTime"] == [0.004, 0.01, 0.018] and told["Units"] == "ppm"
    assert told["Sources"][0] == "bids:raw:sub-02/anat/sub-02_echo-1_part-mag_MEGRE.nii.gz"
    noise = load_volume(cohort[0] / "sub-02" / "fmap" / "sub-02_desc-noise_fieldmap.nii.gz").data
    assert 0 < np.median(noise[noise > 0]) < 0.01 * 123.2  # Hz


def test_the_group_gets_a_table_of_regions_and_a_page(cohort, dataset, tmp_path, capsys):
    root, truth = dataset
    image = load_volume(root / "sub-02/anat/sub-02_echo-1_part-mag_MEGRE.nii.gz")
    folder = tmp_path / "seg" / "sub-02" / "anat"
    folder.mkdir(parents=True)
    chi = truth["sub-02"][0]
    save_volume(folder / "sub-02_dseg.nii.gz", np.select([chi > 0.1, chi < -0.06], [1, 7]), image)
    (tmp_path / "seg" / "dseg.tsv").write_text("index\tname\n1\t<i>ron\n")
    assert bids(root, cohort[0], "--derivatives", tmp_path / "seg", level="group") == 1
    assert "5 maps, 1 scans without one" in capsys.readouterr().out
    lines = [line.split("\t") for line in (cohort[0] / "group_regions.tsv").read_text().splitlines()]
    rows = {(row[2], row[3]): dict(zip(lines[0], row)) for row in lines[1:]}
    assert len(rows) == 5 + 2 and rows["sub-06_ses-a_run-1", "mask"]["session_id"] == "ses-a"
    assert float(rows["sub-02", "<i>ron"]["mean"]) > 0.05 > -0.03 > float(rows["sub-02", "label-7"]["mean"])
    page = (cohort[0] / "group_Chimap.html").read_text()
    assert "<i>ron" not in page and "&lt;i&gt;ron" in page
    assert page.count("data:image/png") == 5 and "sub-05: " in page and 'src="http' not in page


def test_the_group_says_what_is_not_to_be_compared(cohort, dataset, tmp_path, capsys):
    out = shutil.copytree(cohort[0], tmp_path / "out")
    sidecar = out / "sub-02" / "anat" / "sub-02_Chimap.json"
    told = load_json(sidecar)
    save_json(sidecar, told | {"Method": "tv", "Settings": told["Settings"] | {"reference": "none"}})
    (out / "sub-06" / "ses-a" / "anat" / "sub-06_ses-a_run-1_Chimap.json").unlink()
    (out / "logs" / "sub-03.txt").write_text("no room\nmore\n")
    elsewhere = new_volume(np.ones((30, 30, 30)), np.eye(4))
    folder = tmp_path / "seg" / "sub-04" / "anat"
    folder.mkdir(parents=True)
    save_volume(folder / "sub-04_dseg.nii.gz", elsewhere.data, elsewhere)
    assert bids(dataset[0], out, "--derivatives", tmp_path / "seg", level="group") == 1
    said, page = capsys.readouterr().out, html.unescape((out / "group_Chimap.html").read_text())
    for line in (
        "got method tkd in sub-01, sub-03, sub-04; tv in sub-02; n/a in sub-06_ses-a_run-1",
        "got a mask of the brain in sub-01; found from the magnitude in sub-02, sub-03, sub-04; n/a in ",
        "got --reference mean in sub-01, sub-03, sub-04; none in sub-02; n/a in sub-06_ses-a_run-1",
        "sub-02: no brain mask in --derivatives",
        "sub-03: --again failed, this is the map from before: no room",
        "sub-04: regions left out: segmentation must be on the field's grid",
        "sub-06_ses-a_run-1: how the map was made is not known: ",
    ):
        assert line in said and line in page, line
    table = [line.split("\t") for line in (out / "group_regions.tsv").read_text().splitlines()]
    assert [(row[2], row[-1]) for row in table if row[2] in ("sub-02", "sub-04")] == [
        ("sub-02", "tv"),
        ("sub-04", "tkd"),
    ]
    assert table[0][-1] == "method" and "5 maps, 1 scans without one" in said


def test_the_derivative_passes_the_validator(cohort):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("no bids-validator-deno")
    command = [validator, "--format", "json", cohort[0]]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    assert not [issue for issue in told["issues"]["issues"] if issue["severity"] == "error"]


def test_finished_scans_are_skipped_and_others_told_apart(cohort, dataset, capsys):
    before = (cohort[0] / "sub-01" / "anat" / "sub-01_Chimap.nii.gz").stat().st_mtime_ns
    assert bids(dataset[0], cohort[0], *METHODS, "--participant-label", "sub-01", "02") == 0
    assert "0 maps made, 2 skipped, 0 failed" in capsys.readouterr().out
    assert bids(dataset[0], cohort[0], *METHODS, "--reference", "none", "--participant-label", "01") == 0
    assert "other settings: --again" in capsys.readouterr().out
    assert (cohort[0] / "sub-01" / "anat" / "sub-01_Chimap.nii.gz").stat().st_mtime_ns == before


def test_masks_come_from_the_derivatives_that_are_named(cohort, dataset):
    told = {stem: load_json(cohort[0] / stem / "anat" / f"{stem}_Chimap.json") for stem in ("sub-01", "sub-02")}
    missing = lambda stem: any("no brain mask in --derivatives" in line for line in told[stem]["Warnings"])
    assert missing("sub-02") and not missing("sub-01")
    assert "mask from sub-01_desc-brain_mask.nii.gz" in told["sub-01"]["Notes"] and told["sub-01"]["SkullStripped"]
    assert any("mask found from the magnitude" in note for note in told["sub-02"]["Notes"])
    kept = load_volume(cohort[0] / "sub-01/anat/sub-01_desc-qsm_mask.nii.gz").data > 0
    assert not (kept & ~dataset[1]["sub-01"][1]).any()


@pytest.fixture(scope="module")
def one(dataset, tmp_path_factory):
    """The derivatives of sub-03, with its stages and picture."""
    out = tmp_path_factory.mktemp("one") / "out"
    assert again(dataset[0], out, "--save-stages") == 0
    return out


def again(root, out, *words):
    return bids(root, out, *METHODS, "--participant-label", "03", *words)


def files_of(out):
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("[sf]*/**/*") if path.is_file()}


def test_a_disk_that_is_full_by_the_map_leaves_the_old_one_with_its_json(dataset, one, tmp_path, capsys, monkeypatch):
    out = shutil.copytree(one, tmp_path / "out")
    before, save = files_of(out), participant.save_volume

    def save_if_room(path, *rest):
        if path.name == "sub-03_Chimap.nii.gz":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, *rest)

    words = ("--reference", "none", "--save-stages", "--no-figure")
    monkeypatch.setattr(participant, "save_volume", save_if_room)
    assert again(dataset[0], out, *words, "--again") == 1 and files_of(out) == before
    assert again(dataset[0], out, *words) == 0 and "other settings: --again" in capsys.readouterr().out
    assert bids(dataset[0], out, "--participant-label", "03", level="group") == 0
    assert "sub-03: --again failed, this is the map from before: the disk must have room" in capsys.readouterr().out
    # with the settings of the map that stands, that is the one wanted
    assert again(dataset[0], out, "--save-stages") == 0 and not list((out / "logs").iterdir())


def test_what_an_earlier_map_left_does_not_stay(dataset, one, tmp_path):
    out = shutil.copytree(one, tmp_path / "out")
    gone = [f"fmap/sub-03_desc-local_fieldmap{end}" for end in (".json", ".nii.gz")]
    gone += [f"anat/sub-03_{end}" for end in ("desc-std_Chimap.json", "desc-std_Chimap.nii.gz", "Chimap.html")]
    others = out / "sub-03" / "fmap" / "sub-03_acq-b_desc-local_fieldmap.nii.gz"
    for path in (others, *(out / "sub-03" / name for name in gone)):
        path.touch()
    before = files_of(out)
    assert again(dataset[0], out, "--again", "--no-figure") == 0
    assert before.keys() - files_of(out).keys() == {"figures/sub-03_Chimap.png", *(f"sub-03/{name}" for name in gone)}


def test_one_step_methods_have_no_local_field(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(INVERSIONS, "at_once", method(solve_tkd, takes="totalfield"))
    words = ("--method", "at_once", "--participant-label", "03", "--save-stages", "--no-figure")
    assert bids(dataset[0], tmp_path / "out", *words) == 0
    names = {path.name for path in (tmp_path / "out/sub-03/fmap").iterdir()}
    assert "sub-03_fieldmap.nii.gz" in names and not any("local" in name for name in names)


def test_a_map_is_as_asked_if_its_mask_and_stages_are(dataset, one, tmp_path, capsys):
    out, strip = shutil.copytree(one, tmp_path / "out"), tmp_path / "strip"
    root, folder = dataset[0], strip / "sub-03" / "anat"
    folder.mkdir(parents=True)

    def told(*words):
        assert again(root, out, "--no-figure", *words) == 0
        return capsys.readouterr().out.partition("\n")[0]

    same, other = "sub-03: skipped: finished before", "with other settings: --again makes it anew"
    assert told("--save-stages") == same and told().endswith(other)
    derivatives = ("--save-stages", "--derivatives", strip)
    assert "1 warnings in its JSON: no brain mask in --derivatives" in told(*derivatives, "--again")
    mask, image = folder / "sub-03_mask.nii.gz", load_volume(root / "sub-03/anat/sub-03_part-phase_T2starw.nii.gz")
    save_volume(mask, dataset[1]["sub-03"][1], image)
    assert told(*derivatives).endswith(other) and "warnings" not in told(*derivatives, "--again")
    assert told(*derivatives) == same
    mask.rename(folder / "sub-03_desc-brain_mask.nii.gz")
    assert told(*derivatives).endswith(other)


def test_a_map_is_as_asked_if_its_network_is(dataset, tmp_path, capsys, monkeypatch):
    card = {}
    monkeypatch.setattr(network, "load_network", lambda _: network.Network("mine", tkd, lambda _: [], card))
    words = (*METHODS[:2], "--workdir", tmp_path, "--participant-label", "03", "--no-figure")
    for card["sha256"], line in (("a" * 64, "sub-03: done"), ("a" * 64, "before\n"), ("b" * 64, "settings: --again")):
        assert bids(dataset[0], tmp_path / "out", *words) == 0
        assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--participant-label", "../../etc"], "letters and digits"),
        (["--session-label", "a/../.."], "letters and digits"),
        (["--participant-label", "99"], "sub-99 must be a folder"),
        (["--session-label", "a", "zz"], "ses-zz must be a folder of a subject"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--method", "tkdd"], "did you mean tkd"),
        (["--derivatives", "nowhere"], "--derivatives must be folders"),
        (["--scheduler", "tcp://127.0.0.1:9"], "--scheduler must be the address"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(dataset, tmp_path, words, message, capsys, monkeypatch):
    if words[0] == "--scheduler":
        cluster = pytest.importorskip("qsmjax.cli.cluster")
        reach = cluster.run_on_cluster
        monkeypatch.setattr(cluster, "run_on_cluster", lambda jobs, address: reach(jobs, address, timeout=0.2))
    assert bids(dataset[0], tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list((tmp_path / "out").glob("sub-*"))


def test_nan_in_the_head_is_refused_or_taken_out_of_the_mask(dataset, tmp_path, capsys):
    root = tmp_path / "raw"
    shutil.copytree(dataset[0] / "sub-03", root / "sub-03")
    shutil.copy(dataset[0] / "T2starw.json", root)
    path = root / "sub-03/anat/sub-03_part-phase_T2starw.nii.gz"
    image = load_volume(path)
    phase = image.data.copy()
    phase[13, 13, 13] = np.nan
    save_volume(path, phase, image)
    assert bids(root, tmp_path / "out", *METHODS) == 1
    said = capsys.readouterr().err
    assert f"{path} must be finite inside the mask, got 1 voxels of NaN or infinity" in said and "--nan-to-mask" in said
    assert bids(root, tmp_path / "out", *METHODS, "--nan-to-mask") == 0
    kept = load_volume(tmp_path / "out/sub-03/anat/sub-03_desc-qsm_mask.nii.gz").data
    assert kept[13, 13, 13] == 0 and kept.sum() > 1000
    assert "1 voxels of NaN" in str(load_json(tmp_path / "out/sub-03/anat/sub-03_Chimap.json")["Notes"])


def test_a_scan_that_lacks_an_echo_fails_and_one_of_magnitude_alone_is_left_out(dataset, tmp_path, capsys):
    root, out = tmp_path / "raw", tmp_path / "out"
    for subject in ("sub-01", "sub-02", "sub-03"):
        shutil.copytree(dataset[0] / subject, root / subject)
    for path in dataset[0].glob("*.json"):
        shutil.copy(path, root)
    (root / "sub-01/anat/sub-01_echo-3_part-mag_MEGRE.nii.gz").unlink()
    for path in (root / "sub-02/anat").glob("*phase*"):
        path.unlink()
    assert bids(root, out, *METHODS, "--no-figure", "--quiet") == 1
    said = capsys.readouterr().err
    line = "a scan must have the same echoes of each part, got 3 of phase, 2 of mag: mag lacks echo 3"
    assert f"sub-01: failed: {line}" in said
    assert "sub-02" not in said and (out / "logs" / "sub-01.txt").exists()
    assert bids(root, out, "--quiet", level="group") == 1
    assert "sub-01: " in (out / "group_Chimap.html").read_text()


def test_nothing_is_written_through_links_or_into_other_datasets(dataset, tmp_path, capsys):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "sub-03").symlink_to(elsewhere)
    assert bids(dataset[0], out, *METHODS, "--participant-label", "03") == 1
    assert "got a link to" in capsys.readouterr().err and not list(elsewhere.iterdir())
    second = tmp_path / "second"
    second.mkdir()
    (second / "logs").symlink_to(elsewhere)
    assert bids(dataset[0], second, *METHODS, "--participant-label", "03") == 1
    assert "got a link to" in capsys.readouterr().err and not list(elsewhere.iterdir())
    assert bids(dataset[0], dataset[0]) == 2
    (elsewhere / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "other"}]}')
    assert bids(dataset[0], elsewhere) == 2
    assert "another dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sidecars", "message"),
    [
        ([{"MagneticFieldStrength": 3}], "EchoTime must be in the sidecars"),
        ([{"EchoTime": 4, "MagneticFieldStrength": 3}], "must be in seconds"),
        ([{"EchoTime": 0.01, "MagneticFieldStrength": 3}] * 2, "must differ"),
        ([{"EchoTime": 0.01}], "got neither"),
        ([{"EchoTime": 0.01, "MagneticFieldStrength": 3, "ImagingFrequency": 123.2e6}], "must be in MHz"),
        ([{"EchoTime": True, "MagneticFieldStrength": 3}], "EchoTime must be in the sidecars"),
        ([{"EchoTime": [], "MagneticFieldStrength": 3}], "EchoTime must be in the sidecars"),
    ],
)
def test_sidecars_that_cannot_be_are_refused(sidecars, message):
    with pytest.raises(ValueError, match=message):
        told_of(sidecars)
