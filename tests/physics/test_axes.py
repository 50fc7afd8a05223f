"""The 48 ways to store a grid come down to one, and back."""

import itertools

import numpy as np
import pytest

from qsmjax.physics.axes import Axes, nearest_axes
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry_from_affine

SHAPE, SIZE = (4, 5, 6), (0.9, 1.1, 1.4)
WAYS = [Axes(*way) for way in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))]
RNG = np.random.default_rng(2)


def affine_of(*degrees):
    """Turn about x, then y, then z."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (other for other in range(3) if other != axis)
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = step @ turn
    matrix = np.eye(4)
    matrix[:3, :3] = turn * SIZE
    return matrix


def stored(affine, way):
    """Return the affine of a grid that is stored another way."""
    matrix = affine[:, [*way.order, 3]].copy()
    for axis, sign in enumerate(way.signs):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (SHAPE[way.order[axis]] - 1)
            matrix[:3, axis] *= -1
    return matrix


@pytest.mark.parametrize("degrees", [(0, 0, 0), (20, -10, 5), (0, 45, 0), (45, 0, 45), (70, 0, 0), (45, 35.264, 0)])
def test_every_way_leads_to_the_same_grid_and_back(degrees):
    """At 45 degrees two ways are as near to the world."""
    affine, volume, found = affine_of(*degrees), RNG.normal(size=(2, *SHAPE)), []
    for way in WAYS:
        matrix, given = stored(affine, way), way.turn(volume)
        axes = nearest_axes(matrix)
        turned = axes.turn(given)
        np.testing.assert_array_equal(axes.inverse.turn(turned), given)
        assert axes.inverse.inverse == axes
        grid = axes.turn_grid(geometry_from_affine(matrix, given.shape))
        assert grid.shape == turned.shape[1:]
        found.append((np.asarray(turned), np.asarray(grid.b0_dir), np.asarray(grid.voxel_size)))
    for each in found[1:]:
        for part, expected in zip(each, found[0]):
            np.testing.assert_allclose(part, expected, atol=1e-6)


def test_upright_is_left_alone_and_a_field_is_turned_with_all_that_it_has():
    assert nearest_axes(affine_of(10, 0, -20)) == Axes()
    grid, volume = geometry_from_affine(affine_of(30, 0, 0), SHAPE), RNG.normal(size=SHAPE)
    scan = field_map(volume, volume > 0, grid, noise=volume**2, magnitude=volume + 2, radians_per_ppm=16.0)
    way = Axes((2, 0, 1), (1, -1, 1))
    turned = way.turn_field(scan)
    assert turned.geometry.shape == (6, 4, 5)
    np.testing.assert_allclose(turned.geometry.b0_dir, np.asarray(grid.b0_dir)[[2, 0, 1]] * [1, -1, 1])
    back = way.inverse.turn_field(turned)
    for name in ("field", "mask", "noise", "magnitude", "radians_per_ppm"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scan, name))
    assert way.turn_field(field_map(volume, None, grid)).noise is None
