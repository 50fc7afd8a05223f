"""Warps: smooth, one to one, of the size that was asked for, and labels stay labels."""

import jax
import numpy as np
import pytest

from qsmjax.simulate.warp import warp_labels

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def test_labels_stay_and_move_by_the_reach():
    along = np.broadcast_to(np.arange(48, dtype=np.int16)[:, None, None], (48, 40, 36))
    moved = warp_labels(jax.random.key(0), along, AFFINE, reach=3.0)
    shift = 2.0 * (moved.astype(float) - along)[8:-8]
    assert moved.dtype == along.dtype and 1.0 < shift.std() < 5.0
    assert (np.diff(moved[8:-8].astype(int), axis=0) >= 0).all(), "nothing folds"
    np.testing.assert_array_equal(warp_labels(jax.random.key(0), along, AFFINE, reach=0.0), along)


def test_refuses_a_warp_that_would_fold():
    with pytest.raises(ValueError, match="a twelfth of scale"):
        warp_labels(jax.random.key(0), np.zeros((4, 4, 4), int), AFFINE, reach=10.0)
