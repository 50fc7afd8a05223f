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


def test_a_noise_of_zero_is_refused():
    with pytest.raises(ValueError, match="noise must be above zero in the mask"):
        field_map(np.ones(GRID.shape), None, GRID, noise=0.0)


def test_several_fields_at_once_are_refused():
    with pytest.raises(ValueError, match=r"field must have the axes x y z, got shape \(2, 4, 5, 6\)"):
        field_map(np.ones((2, *GRID.shape)), None, GRID)


@pytest.mark.parametrize("name", ["field", "mask", "magnitude"])
def test_another_grid_is_refused_by_name(name):
    given = {"field": np.ones(GRID.shape), "mask": None, "magnitude": None}
    given[name] = np.ones((4, 5, 7))
    with pytest.raises(ValueError, match=f"{name}.shape must end in"):
        field_map(given["field"], given["mask"], GRID, magnitude=given["magnitude"])
