"""Which files of a BIDS dataset belong together, what their sidecars say, and what is refused."""

import json

import pytest

from qsmjax.io.bids import check_label, find_beside, find_runs, parse_name, sidecar_of


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_files_of_one_scan_are_one_run(tmp_path):
    anat = "sub-01/ses-a/anat/sub-01_ses-a"
    touch(tmp_path, *[f"{anat}_echo-{e}_part-{p}_MEGRE.nii.gz" for e in (10, 2, 1) for p in ("mag", "phase")])
    touch(tmp_path, f"{anat}_acq-b_part-real_T2starw.nii", f"{anat}_acq-b_part-imag_T2starw.nii", f"{anat}_T1w.nii")
    plain, b = sorted(find_runs(tmp_path), key=lambda run: run.stem)[::-1]
    first = plain if plain.stem == "sub-01_ses-a" else b
    other = b if first is plain else plain
    assert [path.name.split("_")[2] for path in first.parts["phase"]] == ["echo-1", "echo-2", "echo-10"]
    assert set(other.parts) == {"real", "imag"} and other.suffix == "T2starw"
    assert not first.problem and not other.problem and str(first.folder) == "sub-01/ses-a/anat"


def test_a_magnitude_may_go_without_its_part(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T2starw.nii.gz", "sub-1/anat/sub-1_part-phase_T2starw.nii.gz")
    (run,) = find_runs(tmp_path)
    assert set(run.parts) == {"mag", "phase"} and not run.problem


def test_scans_of_two_folders_share_no_name(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_T2starw.nii", "sub-1/swi/sub-1_part-mag_GRE.nii")
    touch(tmp_path, "sub-1/swi/sub-1_part-phase_GRE.nii")
    (run,) = find_runs(tmp_path)
    assert str(run.folder) == "sub-1/swi" and not run.problem, "the one that is whole"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["T2starw"], "got mag alone"),
        (["part-real_GRE", "part-mag_GRE"], "got mag and real alone"),
        (["echo-1_part-phase_MEGRE", "echo-1_part-mag_MEGRE", "echo-2_part-mag_MEGRE"], "mag: phase lacks echo 2"),
        (
            [f"echo-{e}_part-{p}_MEGRE" for p, echoes in (("mag", (1, 2)), ("phase", (2, 3))) for e in echoes],
            "got 2 of phase, 2 of mag: phase lacks echo 1; mag lacks echo 3",
        ),
        ([f"echo-{e}_part-{p}_GRE" for e, p in ((1, "real"), (2, "imag"))], "real lacks echo 2; imag lacks echo 1"),
    ],
)
def test_what_makes_no_map_has_its_reason(tmp_path, names, reason):
    touch(tmp_path, *[f"sub-1/anat/sub-1_{name}.nii.gz" for name in names])
    (run,) = find_runs(tmp_path)
    assert reason in run.problem


