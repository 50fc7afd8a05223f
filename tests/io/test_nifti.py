"""Volumes go out as they came in, and what is no volume is refused in one line."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from qsmjax.io import nifti
from qsmjax.io.aside import write_aside

SHAPE = (4, 5, 6)


def save(path, data, affine, *, sform=1, qform=1, dtype=np.float32, kind=nib.Nifti1Image, endianness="<"):
    header = (nib.Nifti1Header if kind is nib.Nifti1Image else nib.Nifti2Header)(endianness=endianness)
    header.set_data_dtype(dtype)
    image = kind(np.asarray(data), affine, header)
    image.set_sform(affine, code=sform)
    image.set_qform(affine, code=qform)
    nib.save(image, path)
    return path


def geometry_bytes(path):
    raw = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
    return raw[76:108], raw[252:328]  # pixdim; qform and sform with their codes


def oblique():
    c, s = np.cos(0.35), np.sin(0.35)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([0.8, 0.8, 1.2])
    affine[:3, 3] = (-91.3, 20.7, 13.123456)
    return affine


AFFINES = {"oblique": oblique()}
for order in itertools.permutations(range(3)):
    turn = np.zeros((4, 4))
    turn[[*order, 3], range(4)] = (0.7, -1.0, 2.0, 1.0)
    AFFINES["permuted " + "".join("xyz"[i] for i in order)] = turn


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1), (0, 0), (4, 2)])
def test_the_affine_goes_out_byte_for_byte(tmp_path, name, codes):
    path = save(tmp_path / "in.nii", np.ones(SHAPE, np.float32), AFFINES[name], sform=codes[0], qform=codes[1])
    volume = nifti.load_volume(path)
    nifti.save_volume(tmp_path / "out.nii.gz", volume.data * 2, volume)
    assert geometry_bytes(tmp_path / "out.nii.gz") == geometry_bytes(path)
    np.testing.assert_array_equal(nifti.load_volume(tmp_path / "out.nii.gz").affine, volume.affine)
    assert volume.oriented == (max(codes) > 0)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_every_storage_is_read_as_float32(tmp_path, dtype, endianness, kind):
    data = np.arange(120).reshape(SHAPE).astype(dtype)
    path = save(tmp_path / "in.nii.gz", data, oblique(), dtype=dtype, kind=kind, endianness=endianness)
    volume = nifti.load_volume(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, data)
    nifti.save_volume(tmp_path / "out.nii", volume.data, volume)
    again = nifti.load_volume(tmp_path / "out.nii")
    np.testing.assert_array_equal(again.data, data)
    assert type(again.header) is type(volume.header) and again.header.endianness == endianness


def test_scaled_integers_are_scaled(tmp_path):
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.eye(4))
    image.header.set_slope_inter(0.001, -0.05)
    nib.save(image, tmp_path / "in.nii")
    found = nifti.load_volume(tmp_path / "in.nii")
    np.testing.assert_allclose(found.data, np.arange(120).reshape(SHAPE) * 0.001 - 0.05, atol=1e-7)
    nifti.save_volume(tmp_path / "out.nii", found.data, found)
    np.testing.assert_allclose(nifti.load_volume(tmp_path / "out.nii").data, found.data)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def header_only(path):
    path.write_bytes(path.read_bytes()[:360])


def not_nifti(path):
    path.write_bytes(b"no volume at all" * 40)


def lying(path):
    raw = bytearray(path.read_bytes())
    raw[42:48] = np.asarray([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(raw)


def negative_size(path):
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.float32(-1).tobytes()
    path.write_bytes(raw)


def in_metres(path):
    raw = bytearray(path.read_bytes())
    raw[123] = 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "whole NIfTI file"),
        (header_only, "whole NIfTI file"),
        (not_nifti, "whole NIfTI file"),
        (lying, "whole NIfTI file"),
        (negative_size, "positive voxel sizes"),
        (in_metres, "voxels in mm, got metres"),
    ],
)
def test_spoilt_files_are_refused(tmp_path, spoil, message):
    path = save(tmp_path / "in.nii", np.ones(SHAPE, np.float32), np.eye(4))
    spoil(path)
    with pytest.raises(ValueError, match=message):
        nifti.load_volume(path)


def test_two_forms_of_a_header_are_held_against_each_other(tmp_path):
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    header = nifti.new_volume(np.ones(SHAPE), turn).header
    assert nifti.forms_apart(header) < 0.1
    header.set_qform(np.eye(4), code=1)
    np.testing.assert_allclose(nifti.forms_apart(header), np.degrees(0.5), rtol=1e-3)
    header.set_qform(np.eye(4), code=0)
    assert nifti.forms_apart(header) == 0


def test_a_gzip_that_ends_early_is_refused(tmp_path):
    path = save(tmp_path / "in.nii.gz", np.random.default_rng(0).normal(size=(16, 16, 16)), np.eye(4))
    truncated(path)
    with pytest.raises(ValueError, match="whole NIfTI file"):
        nifti.load_volume(path)


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_complex_and_colour_are_refused(tmp_path, dtype):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, dtype), np.eye(4)), tmp_path / "in.nii")
    with pytest.raises(ValueError, match="must hold real numbers"):
        nifti.load_volume(tmp_path / "in.nii")


@pytest.mark.parametrize("ending", [".NII", ".NII.GZ", ".nii.GZ"])
def test_endings_in_capitals_are_read_and_written(tmp_path, ending):
    path = save(tmp_path / f"HEAD{ending}", np.ones(SHAPE), oblique())
    volume = nifti.load_volume(path)
    assert nifti.volume_files(tmp_path) == [path] and nifti.stem(path) == "HEAD"
    nifti.save_volume(tmp_path / f"OUT{ending}", 2 * volume.data, volume)
    np.testing.assert_array_equal(nifti.load_volume(tmp_path / f"OUT{ending}").data, 2)


def test_missing_files_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        nifti.load_volume(tmp_path / "none.nii")
    (tmp_path / "scan.dcm").write_bytes(b"")
    with pytest.raises(ValueError, match="dcm2niix"):
        nifti.load_volume(tmp_path / "scan.dcm")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "map.nii"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_aside(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["map.nii"]
