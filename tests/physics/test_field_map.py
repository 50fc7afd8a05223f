"""A field and what is known of it stand on one grid."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

GRID = geometry((4, 5, 6))


def test_the_field_is_zero_outside_the_mask():
    mask = np.zeros(GRID.shape)
    mask[1:3, 1:3, 1:3] = 1
    made = field_map(np.ones(GRID.shape), mask, GRID, noise=0.001)
    assert made.field.sum() == mask.sum() and made.mask.dtype == bool
    assert made.noise is not None and made.noise.shape == GRID.shape


def test_without_a_mask_the_field_is_known_everywhere():
    assert field_map(np.ones(GRID.shape), None, GRID).mask.all()


@pytest.mark.parametrize("name", ["noise", "magnitude"])
def test_a_noise_or_magnitude_of_zero_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be above zero in the mask"):
        field_map(np.ones(GRID.shape), None, GRID, **{name: np.zeros(GRID.shape)})


@pytest.mark.parametrize("kind", [">f4", ">i2", "<f4"])
def test_any_byte_order_is_read(kind):
    values = np.arange(np.prod(GRID.shape)).reshape(GRID.shape)
    made = field_map(values.astype(kind), (values > 5).astype(kind), GRID, noise=np.ones(GRID.shape, kind))
    np.testing.assert_array_equal(made.field, np.where(values > 5, values, 0))


@pytest.mark.parametrize("shape", [(4, 5, 7), (2, 4, 5, 6), (6,), (1, 1, 6), (1,)])
@pytest.mark.parametrize("name", ["field", "mask", "magnitude", "noise"])
def test_what_is_not_one_volume_on_the_grid_is_refused_by_name(name, shape):
    given = {"field": np.ones(GRID.shape), "mask": None, name: np.ones(shape)}
    with pytest.raises(ValueError, match=rf"{name}.shape must be \(4, 5, 6\), got {re.escape(str(shape))}: "):
        field_map(given.pop("field"), given.pop("mask"), GRID, **given)


def test_nan_in_a_mask_is_refused():
    with pytest.raises(ValueError, match="mask must be a number everywhere, got NaN"):
        field_map(np.ones(GRID.shape), np.where(np.arange(6) > 2, 1, np.nan) * np.ones(GRID.shape), GRID)


def test_inside_jit_a_known_mask_stays_known_and_a_known_noise_of_zero_is_refused():
    known = []

    def made(field, mask):
        known.append(not isinstance(field_map(field, mask, GRID, noise=1e-3).mask, jax.core.Tracer))
        return field

    for mask in (None, np.ones(GRID.shape), jnp.ones(GRID.shape)):
        jax.jit(lambda field: made(field, mask))(np.ones(GRID.shape))  # noqa: B023
    jax.jit(made)(np.ones(GRID.shape), np.ones(GRID.shape))
    assert known == [True, True, True, False]
    measured, none = jnp.ones(GRID.shape), jnp.zeros(GRID.shape)
    jax.jit(lambda field: field_map(field, None, GRID, magnitude=measured).field)(none)
    with pytest.raises(ValueError, match="magnitude must be above zero in the mask"):
        jax.jit(lambda field: field_map(field, None, GRID, magnitude=none).field)(none)
