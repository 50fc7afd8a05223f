"""`qsmjax simulate`: what it writes, and what it refuses."""

from pathlib import Path

import jax
import numpy as np
import pytest

from qsmjax.cli.main import main
from qsmjax.cli.simulate import read_head, subjects
from qsmjax.io.kspace import load_kspace
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import load_json
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.registration.resample import resample
from qsmjax.simulate.posture import moved, posture
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import grid_around


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """A ball of cortex about white matter, 4 mm voxels, in air."""
    x, y, z = np.meshgrid(*[np.arange(12) - 5.5] * 3, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    data = np.select([r < 2.5, r < 4.5], [2, 3], 0).astype(np.float32)
    path = tmp_path_factory.mktemp("labels") / "head_a.nii.gz"
    save_volume(path, data, new_volume(data, np.diag([4.0, 4.0, 4.0, 1.0]), path))
    return path


def test_both_layouts_are_written_with_the_grid_in_their_affines(labels, tmp_path, capsys):
    options = [
        "--voxel-size",
        "4",
        "4",
        "4",
        "--tilt",
        "20",
        "--te",
        "0.004",
        "0.009",
        "--lesions",
        "none",
        "--no-background",
        "--coils",
        "3",
    ]
    assert main(["simulate", str(tmp_path), "--labels", str(labels), *options]) == 0
    coils = tmp_path / "kspace" / "sub-heada" / "orient1"
    mask = load_volume(coils / "mask.nii.gz")
    assert load_kspace(coils / "kspace.npy").shape == (2, 3, *mask.data.shape)
    np.testing.assert_allclose(load_json(coils / "params.json")["affine"], mask.affine, atol=1e-5)
    folder = tmp_path / "qsm-ci" / "sub-heada_orient1"
    params = load_json(folder / "params.json")
    field = load_volume(folder / "inputs" / "localfield.nii.gz")
    axes = field.affine[:3, :3] / np.linalg.norm(field.affine[:3, :3], axis=0)
    np.testing.assert_allclose(params["B0_dir"], axes.T @ (0, 0, 1), atol=1e-5)
    assert params["TE"] == [0.004, 0.009] and params["B0"] == 3.0
    chi, mask = (load_volume(folder / "groundtruth" / f"{name}.nii.gz").data for name in ("chimap", "mask"))
    assert chi.shape == field.data.shape and not chi[mask == 0].any()
    stem = "sub-heada_acq-orient1_echo-2_part-phase_MEGRE"
    assert load_json(tmp_path / "sub-heada" / "anat" / f"{stem}.json")["EchoTime"] == 0.009
    assert np.abs(load_volume(tmp_path / "sub-heada" / "anat" / f"{stem}.nii.gz").data).max() <= np.pi + 1e-3


@pytest.mark.parametrize(
    "options",
    [
        ["--orientations", "0"],
        ["--te", "0.004"],
        ["--te", "0.009", "0.004"],
        ["--te", "0.004", "nan"],
        ["--snr", "0"],
        ["--voxel-size", "1", "nan", "1"],
        ["--age", "-30"],
        ["--age", "nan"],
        ["--tilt", "nan"],
    ],
)
def test_what_cannot_be_is_refused_in_one_line(labels, tmp_path, capsys, options):
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(labels), *options]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_subjects_are_named_by_the_letters_and_digits_of_their_files():
    files = {"head_a.nii.gz": "heada", "head.1.nii": "head1", "sub-01+x.nii.gz": "01x", "subject7.nii": "subject7"}
    assert list(subjects([*map(Path, files)])) == [f"sub-{label}" for label in files.values()]


@pytest.mark.parametrize(
    "names", [("a_1.nii", "a-1.nii"), ("head.nii", "head.nii.gz"), ("sub-2.nii", "2.nii"), ("1.nii", "_.nii")]
)
def test_two_label_maps_never_become_one_subject(labels, tmp_path, capsys, names):
    (tmp_path / "in").mkdir()
    volume = load_volume(labels)
    for name in names:
        save_volume(tmp_path / "in" / name, volume.data, volume)
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(tmp_path / "in")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and names[1] in said and "rename" in said
    assert names[0] in said or names[1] == "_.nii"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spoiled", [2.4, np.nan, np.inf])
def test_an_image_is_no_label_map(labels, tmp_path, capsys, spoiled):
    volume = load_volume(labels)
    data = np.where(volume.data == 2, np.float32(spoiled), volume.data)
    save_volume(tmp_path / "t1.nii", data, volume)
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(tmp_path / "t1.nii")]) == 2
    assert "t1.nii must hold whole numbers, got others: is it a label map?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_of_whole_numbers_is_no_label_map(labels, tmp_path, capsys):
    volume = load_volume(labels)
    image = np.rint(100 + 30 * np.random.default_rng(0).standard_normal(volume.shape)).clip(1, 255)
    save_volume(tmp_path / "t1.nii", image, volume)
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(tmp_path / "t1.nii")]) == 2
    assert "labels must be like their neighbours in most voxels" in capsys.readouterr().err


def test_echo_times_in_milliseconds_are_refused(labels, tmp_path, capsys):
    words = ("--te", "4", "8", "12")
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(labels), *words]) == 2
    assert "echo times must be in seconds, got 12: divide milliseconds by 1000" in capsys.readouterr().err


def test_a_folder_without_label_maps_is_refused(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "out"), "--labels", str(tmp_path)]) == 2
    assert "must be a NIfTI file or a folder of them" in capsys.readouterr().err


def test_several_orientations_turn_the_head_and_leave_b0_along_z(labels):
    """The motion between two postures brings what was sampled of one onto the other."""
    head = read_head(jax.random.key(0), labels, veins=4)
    motion = posture(head, 1, np.radians(25))
    turned = moved(head, motion)
    grids = [grid_around(h, (2.0, 2.0, 2.0)) for h in (head, turned)]
    np.testing.assert_allclose(geometry_from_affine(grids[1].affine, grids[1].shape).b0_dir, (0, 0, 1), atol=1e-6)
    parts = [sample(h, g.shape, g.affine, everything=False) for h, g in zip((head, turned), grids)]
    here, there = (part.chi * part.brain for part in parts)
    grid = (grids[1].affine, grids[0].affine, grids[0].shape)
    inside = here != 0
    alike = lambda volume: np.corrcoef(np.asarray(volume)[inside], here[inside])[0, 1]
    # a ball of tissue looks the same from all sides: its veins tell
    back, unmoved = (alike(resample(there, *grid, m, method="linear")) for m in (motion, np.eye(4)))
    assert back > 0.85 and unmoved < back - 0.1, (back, unmoved)
