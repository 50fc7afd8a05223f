"""Multi-coil k-space through the commands: images as the coils saw them, and several orientations to one map."""

import argparse
import json

import jax
import numpy as np
import pytest

from qsmjax.cli import infer
from qsmjax.cli.kspace import read_images
from qsmjax.cli.main import run_command
from qsmjax.cli.orientations import read_orientation
from qsmjax.cli.scan import grid_of
from qsmjax.cli.stages import Stage
from qsmjax.io.kspace import load_kspace, save_kspace
from qsmjax.io.nifti import file_hash, load_volume, new_volume, save_volume
from qsmjax.phase.mask import erode_mask
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.physics.signal import gradient_echo
from qsmjax.registration.flirt import to_flirt, write_flirt
from qsmjax.simulate.coils import coil_sensitivities, multicoil_kspace, sampling_pattern

SHAPE = (22, 26, 26)
TE = (0.005, 0.012)
SIGMA = 0.002
SETTINGS = ["--set", "recon.kernel_size=3,4,4", "--set", "recon.map_kernel=4,4,4"]


def affine(degrees):
    """A grid turned in the scanner about x, its middle at the origin: the head lies still in it."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = 2 * np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.asarray(SHAPE) - 1) / 2)
    return matrix


def head():
    """Susceptibility and mask in the head's own axes."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    ball = lambda centre, width: np.exp(-sum((a - b) ** 2 for a, b in zip((x, y, z), centre)) / (2 * width**2))
    mask = (x / 9) ** 2 + (y / 11) ** 2 + (z / 11) ** 2 < 1
    return mask * (0.5 * ball((2, 1, 0), 2.0) - 0.3 * ball((-4, 2, 3), 1.8) + 0.25 * ball((1, -5, -3), 2.2)), mask


def write_scan(folder, degrees, seed=0):
    """Scan the head on a turned grid by five coils, 2x2 undersampled; return the echoes without noise."""
    chi, mask = head()
    grid = geometry_from_affine(affine(degrees), SHAPE)
    field = forward_field(chi, grid)
    echoes = np.stack([np.asarray(gradient_echo(field, 1.0 * mask, 20.0 * mask, te=te, b0=3.0)) for te in TE])
    kspace = multicoil_kspace(jax.random.key(seed), echoes, grid, sigma=SIGMA, coils=5, calibration=16)
    folder.mkdir(parents=True)
    save_kspace(folder / "kspace.npy", kspace)
    save_volume(folder / "mask.nii.gz", mask, new_volume(mask, affine(degrees)))
    said = {"TE": TE, "B0": 3.0, "affine": affine(degrees).tolist()}
    (folder / "params.json").write_text(json.dumps(said))
    return echoes


def test_images_come_back_from_undersampled_coils(tmp_path, capsys):
    echoes = write_scan(tmp_path / "scan", 20)
    options = [str(tmp_path / "scan"), str(tmp_path / "out"), *SETTINGS]
    assert run_command("recon", options) == 0
    assert "2 echoes of 22 x 26 x 26 voxels" in capsys.readouterr().out
    volumes = [load_volume(tmp_path / "out" / f"{name}.nii.gz") for name in ("magnitude", "phase")]
    np.testing.assert_allclose(volumes[1].affine, affine(20), atol=1e-5)
    made = np.moveaxis(volumes[0].data * np.exp(1j * volumes[1].data), -1, 0)
    _, mask = head()
    maps = coil_sensitivities(geometry_from_affine(affine(20), SHAPE), 5)
    truth = np.abs(echoes) * np.linalg.norm(maps, axis=0)
    assert np.linalg.norm((np.abs(made) - truth)[:, mask]) < 0.04 * np.linalg.norm(truth[:, mask])
    # what the coils add to the phase is one for all echoes
    turned = np.angle(made[1:] * np.conj(made[:-1]) * np.conj(echoes[1:]) * echoes[:-1])[:, mask]
    assert np.sqrt(np.mean(turned**2)) < 0.04


