"""`infer.py` from file to file: the map, its affine, its sidecar; and one line for everything that cannot be."""

import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage

from qsmjax.cli.main import main, run_command
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.weights import save_weights
from qsmjax.models.build import build
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.physics.units import radians_per_ppm

SHAPE = (20, 22, 18)


def affine(degrees=20.0, voxel_size=(1.0, 1.0, 1.5)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag(voxel_size)
    return matrix


def write(path, data, matrix=None):
    save_volume(path, data, new_volume(data, affine() if matrix is None else matrix))
    return path


@pytest.fixture(scope="module")
def scan():
    """A sphere in a ball: chi, mask, field with a noise of a twentieth, as that of a head has."""
    points = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    mask = sum((p / (n / 2 - 1)) ** 2 for p, n in zip(points, SHAPE)) < 1
    chi = 0.1 / (1 + np.exp((np.sqrt(sum(p**2 for p in points)) - 4) / 0.5)) * mask
    field = np.asarray(forward_field(chi, geometry_from_affine(affine(), SHAPE)))
    noise = 0.05 * field[mask].std() * np.random.default_rng(0).normal(size=SHAPE)
    return chi, mask, np.where(mask, field + noise, 0).astype(np.float32)


@pytest.fixture
def folder(tmp_path, scan):
    write(tmp_path / "field.nii.gz", scan[2])
    write(tmp_path / "mask.nii.gz", scan[1])
    return tmp_path


def infer(*words):
    return run_command("infer", [str(word) for word in words])


def test_one_word_makes_map_sidecar_and_picture(folder, scan, capsys):
    assert infer(folder / "field.nii.gz") == 0
    made = load_volume(folder / "field_Chimap.nii.gz")
    np.testing.assert_array_equal(made.affine, load_volume(folder / "field.nii.gz").affine)
    chi, mask, _ = scan
    truth = np.where(mask, chi - chi[mask].mean(), 0)
    assert np.linalg.norm(made.data - truth) / np.linalg.norm(truth) < 0.1
    assert not made.data[~mask].any() and abs(made.data[mask].mean()) < 1e-6
    sidecar = json.loads((folder / "field_Chimap.json").read_text())
    assert sidecar["Method"] == "learned" and sidecar["Units"] == "ppm" and sidecar["B0DirectionSource"] == "affine"
    assert sidecar["Weights"]["training_data"] and sidecar["Weights"]["sha256"][:12] in sidecar["MethodsParagraph"]
    assert len(sidecar["InputSHA256"][0]) == 64 and load_volume(folder / "field_desc-std_Chimap.nii.gz").data.max() > 0
    np.testing.assert_allclose(sidecar["B0Direction"], (0, np.sin(np.radians(20)), np.cos(np.radians(20))), atol=1e-6)
    assert (folder / "field_Chimap.png").read_bytes().startswith(b"\x89PNG")
    assert "B0 along" in capsys.readouterr().out


def test_the_sidecar_of_total_variation_tells_its_weight(folder, scan):
    assert infer(folder / "field.nii.gz", "--method", "tv", "--no-figure") == 0
    assert json.loads((folder / "field_Chimap.json").read_text())["Parameters"]["weight"] > 0
    truth = np.where(scan[1], scan[0] - scan[0][scan[1]].mean(), 0)
    made = load_volume(folder / "field_Chimap.nii.gz").data
    assert np.linalg.norm(made - truth) / np.linalg.norm(truth) < 0.1


def test_a_deviation_that_is_an_input_is_neither_written_over_nor_removed(folder, scan, capsys):
    noise = write(folder / "field_desc-std_Chimap.nii.gz", np.where(scan[1], 1e-3, 0))
    before = noise.read_bytes()
    for words in ((), ("--method", "tkd")):
        assert infer(folder / "field.nii.gz", "--noise", noise, *words) == 2
        assert "must not write over an input" in capsys.readouterr().err and noise.read_bytes() == before


def test_nothing_that_is_made_is_written_over_an_input(folder, scan, capsys):
    mask = write(folder / "field_mask.nii.gz", scan[1].astype(np.float32))
    params = folder / "field_Chimap.json"
    params.write_text("{}")
    before = mask.read_bytes()
    words = (folder / "field.nii.gz", "--mask", mask, "--method", "tkd", "--no-figure", "--save-stages")
    assert infer(*words, "--params", params) == 2 and params.read_text() == "{}"
    assert f"must not write over an input, got {params}" in capsys.readouterr().err
    assert infer(*words) == 0 and mask.read_bytes() == before, "a mask has a name of its own beside a map"
    assert (folder / "field_desc-qsm_mask.nii.gz").exists()


def test_the_deviation_of_another_methods_map_does_not_stay(folder):
    assert infer(folder / "field.nii.gz", "--no-figure") == 0 and (folder / "field_desc-std_Chimap.nii.gz").exists()
    assert infer(folder / "field.nii.gz", "--no-figure", "--method", "tkd") == 0
    assert not (folder / "field_desc-std_Chimap.nii.gz").exists()


@pytest.mark.parametrize("method", ["tkd", "tsvd", "tikhonov"])
def test_quiet_and_without_a_picture(folder, method, capsys):
    assert infer(folder / "field.nii.gz", "--method", method, "-o", folder / "x.nii", "--quiet", "--no-figure") == 0
    assert capsys.readouterr().out == "" and not (folder / "x.png").exists()
    assert np.isfinite(load_volume(folder / "x.nii").data).all()


def chi_of(folder, *words):
    assert infer(*words, "-o", folder / "out.nii", "--method", "tkd", "--quiet", "--no-figure") == 0
    return load_volume(folder / "out.nii").data


def test_every_unit_gives_the_same_map(folder, scan):
    expected = chi_of(folder, folder / "field.nii.gz")
    write(folder / "rad.nii", scan[2] * float(radians_per_ppm(3.0, 0.02)))
    write(folder / "hz.nii", scan[2] * 42.577478518 * 3)
    (folder / "params.json").write_text('{"TE": [0.02], "B0": 3}')
    rad = chi_of(folder, folder / "rad.nii", "--units", "rad", "--params", folder / "params.json")
    hz = chi_of(folder, folder / "hz.nii", "--units", "hz", "--b0", 3)
    np.testing.assert_allclose(rad, expected, atol=1e-6)
    np.testing.assert_allclose(hz, expected, atol=1e-6)


def test_flag_stands_over_params_and_params_over_affine(folder):
    (folder / "params.json").write_text('{"B0_dir": [1, 0, 0]}')
    told = lambda: json.loads((folder / "out.json").read_text())
    chi_of(folder, folder / "field.nii.gz", "--params", folder / "params.json")
    assert told()["B0DirectionSource"] == "params" and told()["B0Direction"] == [1, 0, 0]
    chi_of(folder, folder / "field.nii.gz", "--params", folder / "params.json", "--b0-dir", 0, -2, 0)
    assert told()["B0DirectionSource"] == "--b0-dir" and told()["B0Direction"] == [0, -1, 0]


def test_params_that_contradict_the_affine_are_warned_of(folder, capsys):
    (folder / "params.json").write_text('{"B0_dir": [1, 0, 0], "voxel_size": [1, 1, 3]}')
    chi_of(folder, folder / "field.nii.gz", "--params", folder / "params.json")
    told = " ".join(json.loads((folder / "out.json").read_text())["Warnings"])
    assert "params tell a B0 that lies 90 degrees" in told and "params tell voxels of" in told
    (folder / "params.json").write_text('{"B0": 3}')
    chi_of(folder, folder / "field.nii.gz", "--params", folder / "params.json")
    assert "params tell" not in str(json.loads((folder / "out.json").read_text())["Warnings"])


def test_of_a_mask_of_fractions_a_half_is_needed(folder, scan, capsys):
    mask = scan[1].astype(np.float32)
    soft = scipy.ndimage.gaussian_filter(mask, 0.8)
    write(folder / "soft.nii", soft)
    write(folder / "hard.nii", soft > 0.5)
    soft, hard = (chi_of(folder, folder / "field.nii.gz", "--mask", folder / name) for name in ("soft.nii", "hard.nii"))
    np.testing.assert_array_equal(soft, hard)
    write(folder / "labels.nii", mask * (1 + np.arange(mask.shape[0])[:, None, None] // 8))
    chi_of(folder, folder / "field.nii.gz", "--mask", folder / "labels.nii")
    assert "different numbers: all that is not zero" in str(json.loads((folder / "out.json").read_text())["Notes"])


@pytest.mark.parametrize(("method", "every"), [("tkd", 5), ("tv", 11), pytest.param("tkd", 1, marks=pytest.mark.slow)])
def test_permutations_and_flips_of_a_scan_give_one_map(folder, scan, method, every):
    """All 48 among the slow tests."""
    _, _, field = scan
    base = affine()
    words = ("--method", method, "--quiet", "--no-figure", "-o", folder / "out.nii")
    assert infer(write(folder / "in.nii", field, base), *words) == 0
    expected = load_volume(folder / "out.nii").data
    limit = 1e-4 if method == "tkd" else 0.01
    turns = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
    for order, signs in turns[every // 2 :: every]:
        flips = tuple(slice(None, None, s) for s in signs)
        matrix = base[:, [*order, 3]].copy()
        matrix[:, 3] += sum(matrix[:, i] * (field.shape[order[i]] - 1) for i in range(3) if signs[i] < 0)
        matrix[:3, :3] *= signs
        assert infer(write(folder / "in.nii", field.transpose(order)[flips], matrix), *words) == 0
        found = load_volume(folder / "out.nii").data[flips].transpose(np.argsort(order))
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < limit


def test_reference_regions(folder, scan):
    region = np.zeros(SHAPE)
    region[10, 11, 9] = 1
    write(folder / "region.nii", region)
    chi = chi_of(folder, folder / "field.nii.gz", "--reference", folder / "region.nii")
    assert abs(chi[10, 11, 9]) < 1e-7
    none = chi_of(folder, folder / "field.nii.gz", "--reference", "none")
    np.testing.assert_allclose((none - chi)[scan[1]], none[10, 11, 9], atol=1e-6)


def test_nan_outside_the_mask_is_zeroed_and_inside_refused_or_masked(folder, scan, capsys):
    _, _, field = scan
    spoilt = field.copy()
    spoilt[0, 0, 0] = np.nan
    write(folder / "out_nan.nii", spoilt)
    assert infer(folder / "out_nan.nii", "--mask", folder / "mask.nii.gz", "--method", "tkd", "--no-figure") == 0
    assert "1 voxels of NaN or infinity outside the mask were set to zero" in capsys.readouterr().out
    write(folder / "nan_mask.nii", np.where(scan[1], 1, np.nan))
    assert chi_of(folder, folder / "out_nan.nii", "--mask", folder / "nan_mask.nii")[0, 0, 0] == 0
    spoilt[10, 11, 9] = np.inf
    write(folder / "in_nan.nii", spoilt)
    words = (folder / "in_nan.nii", "--mask", folder / "mask.nii.gz", "--method", "tkd", "--no-figure")
    assert infer(*words) == 2 and "--nan-to-mask" in capsys.readouterr().err
    assert infer(*words, "--nan-to-mask") == 0
    assert np.isfinite(load_volume(folder / "in_nan_Chimap.nii.gz").data).all()


def test_it_runs_as_a_module_and_tells_its_version():
    words = [sys.executable, "-m", "qsmjax", "--version"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout[:1].isdigit()


def test_forms_that_disagree_are_noted(folder, scan, capsys):
    image = new_volume(scan[2], np.eye(4))
    image.header.set_qform(np.asarray([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]), code=1)
    save_volume(folder / "forms.nii", scan[2], image)
    assert infer(folder / "forms.nii", "--method", "tkd", "--no-figure") == 0
    assert "sform and qform stand 90 degrees apart" in capsys.readouterr().out


def test_nan_around_the_head_is_no_mask(folder, scan):
    write(folder / "around.nii", np.where(scan[1], scan[2], np.nan))
    np.testing.assert_allclose(
        chi_of(folder, folder / "around.nii"), chi_of(folder, folder / "field.nii.gz"), atol=1e-6
    )


def test_zeros_within_the_head_are_told_and_of_whole_numbers_are_its_fields(folder, scan, capsys):
    step = np.abs(scan[2]).max() / 20
    whole = np.where(scan[1], np.rint(scan[2] / step), 0)
    image = nib.Nifti1Image(whole.astype(np.int16), affine())
    image.header.set_slope_inter(step, 0)
    nib.save(image, folder / "whole.nii")
    write(folder / "converted.nii", step * whole)
    write(folder / "cut.nii", np.where(whole == 0, 0, scan[2]))
    kept = []
    for name, words in (
        ("whole", "taken for its field's"),
        ("converted", "taken for"),
        ("cut", "left out of the mask"),
    ):
        capsys.readouterr()
        infer(folder / f"{name}.nii", "--method", "tkd", "--no-figure", "--save-stages")
        assert f"voxels of zero within the head are {words}" in capsys.readouterr().out
        kept.append(load_volume(folder / f"{name}_desc-qsm_mask.nii.gz").data.sum())
    assert kept[2] < kept[1] == kept[0] <= scan[1].sum()


def test_units_that_cannot_be_are_refused_of_a_field_too(folder, capsys):
    words = (folder / "field.nii.gz", "--units", "rad")
    assert infer(*words, "--b0", 3, "--te", 20) == 2 and "must be in seconds, got 20" in capsys.readouterr().err
    assert infer(*words, "--b0", 30000, "--te", 0.02) == 2 and "must be in tesla" in capsys.readouterr().err


def test_a_number_stands_for_a_noise_map(folder, scan):
    write(folder / "noise.nii", np.full(scan[1].shape, 0.002))
    of = lambda noise: chi_of(folder, folder / "field.nii.gz", "--method", "tv", "--noise", noise)
    np.testing.assert_allclose(of(0.002), of(folder / "noise.nii"), atol=1e-7)


def test_what_an_earlier_map_left_goes_with_it_and_a_users_own_files_stay(folder):
    words = (folder / "field.nii.gz", "-o", folder / "out.nii", "--quiet")
    (folder / "out.html").write_text("a user's own")
    assert infer(*words, "--method", "tkd", "--no-figure") == 0
    assert (folder / "out.html").read_text() == "a user's own"
    assert infer(*words, "--method", "tkd", "--report", "--save-stages") == 0
    left = [folder / name for name in ("out.html", "out.png", "out_desc-local_fieldmap.nii.gz")]
    assert all(path.exists() for path in left)
    assert infer(*words, "--method", "tsvd", "--no-figure") == 0
    assert not any(path.exists() for path in left) and (folder / "out.nii").exists()


def test_a_mask_at_the_border_is_told_in_the_sidecar(folder, scan, capsys):
    write(folder / "all.nii", np.ones(scan[1].shape))
    assert infer(folder / "field.nii.gz", "--mask", folder / "all.nii", "--method", "tkd", "--no-figure") == 0
    assert "touches the volume's border with 100" in capsys.readouterr().err
    assert "touches" in json.loads((folder / "field_Chimap.json").read_text())["Warnings"][0]


def test_a_workdirs_network_runs_on_a_grid_that_is_not_its_own(folder, capsys):
    network = {"name": "qsmnet", "width": 2, "depth": 1, "kernel": 3}
    variables = build(network).init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))
    scaling = {"field_mean": 0.0, "field_std": 0.01, "chi_mean": 0.0, "chi_std": 0.03}
    card = {"name": "tiny", "network": network, "scaling": scaling, "voxel_size": [1, 1, 1], "b0_dir": [0, 0, 1]}
    (folder / "W").mkdir()
    save_weights(folder / "W" / "weights.safetensors", variables, card)
    assert infer(folder / "field.nii.gz", "--workdir", folder / "W", "--no-figure") == 0
    assert "resampled to the network's 1 x 1 x 1 mm and turned by 20.0 degrees" in capsys.readouterr().out
    sidecar = json.loads((folder / "field_Chimap.json").read_text())
    assert sidecar["Method"] == "tiny" and "resampled" in sidecar["Notes"][0]


def test_a_shipped_qsmnet_says_that_the_scan_was_brought_to_its_grid(folder, capsys):
    assert infer(folder / "field.nii.gz", "--method", "qsmnet_plus", "--no-figure") == 0
    assert "resampled to the network's 1 x 1 x 1 mm and turned by 20.0 degrees" in capsys.readouterr().out
    sidecar = json.loads((folder / "field_Chimap.json").read_text())
    assert sidecar["Method"] == "qsmnet_plus" and sidecar["Weights"]["licence"] == "Apache-2.0"
    assert "doi:10.1016/j.neuroimage.2020.116619" in sidecar["MethodsParagraph"]
    assert not (folder / "field_desc-std_Chimap.nii.gz").exists()


def test_methods_are_listed_with_options_and_reference(capsys):
    assert infer("--list-methods") == 0
    listed = capsys.readouterr().out
    assert "tkd" in listed and "threshold=0.15" in listed and "doi:10.1002/mrm.22135" in listed
    assert "background: --set background.method=NAME" in listed and "vsharp" in listed and "mcpc_3ds" in listed


def spoil(name):
    def given(folder, scan):
        _, mask, field = scan
        shear = affine()
        shear[0, 1] = 0.4
        makers = {
            "missing": lambda: ("none.nii",),
            "truncated": lambda: (folder / "field.nii.gz").write_bytes((folder / "field.nii.gz").read_bytes()[:3000]),
            "4-D": lambda: write(folder / "field.nii.gz", np.stack([field] * 2, -1)),
            "50 ppm": lambda: write(folder / "field.nii.gz", field * 5e4),
            "0.1 ppm": lambda: write(folder / "field.nii.gz", field * 100),
            "sheared": lambda: write(folder / "field.nii.gz", field, shear),
            "no zero": lambda: write(folder / "field.nii.gz", field + 1e-3),
            "all zero": lambda: write(folder / "field.nii.gz", field * 0),
            "empty mask": lambda: write(folder / "mask.nii.gz", mask * 0.0),
            "small mask": lambda: write(folder / "mask.nii.gz", mask[:-1]),
            "moved mask": lambda: write(folder / "mask.nii.gz", mask, affine(0)),
            "zero noise": lambda: write(folder / "noise.nii.gz", mask * 0.0),
        }
        makers[name]()

    return given


@pytest.mark.parametrize(
    ("spoilt", "words", "message"),
    [
        ("missing", ["none.nii"], "must exist"),
        ("truncated", [], "must be a whole NIfTI file"),
        ("4-D", [], "must hold one volume (x, y, z), got shape (20, 22, 18, 2)"),
        ("50 ppm", [], "must lie within 50 ppm"),
        ("0.1 ppm", [], "must be a local field"),
        ("sheared", [], "right-angled voxel axes"),
        ("no zero", [], "give the head with --mask"),
        ("all zero", [], "got zeros alone"),
        ("empty mask", ["--mask", "mask.nii.gz"], "voxels other than zero, got none"),
        ("small mask", ["--mask", "mask.nii.gz"], "mask must be on the field's grid (20, 22, 18), got (19, 22, 18)"),
        ("moved mask", ["--mask", "mask.nii.gz"], "mask must lie where the field lies"),
        ("zero noise", ["--noise", "noise.nii.gz"], "must be a standard deviation above zero"),
        (None, ["--method", "tdk"], "did you mean tkd?"),
        (None, ["--method", "tv", "--set", "wait=1"], "did you mean weight?"),
        (None, ["--set", "weight=1"], "such as --method tv, got learned"),
        (None, ["--method", "tv", "--set", "tile=64"], "such as --method learned, got tv"),
        (None, ["--set", "weight"], "--set must be KEY=VALUE"),
        (None, ["--method", "tv", "--set", "weight=heavy"], "--set weight must be a number"),
        (None, ["--set", "background.radius=3"], "must name a stage among inversion"),
        (None, ["--input", "phase"], "--te must give one echo time for each of 1 echoes, got 0"),
        (None, ["--input", "totalfield", "--set", "background.method=vsharpe"], "background.method must be one of"),
        (None, ["--method", "tv", "--set", "weight=-1"], "weight must be positive"),
        (None, ["--units", "hz"], "b0 must be given"),
        (None, ["--units", "rad", "--b0", "3"], "te must be given"),
        (None, ["--b0-dir", "0", "0", "0"], "b0_dir must be a finite direction"),
        (None, ["--workdir", "nowhere"], "must hold weights.safetensors"),
        (None, ["--params", "nowhere.json"], "must exist"),
        (None, ["-o", "nowhere/out.nii"], "must lie in a folder that exists"),
        (None, ["-o", "out.txt"], "must end in .nii or .nii.gz"),
        (None, ["-o", "field.nii.gz"], "must not write over an input"),
    ],
)
def test_what_cannot_be_gets_one_line_and_leaves_nothing(folder, scan, spoilt, words, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    if spoilt:
        spoil(spoilt)(folder, scan)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    field = [] if spoilt == "missing" else ["field.nii.gz"]
    assert infer(*field, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_main_names_its_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["unknown"])
    assert stop.value.code == 2 and "infer" in capsys.readouterr().err
