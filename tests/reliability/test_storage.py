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
