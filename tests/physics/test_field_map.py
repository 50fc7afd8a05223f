"""A field and what is known of it stand on one grid."""

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


def test_several_fields_at_once_are_refused():
    with pytest.raises(ValueError, match=r"field must have the axes x y z, got shape \(2, 4, 5, 6\)"):
        field_map(np.ones((2, *GRID.shape)), None, GRID)


@pytest.mark.parametrize("name", ["field", "mask", "magnitude"])
def test_another_grid_is_refused_by_name(name):
    given = {"field": np.ones(GRID.shape), "mask": None, "magnitude": None}
    given[name] = np.ones((4, 5, 7))
    with pytest.raises(ValueError, match=f"{name}.shape must end in"):
        field_map(given["field"], given["mask"], GRID, magnitude=given["magnitude"])
