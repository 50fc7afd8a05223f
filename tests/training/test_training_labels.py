"""Label maps become maps to train on: the brain at the network's voxels, the same for the same seed."""

import numpy as np
import pytest
import scipy.ndimage

from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.training.config import with_settings
from qsmjax.training.labels import load_labels
from qsmjax.training.presets import preset

CONFIG = with_settings(preset("tiny"), ["voxel_size=3,3,3"])


def head_of_labels(folder):
    """A ball of white matter with a thalamus and a pallidum, in a shell of cortex, in CSF, in bone."""
    index = np.indices((48, 48, 48)) - 23.5
    r = np.sqrt((index**2).sum(0))
    labels = np.select([r < 13, r < 17, r < 19, r < 21], [2, 3, 24, 515], 0)
    labels[(np.abs(index[0] - 4) < 3) & (np.abs(index[1]) < 4) & (np.abs(index[2]) < 3)] = 10
    labels[(np.abs(index[0] + 5) < 3) & (np.abs(index[1]) < 4) & (np.abs(index[2]) < 3)] = 13
    save_volume(folder / "head.nii.gz", labels, new_volume(labels, np.diag([2.0, 2, 2, 1])))
    return labels


def test_a_label_map_becomes_a_map(tmp_path):
    labels = head_of_labels(tmp_path)
    (found,) = load_labels(tmp_path, CONFIG)
    brain = np.isin(labels, [2, 3, 10, 13]).sum() * 8
    assert found.field is None and 0.8 < found.mask.sum() * 27 / brain < 1.5
    assert abs(found.chi[found.mask].mean()) < 1e-3 and not found.chi[~found.mask].any()
    assert 0.005 < found.chi[found.mask].std() < 0.2
    again = load_labels(tmp_path / "head.nii.gz", CONFIG)[0]
    np.testing.assert_array_equal(again.chi, found.chi)


def test_a_label_map_gives_as_many_heads_as_asked_for(tmp_path):
    head_of_labels(tmp_path)
    first, bent = load_labels(tmp_path, with_settings(CONFIG, ["variants=2"]))
    np.testing.assert_array_equal(load_labels(tmp_path, CONFIG)[0].chi, first.chi)
    assert first.name == "head.nii.gz" and bent.name == "head.nii.gz (1)"
    assert 0.8 < bent.mask.sum() / first.mask.sum() < 1.25
    assert bent.mask.shape != first.mask.shape or (bent.mask != first.mask).any()
    assert abs(bent.chi[bent.mask].mean()) < 1e-3
    # the pallidum, of all tissues the one with most iron, lies on the other side
    side = lambda maps: np.average(np.indices(maps.chi.shape)[0] - (maps.chi.shape[0] - 1) / 2, weights=_iron(maps))
    assert side(first) < -1 and side(bent) > 1


def _iron(maps):
    smooth = scipy.ndimage.uniform_filter(maps.chi, 3)
    return np.maximum(smooth - 0.5 * smooth.max(), 0)


def test_what_is_no_label_map_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a NIfTI file or a folder of them"):
        load_labels(tmp_path / "none", CONFIG)
    with pytest.raises(FileNotFoundError, match="must be a NIfTI file or a folder of them"):
        load_labels(tmp_path, CONFIG)
    field = np.random.default_rng(0).normal(size=(8, 8, 8))
    save_volume(tmp_path / "field.nii", field, new_volume(field, np.eye(4)))
    with pytest.raises(ValueError, match="must hold whole numbers"):
        load_labels(tmp_path, CONFIG)
