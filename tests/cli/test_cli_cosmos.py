"""`qsmjax cosmos` from folders to one map, and labels for training turned back to every orientation."""

import json
import shutil

import numpy as np
import pytest

from qsmjax.cli.errors import UserError
from qsmjax.cli.main import run_command
from qsmjax.cli.orientations import named_files, orientation_folders, read_orientation
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.physics.units import radians_per_ppm
from qsmjax.registration.flirt import to_flirt, write_flirt

SHAPE = (24, 24, 24)
TILTS = {"a": (0.0, 0), "b": (28.0, 0), "c": (-25.0, 1), "d": (30.0, 1)}


def affine():
    matrix = np.eye(4)
    matrix[:3, 3] = -11.5
    return matrix


def rotation(degrees, axis):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    i, j = [a for a in range(3) if a != axis]
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def head(transform):
    """The head after it was turned: balls of susceptibility and a mask, on the scanner's grid."""
    index = np.array(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")).reshape(3, -1)
    world = affine()[:3, :3] @ index + affine()[:3, 3:]
    own = np.linalg.inv(transform)[:3, :3] @ world
    ball = lambda centre, width: np.exp(-np.sum((own - np.reshape(centre, (3, 1))) ** 2, 0) / (2 * width**2))
    chi = 0.1 * ball((2, 1, 0), 2.0) - 0.06 * ball((-4, 2, 3), 1.8) + 0.04 * ball((1, -5, -3), 2.2)
    mask = np.linalg.norm(world, axis=0) < 10.5
    return (chi * mask).reshape(SHAPE), mask.reshape(SHAPE)


@pytest.fixture
def scans(tmp_path):
    for name, tilt in TILTS.items():
        turn = rotation(*tilt)
        chi, mask = head(turn)
        field = np.where(mask, np.asarray(forward_field(chi, geometry_from_affine(affine(), SHAPE))), 0)
        folder = tmp_path / "scans" / name
        folder.mkdir(parents=True)
        save_volume(folder / "localfield.nii.gz", field, new_volume(field, affine()))
        write_flirt(folder / "to_reference.mat", to_flirt(turn, affine(), SHAPE, affine(), SHAPE))
    return tmp_path / "scans"


def test_orientations_become_one_map_and_labels(scans, tmp_path, capsys):
    assert run_command("cosmos", [str(scans), "-o", str(tmp_path / "out")]) == 0
    assert "condition number" in capsys.readouterr().out
    truth, mask = head(np.eye(4))
    found = load_volume(tmp_path / "out" / "cosmos_Chimap.nii.gz").data
    error = (found - truth)[mask] - (found - truth)[mask].mean()
    assert np.linalg.norm(error) / np.linalg.norm(truth[mask] - truth[mask].mean()) < 0.15
    told = json.loads((tmp_path / "out" / "cosmos_Chimap.json").read_text())
    assert told["ReferenceOrientation"] == "a" and told["ConditionNumber"] > 1
    np.testing.assert_allclose(told["Orientations"][1]["B0Direction"], rotation(28, 0).T[:3, 2], atol=1e-5)
    assert (
        told["Stages"]["inversion"]["Method"] == told["Method"] == "cosmos" and told["GeneratedBy"]["Name"] == "qsmjax"
    )
    assert told["Orientations"][1]["Input"] == ["localfield.nii.gz"]
    assert f"{len(TILTS)} orientations of the head were combined, up to " in told["MethodsParagraph"]
    for name, tilt in TILTS.items():
        turned, mask = head(rotation(*tilt))
        label = load_volume(tmp_path / "out" / "labels" / f"{name}_chi.nii.gz").data
        assert np.corrcoef(label[mask], turned[mask])[0, 1] > 0.97


def test_labels_are_those_of_this_map_and_masks_end_where_it_does(scans, tmp_path, capsys):
    words = [str(scans), "-o", str(tmp_path / "out"), "--quiet"]
    assert run_command("cosmos", words) == 0
    labels = tmp_path / "out" / "labels"
    kept = load_volume(labels / "b_mask.nii.gz").data.sum()
    # the reference is a slab now, and of its neighbour the part beyond it is not known
    field = load_volume(scans / "a" / "localfield.nii.gz").data[:, :, :12]
    save_volume(scans / "a" / "localfield.nii.gz", field, new_volume(field, affine()))
    shutil.rmtree(scans / "d")
    capsys.readouterr()
    assert run_command("cosmos", words) == 0
    assert not list(labels.glob("d_*")) and len(list(labels.iterdir())) == 4 * 3
    mask, chi = (load_volume(labels / f"b_{name}.nii.gz").data for name in ("mask", "chi"))
    assert 0.35 * kept < mask.sum() < 0.65 * kept
    assert chi[mask != 0].all() and not chi[mask == 0].any()


def test_what_speaks_against_the_map_is_told(scans, tmp_path, capsys):
    (scans / "b" / "to_reference.mat").unlink()
    for name, seed in (("a", 0), ("b", 1)):
        grain = np.random.default_rng(seed).random(SHAPE)
        save_volume(scans / name / "magnitude.nii.gz", grain, new_volume(grain, affine()))
    for name in "cd":
        shutil.rmtree(scans / name)
    assert run_command("cosmos", [str(scans), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    said = capsys.readouterr().err
    sidecar = json.loads((tmp_path / "out" / "cosmos_Chimap.json").read_text())
    told = sidecar["Warnings"]
    assert "brought to the first by register_magnitudes" in sidecar["MethodsParagraph"]
    assert sidecar["Stages"]["registration"]["Parameters"]["evening"] == 5.0
    assert any("orientation b was registered with a correlation of 0." in line for line in told)
    assert any("a condition number of" in line for line in told)
    assert said.count("warning: ") == len(told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "must be a folder with one folder an orientation"),
        (["."], "must hold at least two folders"),
        (["scans", "--orientation", "z"], "--orientation must be one of a, b, c, d"),
        (["scans", "--set", "tolerence=1"], "did you mean tolerance?"),
        (["scans", "--set", "field.erode=1"], "a stage that an orientation goes through, got localfield"),
    ],
)
def test_what_cannot_be_gets_one_line(scans, tmp_path, words, message, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path if words[0] != "." else tmp_path / "empty")
    assert run_command("cosmos", [*words, "-o", "out"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_echo_ten_comes_after_echo_nine(tmp_path):
    names = [f"phase_echo-{number}.nii.gz" for number in range(1, 12)]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in named_files(tmp_path, "phase")] == names


def test_two_masks_are_one_too_many(scans, tmp_path, capsys):
    for name in ("mask.nii.gz", "mask_eroded.nii.gz"):
        save_volume(scans / "b" / name, head(np.eye(4))[1], new_volume(np.zeros(SHAPE), affine()))
    assert run_command("cosmos", [str(scans), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "orientation b must have one mask file, got mask.nii.gz, mask_eroded.nii.gz" in said
    assert said.count("\n") == 1


def test_an_orientation_without_a_magnitude_says_so(scans, tmp_path, capsys):
    (scans / "b" / "to_reference.mat").unlink()
    assert run_command("cosmos", [str(scans), "-o", str(tmp_path / "out"), "--quiet"]) == 2
    assert "orientation b must have a magnitude" in capsys.readouterr().err


def test_an_orientation_comes_as_phase_or_as_real_and_imaginary_parts(tmp_path):
    field, mask = (np.asarray(part) for part in head(np.eye(4)))
    te = np.array([0.004, 0.010, 0.018])[:, None, None, None]
    signal = mask * np.exp(-25 * te) * np.exp(1j * (0.3 + float(radians_per_ppm(3.0, 1.0)) * te * field))
    halves = {"polar": {"phase": np.angle(signal), "magnitude": abs(signal)}}
    halves["parts"] = {"real": signal.real, "imag": signal.imag}
    found = {}
    for folder, volumes in halves.items():
        (tmp_path / folder).mkdir()
        for name, data in volumes.items():
            save_volume(tmp_path / folder / f"{name}.nii.gz", np.moveaxis(data, 0, -1), new_volume(data[0], affine()))
        (tmp_path / folder / "params.json").write_text(json.dumps({"TE": te.ravel().tolist(), "B0": 3.0}))
        found[folder] = read_orientation(tmp_path / folder, None, preset="fast")
    assert found["parts"].kind == found["polar"].kind == "phase"
    assert [path.name for path in found["parts"].files] == ["real.nii.gz", "imag.nii.gz"]
    np.testing.assert_allclose(found["parts"].local.field, found["polar"].local.field, atol=1e-5)
    # real parts alone are no scan
    (tmp_path / "parts" / "imag.nii.gz").unlink()
    with pytest.raises(UserError, match="real and imaginary, or kspace"):
        orientation_folders(tmp_path)


def test_what_speaks_against_an_orientation_is_told_and_its_phase_may_have_units(tmp_path, capsys):
    field, mask = (np.asarray(part) for part in head(np.eye(4)))
    te, rng = np.array([0.004, 0.010, 0.018]), np.random.default_rng(0)
    phase = 0.3 + float(radians_per_ppm(3.0, 1.0)) * te * field[..., None]
    phase[:10] = rng.uniform(-np.pi, np.pi, phase[:10].shape)
    for name in ("a", "b"):
        folder = tmp_path / "scans" / name
        folder.mkdir(parents=True)
        # whole numbers within ±3142: milliradians or Siemens'
        for part, data in (("phase", np.rint(1000 * phase)), ("mask", mask)):
            save_volume(folder / f"{part}.nii.gz", data, new_volume(data, affine()))
        turned = [0.5, 0.0, 0.87] if name == "b" else [0.0, 0.0, 1.0]
        (folder / "params.json").write_text(json.dumps({"TE": te.tolist(), "B0": 3.0, "B0_dir": turned}))
    words = [str(tmp_path / "scans"), "-o", str(tmp_path / "out"), "--no-register", "--preset", "fast", "--quiet"]
    assert run_command("cosmos", words) == 2
    assert "--phase-units" in capsys.readouterr().err
    assert run_command("cosmos", [*words, "--phase-units", "mrad"]) == 0
    said = capsys.readouterr().err
    assert "warning: orientation a:" in said and "does not explain its echoes" in said
    told = json.loads((tmp_path / "out" / "cosmos_Chimap.json").read_text())
    assert "registration" not in told["Stages"] and any("orientation b:" in line for line in told["Warnings"])


def whole_of(folder):
    return (load_volume(folder / "totalfield.nii.gz").data != 0).astype(float)


def test_what_no_orientation_goes_through_is_refused_and_a_mask_at_the_border_warned_about(scans, tmp_path, capsys):
    words = [str(scans), "-o", str(tmp_path / "out"), "--quiet"]
    for more, message in (
        (["--coils"], "--coils must go with orientations of phase, got localfield"),
        (["--set", "mask.erode=1"], "--set mask.erode must be of a stage that an orientation goes through"),
        (["--set", "registration.points=9"], "--set registration.points=9 must go with orientations to register"),
        (["--set", "registration.point=9"], "did you mean points?"),
    ):
        assert run_command("cosmos", [*words, *more]) == 2
        assert message in capsys.readouterr().err
    for name, tilt in TILTS.items():
        cut = load_volume(scans / name / "localfield.nii.gz").data[4:-4, 4:-4, 4:-4]
        save_volume(scans / name / "localfield.nii.gz", cut, new_volume(cut, affine()))
        matrix = to_flirt(rotation(*tilt), affine(), cut.shape, affine(), cut.shape)
        write_flirt(scans / name / "to_reference.mat", matrix)
    assert run_command("cosmos", [*words, "--report"]) == 0
    assert "warning: orientation a: the mask touches the volume's border" in capsys.readouterr().err
    assert "Look at this first" in (tmp_path / "out" / "cosmos_Chimap.html").read_text()


def test_what_was_taken_from_masks_stages_and_a_page_are_kept_and_go_with_the_map(scans, tmp_path):
    for name in "ab":
        (scans / name / "localfield.nii.gz").rename(scans / name / "totalfield.nii.gz")
    words = [str(scans), "-o", str(tmp_path / "out"), "--quiet", "--set", "background.method=vsharp"]
    words += ["--set", "background.radii=4,3,2"]
    save_volume(scans / "a" / "mask.nii.gz", whole_of(scans / "a"), new_volume(np.zeros(SHAPE), affine()))
    assert run_command("cosmos", [*words, "--save-stages", "--report"]) == 0
    labels = tmp_path / "out" / "labels"
    whole = load_volume(scans / "a" / "totalfield.nii.gz").data
    kept, taken, total = (
        load_volume(labels / f"a_{name}.nii.gz").data for name in ("mask", "desc-removed_mask", "desc-total_fieldmap")
    )
    assert taken.any() and np.array_equal((kept != 0) | (taken != 0), whole != 0) and not (kept * taken).any()
    np.testing.assert_array_equal(total, whole)
    # of a local field nothing was taken, and there is no total one
    assert {path.name for path in labels.glob("c_*")} == {
        "c_chi.nii.gz", "c_localfield.nii.gz", "c_mask.nii.gz", "c_to_reference.mat"
    }  # fmt: skip
    assert "Three planes" in (tmp_path / "out" / "cosmos_Chimap.html").read_text()
    told = json.loads((tmp_path / "out" / "cosmos_Chimap.json").read_text())
    assert told["Stages"]["background"]["Orientations"] == ["a", "b"] and "of a, b only" in told["MethodsParagraph"]
    assert [list(o["InputsBeside"]) for o in told["Orientations"]] == [["mask"], [], [], []]
    assert run_command("cosmos", words) == 0
    assert not (tmp_path / "out" / "cosmos_Chimap.html").exists() and not list(labels.glob("*total*"))
    assert len(list(labels.glob("*_desc-removed_mask.nii.gz"))) == 2
