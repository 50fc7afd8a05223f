"""What public functions refuse, and how they say it."""

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
        (lambda: arrays.as_vector("b0_dir", (1.0, 2.0)), "b0_dir must be three numbers"),
    ],
)
def test_errors_say_what_must_hold_and_what_was_got(call, message):
    with pytest.raises(ValueError, match=message):
        call()