@pytest.mark.slow
def test_orientations_of_kspace_become_one_map(tmp_path):
    for number, degrees in enumerate((0, 30, -30)):
        folder = tmp_path / "scans" / "abc"[number]
        write_scan(folder, degrees, number)
        turn = affine(degrees) @ np.linalg.inv(affine(0))
        write_flirt(folder / "to_reference.mat", to_flirt(turn, affine(degrees), SHAPE, affine(0), SHAPE))
    words = [str(tmp_path / "scans"), "-o", str(tmp_path / "out"), "--quiet", *SETTINGS]
    assert run_command("cosmos", [*words, "--set", "background.method=pdf", "--set", "field.residual=0.9"]) == 0
    found = load_volume(tmp_path / "out" / "cosmos_Chimap.nii.gz").data
    chi, mask = head()
    # the background's removal takes some of what lies at the rim
    inner = np.asarray(erode_mask(mask, 2))
    assert np.corrcoef(found[inner], chi[inner])[0, 1] > 0.8


def test_the_pattern_holds_a_lattice_through_the_middle_and_a_full_centre():
    pattern = sampling_pattern((8, 30, 29), (2, 3), 10)
    assert pattern[15, 14] and pattern[10:20, 9:19].all()
    assert pattern[1::2, 2::3].all() and not pattern[0].any() and not pattern[1, 0]


def write_apart(folder, seed=9):
    """Leave k-space only a lattice that misses k = 0; the centre stands in a scan of its own, beside the noise."""
    echoes = write_scan(folder, 0)
    grid = geometry_from_affine(affine(0), SHAPE)
    keys = jax.random.split(jax.random.key(seed), 2)
    how = {"sigma": SIGMA, "coils": 5, "acceleration": (1, 1)}
    kspace = multicoil_kspace(keys[0], echoes, grid, **how)
    lattice = np.zeros_like(kspace)
    lattice[..., ::2, ::2] = kspace[..., ::2, ::2]
    save_kspace(folder / "kspace.npy", lattice)
    # k = 0 stands at 13: odd, and in the middle of what is cut out
    region = multicoil_kspace(keys[1], echoes[:1], grid, **how)[0, :, 3:19, 4:22, 4:22]
    np.save(folder / "calibration.npy", np.moveaxis(region, 0, -1))
    np.save(folder / "coilnoise.npy", complex_noise((4000, 5)))
    return echoes


def complex_noise(shape):
    rng = np.random.default_rng(0)
    return (SIGMA * (rng.normal(size=shape) + 1j * rng.normal(size=shape))).astype(np.complex64)


def words_of(folder):
    words = [str(folder / "kspace.npy"), "--input", "kspace", "--params", str(folder / "params.json")]
    return [*words, "--mask", str(folder / "mask.nii.gz"), "--preset", "fast", "--no-figure", *SETTINGS]


def test_calibration_and_noise_beside_kspace_are_taken(tmp_path):
    echoes = write_apart(tmp_path / "scan")
    assert run_command("recon", [str(tmp_path / "scan"), str(tmp_path / "out"), *SETTINGS, "--quiet"]) == 0
    made = load_volume(tmp_path / "out" / "magnitude.nii.gz").data
    _, mask = head()
    maps = coil_sensitivities(geometry_from_affine(affine(0), SHAPE), 5)
    # the noise is alike in all coils, and of this variance: real and imaginary part together
    truth = np.moveaxis(np.abs(echoes) * np.linalg.norm(maps, axis=0), 0, -1) / np.sqrt(2 * SIGMA**2)
    assert np.linalg.norm((made - truth)[mask]) < 0.06 * np.linalg.norm(truth[mask])


def test_the_sidecar_tells_of_calibration_and_noise(tmp_path):
    folder = tmp_path / "scan"
    write_apart(folder)
    apart = ["--calibration", str(folder / "calibration.npy"), "--coil-noise", str(folder / "coilnoise.npy")]
    assert run_command("infer", [*words_of(folder), *apart, "-o", str(tmp_path / "chi.nii"), "--quiet"]) == 0
    told = json.loads((tmp_path / "chi.json").read_text())
    for name, file in (("calibration", "calibration.npy"), ("coil_noise", "coilnoise.npy")):
        assert told["InputsBeside"][name] == [{"Name": file, "SHA256": file_hash(folder / file)}]
    notes = "; ".join(told["Notes"])
    assert "acceleration 2 x 2, full in 0 x 0 of its centre" in notes
    assert "from a calibration scan measured apart, of 16 x 18 x 18" in notes
    assert "coils whitened by 4000 samples of their noise" in notes
    assert not {"calibration", "noise"} & set(told["Stages"]["recon"]["Parameters"])
    settings = [word for word in SETTINGS if word != "--set"]
    orientation = read_orientation(folder, None, settings=settings, preset="fast")
    assert [path.name for path in orientation.files] == ["kspace.npy"]
    assert {
        key: told["InputsBeside"][key] for key in ("calibration", "coil_noise")
    }.items() <= orientation.beside.items()
    assert [note for note in orientation.scan.notes if "apart" in note or "whitened" in note]


