"""To a network's grid and back: B0 ends up where the network knows it, and what was there is there again."""

import jax
import numpy as np
import pytest

from qsmjax.inference.regrid import plan, rotation_between
from qsmjax.inference.tiles import TILE, apply_tiled, whole_or_tiled
from qsmjax.physics.geometry import geometry

Z = np.array([0.0, 0.0, 1.0])
DIRECTIONS = [(1, 0, 0), (0, -1, 0), (0, 0, -1), (0.3, -0.5, 0.8), (0, 0, 1)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_rotation_turns_one_direction_into_the_other(direction):
    turn = rotation_between(np.asarray(direction, float), Z)
    np.testing.assert_allclose(turn @ direction / np.linalg.norm(direction), Z, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turn), 1)


def test_a_scan_on_the_networks_grid_stays_as_it_is():
    assert plan(np.ones((4, 4, 4)), geometry((4, 4, 4)), (1, 1, 1), Z) is None


@pytest.mark.parametrize("direction", DIRECTIONS[:3])
def test_a_turn_by_right_angles_keeps_every_voxel(direction):
    volume = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    route = plan(np.ones(volume.shape), geometry(volume.shape, b0_dir=direction), (1, 1, 1), Z)
    there = route.to_network(volume)
    assert sorted(n - 4 for n in there.shape) == sorted(volume.shape)
    np.testing.assert_allclose(np.sort(there[np.abs(there) > 1e-6]), np.sort(volume.ravel()), atol=1e-5)
    np.testing.assert_allclose(route.to_scan(there), volume, atol=1e-5)


@pytest.mark.parametrize(
    ("voxel_size", "direction"),
    [((0.7, 0.7, 1.4), (0, 0, 1)), ((1, 1, 1), (0.3, -0.5, 0.8)), ((0.8, 0.8, 1.2), (0, 0.3, 1))],
)
def test_a_smooth_object_comes_back(voxel_size, direction):
    shape = tuple(int(36 / d) for d in voxel_size)
    points = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, voxel_size)], indexing="ij")
    blob = np.exp(-((points[0] - 2) ** 2 + points[1] ** 2 + (points[2] + 1) ** 2) / (2 * 5.0**2))
    route = plan(blob > 1e-3, geometry(shape, voxel_size, direction), (1, 1, 1), Z)
    again = route.to_scan(route.to_network(blob))
    inside = blob > 0.05
    assert np.linalg.norm((again - blob)[inside]) / np.linalg.norm(blob[inside]) < 0.02


def test_the_centre_of_the_head_lies_along_b0_as_before():
    """A blob displaced along B0 in the scan is displaced along z for the network."""
    shape, size, b0_dir = (30, 30, 30), (1.0, 1.0, 1.0), np.array([0.6, 0.0, 0.8])
    points = np.meshgrid(*[np.arange(n) - 14.5 for n in shape], indexing="ij")
    ball = lambda centre: np.exp(-sum((p - c) ** 2 for p, c in zip(points, centre)) / 8.0)
    route = plan(np.ones(shape), geometry(shape, size, b0_dir), size, Z)
    middle = lambda volume: np.array([np.average(i, weights=volume) for i in np.indices(volume.shape)])
    moved = middle(route.to_network(ball(6 * b0_dir))) - middle(route.to_network(ball((0, 0, 0))))
    np.testing.assert_allclose(moved, (0, 0, 6), atol=0.05)


@pytest.mark.parametrize("shape", [(7, 9, 12), (16, 16, 16)])
def test_tiles_with_enough_halo_are_the_whole(shape):
    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def smooth(part):
        padded = np.pad(part, 1)
        return sum(padded[1 + d : part.shape[0] + 1 + d, 1:-1, 1:-1] for d in (-1, 0, 1))

    np.testing.assert_allclose(apply_tiled(smooth, (volume,), tile=4, halo=1, stride=2), smooth(volume), atol=1e-6)


def test_tiles_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        apply_tiled(lambda part: part, (np.zeros((4, 4, 4)),), tile=0, halo=1)


def test_a_volume_that_memory_does_not_hold_is_computed_in_tiles():
    def full():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")

    def broken():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    assert whole_or_tiled(lambda: -1, lambda edge: edge) == -1
    assert whole_or_tiled(lambda: -1, lambda edge: edge, tile=8) == 8
    assert whole_or_tiled(full, lambda edge: edge) == TILE
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        whole_or_tiled(broken, lambda edge: edge)
