"""However a scan is stored, and wherever it lies in its grid, its map is the same."""

import json

import nibabel as nib
import numpy as np
import pytest

from qsmjax.cli.main import run_command
from qsmjax.io.nifti import load_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry_from_affine

SHAPE = (14, 16, 12)
AFFINE = np.eye(4)
AFFINE[:3, :3] = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]) @ np.diag([1.0, 1.0, 1.5])
STEP = 2.0**-19
"""Of the field [ppm]: a whole number of it is exact in float32 and, scaled, in int16."""


def field(shape=SHAPE, corner=(0, 0, 0)):
    """The field of a cube in a ball, in whole steps, in a grid that may be larger; known in the ball alone."""
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    inside = np.linalg.norm(at / (np.reshape(SHAPE, (3, 1, 1, 1)) / 2 - 1), axis=0) < 1
    chi = 0.05 * (np.abs(at) < 3).all(axis=0)
    steps = np.rint(np.asarray(forward_field(chi, geometry_from_affine(AFFINE, SHAPE))) / STEP)
    whole = np.zeros(shape)
    where = tuple(slice(c, c + n) for c, n in zip(corner, SHAPE))
    # no voxel of the mask is zero, which would take it for outside
    whole[where] = STEP * np.where(inside, np.where(steps == 0, 1, steps), 0)
    return whole


def store(path, data, affine=AFFINE, dtype=np.float32, endianness="<", sform=1, qform=1, kind=nib.Nifti1Image):
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(dtype)
    scaled = np.issubdtype(dtype, np.integer)
    image = kind(np.rint(data / STEP).astype(dtype) if scaled else data, affine, header)
    if scaled:
        image.header.set_slope_inter(STEP, 0)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    nib.save(image, path)
    return path


def orders(affine=AFFINE):
    """Other ways to store the scan: how to turn its volumes, and back, and its affine then."""
    for order, signs in [((1, 0, 2), (1, -1, 1)), ((2, 1, 0), (-1, 1, -1)), ((1, 2, 0), (1, 1, 1))]:
        flips = tuple(slice(None, None, sign) for sign in signs)
        matrix = affine[:, [*order, 3]].copy()
        matrix[:, 3] += sum(matrix[:, i] * (SHAPE[order[i]] - 1) for i in range(3) if signs[i] < 0)
        matrix[:3, :3] *= signs
        turn = lambda volume: volume.transpose(order)[flips]  # noqa: B023
        yield turn, lambda volume: volume[flips].transpose(np.argsort(order)), matrix  # noqa: B023


def same(found, expected):
    return np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


def map_of(path, *words, method="tkd"):
    out = path.with_name("out.nii")
    assert run_command("infer", [str(path), "-o", str(out), "--method", method, "--quiet", "--no-figure", *words]) == 0
    return load_volume(out).data, json.loads(out.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return map_of(store(tmp_path_factory.mktemp("first") / "field.nii", field()))[0]


@pytest.mark.parametrize("name", ["field.nii", "field.nii.gz"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_storage_gives_the_same_bits(tmp_path, expected, name, dtype, endianness, kind):
    path = store(tmp_path / name, field(), dtype=dtype, endianness=endianness, kind=kind)
    np.testing.assert_array_equal(map_of(path)[0], expected)


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 4)])
def test_sform_or_qform_gives_the_same_map(tmp_path, expected, sform, qform):
    found, told = map_of(store(tmp_path / "field.nii", field(), sform=sform, qform=qform))
    assert told["B0DirectionSource"] == "affine"
    # a quaternion is stored in float32
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_neither_is_named_and_told_away(tmp_path, expected, capsys):
    path = store(tmp_path / "field.nii", field(), sform=0, qform=0)
    words = [str(path), "-o", str(tmp_path / "out.nii"), "--method", "tkd", "--no-figure"]
    assert run_command("infer", words) == 0
    said = capsys.readouterr().out
    assert "note: the header says nothing of orientation: B0 is taken along the third voxel axis" in said
    assert "from assumption" in said
    assert json.loads((tmp_path / "out.json").read_text())["B0DirectionSource"] == "assumption"
    b0_dir = AFFINE[2, :3] / [1, 1, 1.5]
    found, told = map_of(path, "--b0-dir", *map(str, b0_dir))
    assert told["B0DirectionSource"] == "--b0-dir"
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["tkd", "tv"])
def test_a_head_moved_in_a_larger_grid_gives_the_map_moved(tmp_path, method):
    """A larger grid is padding too: four times the voxels along an axis."""
    found, _ = map_of(store(tmp_path / "field.nii", field()), method=method)
    for shape, corner in (((20, 17, 13), (5, 1, 0)), ((56, 16, 12), (40, 0, 0))):
        moved, _ = map_of(store(tmp_path / "field.nii", field(shape, corner)), method=method)
        where = tuple(slice(c, c + n) for c, n in zip(corner, SHAPE))
        np.testing.assert_allclose(moved[where], found, atol=1e-6)
        moved[where] = 0
        assert not moved.any()