def test_calibration_and_noise_with_other_axes_are_told_of_their_own(tmp_path, capsys):
    folder = tmp_path / "scan"
    write_apart(folder)
    for flag, file, axes in (
        ("--calibration", "calibration", "x y z coil"),
        ("--coil-noise", "coilnoise", "sample coil"),
    ):
        np.save(tmp_path / "turned.npy", np.moveaxis(np.load(folder / f"{file}.npy"), -1, 0))
        assert run_command("infer", [*words_of(folder), flag, str(tmp_path / "turned.npy")]) == 2
        said = capsys.readouterr().err
        assert f"turned.npy must have the axes {axes} and k-space's 5 coils, got" in said and said.count("\n") == 1
    assert run_command("infer", [*words_of(folder), "--phase-units", "rad"]) == 2
    assert "--phase-units must go with phase" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--calibration", "--coil-noise"])
def test_calibration_and_noise_are_inputs_of_kspace_alone(tmp_path, flag, capsys):
    field = tmp_path / "field.nii"
    save_volume(field, np.ones((6, 7, 8)), new_volume(np.ones((6, 7, 8)), np.eye(4)))
    np.save(tmp_path / "more.npy", np.ones((2, 2, 2, 2), np.complex64))
    for kind in ("localfield", "phase"):
        assert run_command("infer", [str(field), "--input", kind, flag, str(tmp_path / "more.npy")]) == 2
        assert f"{flag} must go with --input kspace, got {kind}" in capsys.readouterr().err
    # whatever they are called, they are never written over
    write_scan(tmp_path / "scan", 0)
    given = tmp_path / "chi.json"
    np.save(tmp_path / "more.npy", np.ones((2, 2, 2, 2), np.complex64))
    (tmp_path / "more.npy").rename(given)
    before = given.read_bytes()
    words = [*words_of(tmp_path / "scan"), flag, str(given), "-o", str(tmp_path / "chi.nii")]
    assert run_command("infer", words) == 2
    assert "must not write over an input" in capsys.readouterr().err and given.read_bytes() == before


