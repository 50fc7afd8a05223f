"""A box holds its mask, and what enters it comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave


def test_what_enters_comes_back():
    mask = jnp.zeros((9, 10, 11), bool).at[2:5, 3:9, 1:2].set(True)
    box = bounding_box(mask)
    assert box == (slice(2, 5), slice(3, 9), slice(1, 2))
    shape = frame_shape(box, 0.5, least=2)
    assert all(n >= part.stop - part.start + 2 for n, part in zip(shape, box))
    volume = jax.random.normal(jax.random.key(0), mask.shape)
    np.testing.assert_array_equal(leave(enter(volume, box, shape), box, mask.shape), jnp.where(mask, volume, 0))
    assert enter(None, box, shape) is None


def test_a_slab_has_room_along_its_short_axis_and_a_head_as_much_as_ever():
    slab, head = ((slice(0, x), slice(0, y), slice(0, z)) for x, y, z in ((90, 90, 15), (160, 190, 140)))
    assert frame_shape(slab, 0.15, (1.0, 1.0, 2.0))[2] >= 15 + 0.3 * (90 / 2 - 15)
    assert frame_shape(slab, 0.15, (1.0, 1.0, 1.0))[2] >= 15 + 0.3 * (90 - 15)
    assert frame_shape(slab, 0.15)[2] < 20
    assert frame_shape(head, 0.15) == frame_shape(head, 0.15, (1.0, 1.0, 1.0)) == (192, 225, 162)


def test_a_traced_mask_takes_the_whole_grid():
    seen = []
    jax.jit(lambda mask: seen.append(bounding_box(mask)) or mask)(jnp.ones((3, 4, 5), bool))
    assert seen == [(slice(0, 3), slice(0, 4), slice(0, 5))]


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="at least one voxel"):
        bounding_box(np.zeros((3, 3, 3), bool))