@pytest.mark.parametrize("words", [pytest.param((), marks=pytest.mark.slow), ("--input", "totalfield"), ("--given",)])
def test_other_axes_give_the_same_map_and_its_deviation(tmp_path, words):
    """The network is not the same in all directions, so that it is the volumes that are turned."""
    scan, given, words = field(), "--given" in words, [word for word in words if word != "--given"]
    noise, magnitude = 1e-3 + np.abs(scan), 1 + np.arange(scan.size).reshape(SHAPE) / scan.size

    def run(turn, affine):
        path = store(tmp_path / "field.nii", turn(scan), affine)
        # B0 is given in the axes of the file, here another than the affine's
        b0_dir = np.linalg.inv(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)) @ (0.6, 0, 0.8)
        more = ["--b0-dir", *map(str, b0_dir)] if given else []
        for flag, volume in (("noise", noise), ("magnitude", magnitude), ("mask", scan != 0)) if given else ():
            more += [f"--{flag}", str(store(tmp_path / f"{flag}.nii", 1.0 * turn(volume), affine))]
        found, told = map_of(path, *words, *more, "--save-stages", method="learned")
        np.testing.assert_array_equal(load_volume(tmp_path / "out.nii").affine, load_volume(path).affine)
        beside = lambda name: load_volume(tmp_path / f"out_{name}.nii.gz").data
        np.testing.assert_allclose(told["B0Direction"], b0_dir if given else _b0_dir(affine), atol=1e-6)
        return found, beside("desc-std_Chimap"), beside("desc-local_fieldmap"), beside("desc-qsm_mask")

    expected = run(lambda volume: volume, AFFINE)
    for turn, back, affine in orders():
        for found, part in zip(run(turn, affine), expected):
            assert same(back(found), part)


@pytest.mark.slow
def test_other_axes_give_the_same_map_of_phase(tmp_path):
    """Background removal makes a hundredth of the map of what rounds otherwise in the total field."""
    rng, te = np.random.default_rng(3), (0.005, 0.012, 0.02)
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    total = field() + 0.3 * at[0] * at[1] - 0.2 * at[2]
    echoes = [np.exp(2j * np.pi * 127.7 * total * t) + 0.01 * rng.normal(size=SHAPE) for t in te]

    def run(turn, affine):
        names = [
            [str(store(tmp_path / f"{part}{i}.nii", turn(of(echo)), affine)) for i, echo in enumerate(echoes)]
            for part, of in (("phase", np.angle), ("magnitude", np.abs))
        ]
        mask = store(tmp_path / "mask.nii", turn(1.0 * (field() != 0)), affine)
        words = ["--input", "phase", "--magnitude", *names[1], "--mask", str(mask), "--b0", "3", "--phase-units", "rad"]
        words += ["--te", *map(str, te), "--method", "learned", "--quiet", "--no-figure"]
        assert run_command("infer", [*names[0], "-o", str(tmp_path / "out.nii"), *words]) == 0
        return load_volume(tmp_path / "out.nii").data

    expected = run(lambda volume: volume, AFFINE)
    assert expected.any()
    for turn, back, affine in orders():
        assert same(back(run(turn, affine)), expected)


def test_volumes_of_one_scan_must_be_stored_alike(tmp_path, capsys):
    turn, _, affine = next(orders())
    path = store(tmp_path / "field.nii", field())
    mask = store(tmp_path / "mask.nii", turn(1.0 * (field() != 0)), affine)
    assert run_command("infer", [str(path), "--mask", str(mask), "--method", "tkd"]) == 2
    assert "mask must be on the field's grid" in capsys.readouterr().err


def _b0_dir(affine):
    return affine[2, :3] / np.linalg.norm(affine[:3, :3], axis=0)