@pytest.mark.parametrize("name", ["calibration.npy", "coilnoise.npy"])
@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (np.array([{"a": 1}], object), "must be a whole .npy file without objects"),
        (np.ones((2, 2)), "must hold a complex array with the axes"),
        (np.ones(4, np.complex64), "must hold a complex array with the axes"),
        (np.nan, "must be finite, got NaN or infinity"),
    ],
)
def test_calibration_and_noise_that_cannot_be_get_one_line(tmp_path, name, spoilt, message, capsys):
    write_scan(tmp_path / "scan", 0)
    shape = (4, 4, 4, 5) if name == "calibration.npy" else (40, 5)
    spoilt = np.full(shape, spoilt, np.complex64) if np.ndim(spoilt) == 0 else spoilt
    np.save(tmp_path / "scan" / name, spoilt, allow_pickle=True)
    assert run_command("recon", [str(tmp_path / "scan"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said and name in said and said.count("\n") == 1


def test_options_of_the_reconstruction_are_no_arrays(tmp_path, capsys):
    write_scan(tmp_path / "scan", 0)
    assert run_command("recon", [str(tmp_path / "scan"), str(tmp_path / "out"), "--set", "calibration=3"]) == 2
    assert "--set calibration must be an option of grappa" in capsys.readouterr().err


def spoil(folder, name):
    kspace = load_kspace(folder / "kspace.npy")
    if name == "cut short":
        whole = (folder / "kspace.npy").read_bytes()
        (folder / "kspace.npy").write_bytes(whole[: len(whole) // 2])
    elif name == "objects":
        np.save(folder / "kspace.npy", np.array([{"a": 1}], object), allow_pickle=True)
    elif name == "real":
        np.save(folder / "kspace.npy", np.abs(kspace))
    elif name == "corner":
        save_kspace(folder / "kspace.npy", np.fft.ifftshift(kspace, axes=(2, 3, 4)))
    elif name == "echoes differ":
        kspace[1, :, :, 0] = 1
        save_kspace(folder / "kspace.npy", kspace)
    elif name == "echo times":
        (folder / "params.json").write_text('{"TE": [0.01], "B0": 3}')
    elif name == "no grid":
        (folder / "mask.nii.gz").unlink()
        (folder / "params.json").write_text(json.dumps({"TE": TE, "B0": 3}))
    elif name == "affine":
        (folder / "params.json").write_text(json.dumps({"TE": TE, "B0": 3, "affine": [[1, 0, 0, 0]] * 4}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut short", "must be a whole .npy file"),
        ("objects", "must be a whole .npy file without objects"),
        ("real", "must hold a complex array with the axes x y z coil echo"),
        ("corner", "shift it with fftshift"),
        ("echoes differ", "sampled alike in all echoes, got another pattern in echo 2"),
        ("echo times", "one echo time for each of 2 echoes"),
        ("no grid", "must give affine or voxel_size"),
        ("affine", "affine must be invertible"),
    ],
)
def test_what_cannot_be_gets_one_line(tmp_path, name, message, capsys):
    write_scan(tmp_path / "scan", 0)
    spoil(tmp_path / "scan", name)
    assert run_command("recon", [str(tmp_path / "scan"), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_results_never_replace_what_they_are_made_of(tmp_path, capsys):
    write_scan(tmp_path / "scan", 0)
    before = {path: path.read_bytes() for path in (tmp_path / "scan").iterdir()}
    assert run_command("recon", [str(tmp_path / "scan")] * 2) == 2
    assert "OUT must be another folder than FOLDER" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "scan").iterdir()} == before


@pytest.mark.parametrize("flags", [["--b0", "30000"], ["--te", "5", "12"]])
def test_units_of_the_flags_are_looked_at(tmp_path, flags, capsys):
    write_scan(tmp_path / "scan", 0)
    words = [str(tmp_path / "scan" / "kspace.npy"), "--input", "kspace", "--params", str(tmp_path / "scan/params.json")]
    assert run_command("infer", [*words, "-o", str(tmp_path / "chi.nii"), *flags]) == 2
    assert f"must be in {'tesla' if '--b0' in flags else 'seconds'}" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["params", "mask"])
def test_sizes_without_an_orientation_are_taken_and_b0_is_assumed(tmp_path, told):
    save_kspace(tmp_path / "kspace.npy", np.ones((1, 2, 6, 7, 8), np.complex64))
    said = {"TE": [0.01], "B0": 3.0} | ({"voxel_size": [1.0, 2.0, 3.0]} if told == "params" else {})
    (tmp_path / "params.json").write_text(json.dumps(said))
    mask = new_volume(np.ones((6, 7, 8)), np.diag([1.0, 2.0, 3.0, 1.0]))
    mask.header.set_sform(None)
    mask.header.set_qform(None)
    save_volume(tmp_path / "mask.nii", mask.data, mask)
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    words = [str(tmp_path / "kspace.npy"), "--input", "kspace", "--params", str(tmp_path / "params.json")]
    args = parser.parse_args(words + (["--mask", str(tmp_path / "mask.nii")] if told == "mask" else []))
    images = read_images(args, Stage("first coil", lambda kspace: kspace[:, 0], {}))
    grid, source, notes = grid_of(args, images.volume, images.parameters)
    np.testing.assert_allclose(grid.voxel_size, [1, 2, 3])
    assert source == "assumption" and "B0 is taken along the third voxel axis" in notes[0]
    save_volume(tmp_path / "out.nii", np.abs(images.signal[0]), images.volume)
    assert not load_volume(tmp_path / "out.nii").oriented
