"""Masks: found where the signal is, only ever reduced where given."""

import numpy as np
import pytest

from qsmjax.phase.mask import erode_mask, magnitude_mask, reduce_mask

SHAPE = (24, 22, 20)
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
BALL = x**2 + y**2 + z**2 < 0.6
HOLE = (x - 0.1) ** 2 + y**2 + z**2 < 0.02
RNG = np.random.default_rng(0)


def image(scale=1.0):
    noise = 0.05 * np.hypot(RNG.normal(size=SHAPE), RNG.normal(size=SHAPE))
    speck = np.zeros(SHAPE)
    speck[1:3, 1:3, 1:3] = 1
    spike = np.zeros(SHAPE)
    spike[12, 11, 10] = 20
    return scale * (BALL * (1 + 0.4 * x) * (1 - 0.95 * HOLE) + speck + spike + noise)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 4000.0])
def test_the_object_is_found_filled_and_alone_at_any_scale(scale):
    mask = np.asarray(magnitude_mask(image(scale)))
    assert 2 * np.sum(mask & BALL) / (mask.sum() + BALL.sum()) > 0.97
    assert mask[HOLE].all() and not mask[1:3, 1:3, 1:3].any()


def test_echoes_are_taken_together_and_the_rim_comes_off():
    full = magnitude_mask(np.stack([image(), 0.7 * image()]))
    less = magnitude_mask(np.stack([image(), 0.7 * image()]), erode=2)
    assert less.sum() < full.sum() and not np.any(less & ~full)
    assert np.asarray(magnitude_mask(image(), threshold=0.3)).sum() > 0


def test_a_given_mask_is_only_reduced_and_what_went_is_told():
    residual = np.where(HOLE, 0.5, 0.05)
    kept, removed, rim = (np.asarray(part) for part in reduce_mask(BALL, residual, erode=1))
    np.testing.assert_array_equal(rim, BALL & ~erode_mask(BALL, 1))
    assert not np.any(kept & removed) and np.array_equal(kept | removed, BALL)
    assert removed[HOLE].all() and kept.sum() > 0.5 * BALL.sum()
    assert np.array_equal(reduce_mask(BALL).mask, BALL)


def test_erosion_goes_by_distance_and_not_through_the_faces():
    slab = np.zeros((9, 9, 9), bool)
    slab[2:7] = True
    expected = np.zeros_like(slab)
    expected[3:6] = True
    np.testing.assert_array_equal(erode_mask(slab, 1), expected)
    np.testing.assert_array_equal(erode_mask(slab, 0), slab)


def test_masks_that_would_be_empty_are_refused():
    with pytest.raises(ValueError, match="must keep voxels"):
        reduce_mask(BALL, np.ones(SHAPE))
    with pytest.raises(ValueError, match="must leave a mask"):
        magnitude_mask(image(), erode=20)
    with pytest.raises(ValueError, match="finite and not negative"):
        magnitude_mask(-image())
    with pytest.raises(ValueError, match=r"relative_residual\.shape"):
        reduce_mask(BALL, np.ones((3, 3, 3)))
