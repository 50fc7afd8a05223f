"""What public functions refuse, and how they say it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics import arrays


def test_volumes_become_float32():
    assert arrays.as_volume("field", np.zeros((3, 3, 3), np.int16)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arrays.as_volume("field", np.zeros((3, 3))), "field must have the axes x, y, z"),
        (lambda: arrays.as_volume("field", np.zeros((3, 3, 3), np.complex64)), "field must be real, got complex64"),
        (lambda: arrays.as_mask("mask", np.zeros((3, 3, 3)), (3, 3, 4)), r"mask.shape must end in \(3, 3, 4\)"),
        (lambda: arrays.as_mask("mask", np.full((3, 3, 3), np.nan), (3, 3, 3)), "mask must be a number everywhere"),
        (lambda: arrays.as_vector("b0_dir", (1.0, 2.0)), "b0_dir must be three numbers"),
    ],
)
def test_errors_say_what_must_hold_and_what_was_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("mask", [np.eye(3)[None], jnp.eye(3)[None] > 0])
def test_a_mask_that_is_known_stays_known_inside_jit_and_a_traced_one_traced(mask):
    known = []

    def inside(traced):
        found = [arrays.as_mask("mask", given, (1, 3, 3)) for given in (mask, traced)]
        known.extend(not isinstance(each, jax.core.Tracer) for each in found)
        return found[0] & found[1]

    np.testing.assert_array_equal(jax.jit(inside)(mask), np.eye(3)[None] > 0)
    assert known == [True, False]
