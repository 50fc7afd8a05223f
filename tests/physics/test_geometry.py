"""Where B0 points: read off every affine that a scanner writes."""

import itertools

import jax
import numpy as np
import pytest

from qsmjax.physics.geometry import geometry, geometry_from_affine


def tilt(degrees, axis=0):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.eye(3)
    i, j = [a for a in range(3) if a != axis]
    rotation[i, i], rotation[i, j], rotation[j, i], rotation[j, j] = c, -s, s, c
    return rotation


def affine_of(rotation, voxel_size):
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(voxel_size)
    affine[:3, 3] = (-90, 20, 13)
    return affine


@pytest.mark.parametrize("degrees", [0, 20, 30, -45])
@pytest.mark.parametrize("voxel_size", [(1, 1, 1), (0.8, 0.8, 3.0)])
def test_direction_does_not_depend_on_the_voxel_size(degrees, voxel_size):
    found = geometry_from_affine(affine_of(tilt(degrees), voxel_size), (4, 5, 6))
    expected = tilt(degrees).T @ (0, 0, 1)
    np.testing.assert_allclose(found.b0_dir, expected, atol=1e-6)
    np.testing.assert_allclose(found.voxel_size, voxel_size, rtol=1e-6)
    assert found.shape == (4, 5, 6)


def test_48_permutations_and_flips_carry_the_direction_along():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            turn = np.zeros((3, 3))
            turn[list(order), range(3)] = signs
            found = geometry_from_affine(affine_of(turn, (1, 2, 3)), (4, 4, 4))
            np.testing.assert_allclose(found.b0_dir, turn.T @ (0, 0, 1), atol=1e-7)
            np.testing.assert_allclose(found.voxel_size, (1, 2, 3), rtol=1e-6)


def test_a_direction_from_elsewhere_is_kept_and_normalised():
    found = geometry_from_affine(np.eye(4), (4, 4, 4), b0_dir=(0, 3, 4))
    np.testing.assert_allclose(found.b0_dir, (0, 0.6, 0.8), rtol=1e-6)


def test_sheared_affine_is_refused():
    affine = np.eye(4)
    affine[0, 1] = 0.3
    with pytest.raises(ValueError, match=r"right-angled voxel axes, got axes 16.7 degrees off"):
        geometry_from_affine(affine, (4, 4, 4))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "affine must be 4x4"),
        (np.diag([1.0, 1, np.nan, 1]), "affine must be 4x4 and finite"),
        (np.diag([1.0, 0, 1, 1]), "positive length"),
    ],
)
def test_broken_affines_are_refused(affine, message):
    with pytest.raises(ValueError, match=message):
        geometry_from_affine(affine, (4, 4, 4))


@pytest.mark.parametrize(
    ("voxel_size", "b0_dir", "message"),
    [
        ((1, -1, 1), (0, 0, 1), "voxel_size must be three positive"),
        ((1, 1, 0), (0, 0, 1), "voxel_size must be three positive"),
        ((1, 1, 1), (0, 0, 0), "b0_dir must be a finite direction"),
        ((1, 1, 1), (0, np.inf, 0), "b0_dir must be a finite direction"),
    ],
)
def test_impossible_values_are_refused(voxel_size, b0_dir, message):
    with pytest.raises(ValueError, match=message):
        geometry((4, 4, 4), voxel_size, b0_dir)


def test_voxel_size_and_direction_can_be_traced():
    length = jax.jit(lambda size, b: geometry((4, 4, 4), size, b).b0_dir)(np.ones(3), np.asarray([0.0, 0.0, 2.0]))
    np.testing.assert_allclose(length, (0, 0, 1))