def test_a_magnitude_without_a_number_goes_with_one_echo(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_part-mag_GRE.nii", "sub-1/anat/sub-1_echo-1_part-phase_GRE.nii")
    (run,) = find_runs(tmp_path)
    assert not run.problem


def test_nearer_sidecars_stand_over_those_above(tmp_path):
    image = tmp_path / "sub-1" / "anat" / "sub-1_echo-2_part-phase_MEGRE.nii.gz"
    touch(tmp_path, image.relative_to(tmp_path))
    write = lambda name, **values: (tmp_path / name).write_text(json.dumps(values))
    write("MEGRE.json", MagneticFieldStrength=3, EchoTime=1, Manufacturer="A")
    write("T2starw.json", MagneticFieldStrength=9)
    write("sub-1/anat/sub-1_echo-2_MEGRE.json", EchoTime=0.01)
    write("sub-1/anat/sub-1_echo-1_MEGRE.json", EchoTime=0.005)
    write("sub-1/anat/sub-1_echo-2_part-phase_MEGRE.json", Manufacturer="B")
    assert sidecar_of(tmp_path, image) == {"MagneticFieldStrength": 3, "EchoTime": 0.01, "Manufacturer": "B"}


def test_the_closest_derivative_is_found(tmp_path):
    touch(tmp_path, "raw/sub-1/anat/sub-1_run-2_part-phase_GRE.nii")
    (run,) = find_runs(tmp_path / "raw")
    for root, names in {
        "a": ["sub-1_space-MNI_mask", "sub-1_run-1_mask", "sub-10_mask"],
        "b": ["sub-1_desc-brain_mask", "sub-1_run-2_mask", "sub-1_run-2_desc-brain_mask", "sub-1_run-2_desc-x_mask"],
    }.items():
        touch(tmp_path, *[f"{root}/sub-1/anat/{name}.nii.gz" for name in names])
    found = find_beside([tmp_path / "a", tmp_path / "b"], run, "mask")
    assert found is not None and found.name == "sub-1_run-2_desc-brain_mask.nii.gz"
    assert find_beside([tmp_path / "a"], run, "mask") is None


def test_a_mask_is_the_brains(tmp_path):
    touch(tmp_path, "raw/sub-1/anat/sub-1_run-2_part-phase_GRE.nii")
    (run,) = find_runs(tmp_path / "raw")
    for root, names in {
        "a": ["sub-1_run-2_label-lesion_mask", "sub-1_run-2_label-GM_dseg"],
        "b": ["sub-1_run-2_label-lesion_desc-brain_mask", "sub-1_run-2_desc-roi_mask", "sub-1_desc-brain_mask"],
        "c": ["sub-1_run-2_mask", "sub-1_run-2_label-brain_mask"],
    }.items():
        touch(tmp_path, *[f"{root}/sub-1/anat/{name}.nii.gz" for name in names])
    names = lambda suffix, *roots: getattr(find_beside([tmp_path / r for r in roots], run, suffix), "name", None)
    assert names("mask", "a") is None and names("dseg", "a") == "sub-1_run-2_label-GM_dseg.nii.gz"
    assert names("mask", "a", "b") == "sub-1_desc-brain_mask.nii.gz"
    assert names("mask", "a", "c") == "sub-1_run-2_label-brain_mask.nii.gz"


def test_a_session_that_no_subject_has_is_refused(tmp_path):
    touch(tmp_path, *[f"sub-{s}/ses-{e}/anat/sub-{s}_ses-{e}_part-phase_GRE.nii" for s, e in ("1a", "2b")])
    assert [run.stem for run in find_runs(tmp_path, ["1"], ["a", "b"])] == ["sub-1_ses-a"]
    with pytest.raises(ValueError, match="ses-zz must be a folder of a subject"):
        find_runs(tmp_path, [], ["a", "zz"])


@pytest.mark.parametrize("label", ["../x", "sub-../x", "", "a/b", "..", "sub-", "x\0", "a b", "sub-sub-1", "*"])
def test_labels_that_lead_elsewhere_are_refused(tmp_path, label):
    with pytest.raises(ValueError, match="letters and digits"):
        check_label("--participant-label", label, "sub")
    assert check_label("--participant-label", "sub-01", "sub") == "01"


@pytest.mark.parametrize("name", ["sub-1_sub-2_GRE.nii", "sub-_GRE.nii", "sub-1_GR E.nii", "..", "sub-1__GRE.nii"])
def test_odd_names_are_no_names(name):
    assert parse_name(name) is None


def test_circles_of_links_and_files_of_others_are_left_alone(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_part-phase_GRE.nii", "sub-1/anat/sub-2_part-phase_GRE.nii")
    (tmp_path / "sub-2").symlink_to(tmp_path)
    (tmp_path / "sub-3").symlink_to(tmp_path / "sub-3")
    (tmp_path / "sub-1" / "ses-a").symlink_to(tmp_path / "sub-1" / "ses-a")
    (tmp_path / "sub-4").mkdir()
    (tmp_path / "sub-4" / "anat").symlink_to(tmp_path.parent)
    assert [run.stem for run in find_runs(tmp_path)] == ["sub-1"]
    with pytest.raises(ValueError, match="sub-2 must be a folder"):
        find_runs(tmp_path, ["2"])
