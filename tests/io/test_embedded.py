"""Volumes in a page: any reader of NIfTI finds them where they were, to a thousandth."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from qsmjax.io.embedded import embedded_volume

AFFINE = np.array([[0, 0, 2.0, 1], [-1, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1]])
BOX = (slice(2, 8), slice(1, 20), slice(3, 11))


def read(data):
    return nib.Nifti1Image.from_bytes(gzip.decompress(data))


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e3])
def test_values_and_place_are_kept(unit):
    volume = unit * np.random.default_rng(0).normal(size=(9, 10, 11))
    image = read(embedded_volume(volume, AFFINE, BOX))
    kept = volume[BOX]
    assert np.abs(image.get_fdata() - kept).max() <= np.abs(kept).max() / 1999
    assert image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine @ (0, 0, 0, 1), AFFINE @ (2, 1, 3, 1))
    np.testing.assert_allclose(image.header.get_zooms(), (1, 1.5, 2))


def test_masks_and_labels_take_a_byte_and_are_exact():
    labels = np.random.default_rng(0).integers(0, 60, (5, 6, 7))
    image = read(embedded_volume(labels, AFFINE))
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.get_fdata(), labels)


def test_numbers_of_parcellations_are_exact():
    labels = np.random.default_rng(0).choice([0, 17, 49, 1001, 2035, 14175], (5, 6, 7))
    np.testing.assert_array_equal(read(embedded_volume(labels, AFFINE)).get_fdata(), labels)


@pytest.mark.parametrize("volume", [np.zeros((3, 3, 3)), np.full((3, 3, 3), np.nan), np.full((3, 3, 3), np.inf)])
def test_nothing_to_see_becomes_zero(volume):
    assert not read(embedded_volume(volume, AFFINE)).get_fdata().any()


def test_the_same_volume_gives_the_same_bytes():
    volume = np.random.default_rng(1).normal(size=(4, 4, 4))
    assert embedded_volume(volume, AFFINE) == embedded_volume(volume, AFFINE)
