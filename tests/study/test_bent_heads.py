"""Subjects out of label maps: one each, and bent where there are fewer."""

import numpy as np

from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.study.cohort import Cohort, anatomy_name, draw_head


def test_a_label_map_that_comes_again_is_bent(tmp_path):
    index = np.indices((40, 40, 40)) - 19.5
    r = np.sqrt((index**2).sum(0))
    labels = np.select([r < 12, r < 15, r < 17, r < 19], [2, 3, 24, 515], 0)
    save_volume(tmp_path / "head.nii.gz", labels, new_volume(labels, np.diag([4.0, 4, 4, 1])))
    cohort = Cohort(labels=(str(tmp_path / "head.nii.gz"),))
    first, second = draw_head(cohort, 0), draw_head(cohort, 1)
    again = draw_head.__wrapped__(cohort, 1)
    assert 0.01 < (first.brain != second.brain).mean() < 0.2
    np.testing.assert_array_equal(second.brain, again.brain)


def test_bent_heads_are_of_their_label_maps_anatomy():
    cohort = Cohort(labels=("x.nii", "y.nii"))
    assert [anatomy_name(cohort, i) for i in range(4)] == ["sub-01", "sub-02", "sub-01", "sub-02"]
    assert anatomy_name(Cohort(), 4) == "sub-05"
