"""Rotations up to 35 degrees come back to 0.2 degrees and 0.3 mm, whatever grid, contrast scaling and field of view."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.registration.rigid import (
    Motion,
    Points,
    correlate,
    even_out,
    register_magnitudes,
    register_rigid,
    rotation_matrix,
)

RNG = np.random.default_rng(0)
BLOBS = [(RNG.uniform(-0.6, 0.6, 3) * (62, 78, 58), RNG.uniform(8, 16), RNG.uniform(-0.5, 0.6)) for _ in range(25)]


def head(world):
    """A head-sized object that has no symmetry, defined everywhere [mm]."""
    x, y, z = world
    radius = np.sqrt((x / 68) ** 2 + ((y - 4) / 86) ** 2 + (z / 64) ** 2)
    inside = 1 / (1 + np.exp(np.clip((radius - 1) * 25, -50, 50)))
    texture = 1 + 0.15 * x / 68
    for centre, width, height in BLOBS:
        distance = sum((a - c) ** 2 for a, c in zip(world, centre))
        texture = texture + height * np.exp(-distance / (2 * width**2))
    return inside * texture


def scanned(affine, shape, transform=None):
    """Sample the head on a grid, after it moved: the moving world's head is head(T⁻¹ y)."""
    grid = np.stack([g.ravel() for g in np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")])
    world = affine[:3, :3] @ grid + affine[:3, 3:]
    if transform is not None:
        back = np.linalg.inv(transform)
        world = back[:3, :3] @ world + back[:3, 3:]
    return head(world).reshape(shape)


def affine_of(voxels, shape, tilt=(0.0, 0.0, 0.0), flip=False):
    turn = np.asarray(rotation_matrix(tilt), np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = turn * voxels * ((-1, 1, 1) if flip else (1, 1, 1))
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return matrix


def motion(degrees, axis, shift):
    axis = np.asarray(axis) / np.linalg.norm(axis)
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(rotation_matrix(np.radians(degrees) * axis), np.float64)
    matrix[:3, 3] = shift
    return matrix


def misfit(found, truth):
    """Angle [degrees] of the rotation between both, and the distance [mm] at the head's middle."""
    between = found[:3, :3] @ truth[:3, :3].T
    angle = np.degrees(np.arcsin(np.clip(np.linalg.norm(between - between.T) / np.sqrt(8), 0, 1)))
    return angle, np.linalg.norm(found[:3, 3] - truth[:3, 3])


FIXED_SHAPE, FIXED = (48, 56, 44), affine_of((4.0, 4.0, 4.0), (48, 56, 44))
CASES = {
    "35 degrees about an oblique axis": (motion(35, (1, 0.3, -0.5), (6, -9, 4)), (4.0, 4.0, 4.0), (48, 56, 48), False),
    "partial field of view, other voxels": (
        motion(-25, (0.2, 1, 0.1), (-5, 3, 8)),
        (3.0, 3.0, 5.0),
        (60, 72, 24),
        True,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_simulated_rotations_come_back(case):
    truth, voxels, shape, flip = CASES[case]
    affine = affine_of(voxels, shape, tilt=(0.1, 0.0, -0.2), flip=flip)
    fixed, moving = scanned(FIXED, FIXED_SHAPE), 300 * scanned(affine, shape, truth) + 20
    fixed = fixed + 0.03 * RNG.normal(size=fixed.shape)
    moving = moving + 9 * RNG.normal(size=moving.shape)
    found = register_rigid(moving, fixed, affine, FIXED, points=20_000)
    angle, shift = misfit(found.transform, truth)
    assert angle < 0.2 and shift < 0.3
    assert found.correlation > 0.9


def test_a_start_is_refined():
    truth = motion(8, (0, 1, 1), (2, 1, 0))
    fixed, moving = scanned(FIXED, FIXED_SHAPE), scanned(FIXED, FIXED_SHAPE, truth)
    mask = scanned(FIXED, FIXED_SHAPE) > 0.5
    start = motion(5, (0, 1, 1), (0, 0, 0))
    found = register_rigid(moving, fixed, FIXED, FIXED, fixed_mask=mask, start=start, smoothing=(4.0,), points=20_000)
    angle, shift = misfit(found.transform, truth)
    assert angle < 0.1 and shift < 0.1


def test_the_correlation_is_differentiable_in_the_motion():
    volume = jnp.asarray(scanned(FIXED, FIXED_SHAPE), jnp.float32)
    places = jnp.asarray(RNG.uniform(-50, 50, (3, 500)), jnp.float32)
    inverse = jnp.asarray(np.linalg.inv(FIXED), jnp.float32)
    points = Points(places, head(places), jnp.ones(500), jnp.zeros(3), jnp.zeros(3), volume, inverse)
    at = jax.jit(jax.value_and_grad(lambda p: correlate(Motion(rotation_matrix(p[:3]), p[3:]), points)))
    p = jnp.asarray([0.05, -0.03, 0.02, 1.0, -2.0, 0.5])
    step = jnp.eye(6) * jnp.asarray([1e-3] * 3 + [0.05] * 3)[:, None]
    numeric = [(at(p + h)[0] - at(p - h)[0]) / (2 * h.sum()) for h in step]
    np.testing.assert_allclose(at(p)[1], jnp.asarray(numeric), rtol=0.1, atol=2e-3)
    assert np.all(np.isfinite(at(jnp.zeros(6))[1]))


def test_rotations_are_orthogonal_and_turn_by_their_length():
    for vector in ((0.0, 0.0, 0.0), (1e-5, 0, 0), (0.3, -1.2, 2.0)):
        matrix = rotation_matrix(vector)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-5)
        assert np.trace(matrix) == pytest.approx(1 + 2 * np.cos(np.linalg.norm(vector)), abs=1e-5)


def test_volumes_that_do_not_overlap_are_refused():
    fixed, away = scanned(FIXED, FIXED_SHAPE), FIXED.copy()
    away[:3, 3] += 1000
    with pytest.raises(ValueError, match="must overlap"):
        register_rigid(fixed, fixed, away, FIXED, start=np.eye(4), smoothing=(4.0,), points=20_000)
    with pytest.raises(ValueError, match="moving must have the axes"):
        register_rigid(np.ones((2, 8, 8, 8)), np.ones((8, 8, 8)), FIXED, FIXED)
    with pytest.raises(ValueError, match="fixed_affine must be 4x4"):
        register_rigid(np.ones((8, 8, 8)), np.ones((8, 8, 8)), FIXED, np.eye(3))


def test_evening_out_divides_by_the_neighbourhood_and_leaves_nothing_where_nothing_was():
    image = np.zeros((16, 16, 16))
    image[3:13, 3:13, 3:13] = 5.0
    even = np.asarray(even_out(image, (2.0, 2.0, 2.0)))
    np.testing.assert_allclose(even[image > 0], 1 / 1.1, rtol=1e-3)
    assert not even[image == 0].any() and np.isfinite(np.asarray(even_out(0 * image, (2.0, 2.0, 2.0)))).all()


def test_magnitudes_are_evened_out_before_they_are_registered_unless_told():
    """A coil's shading stays in the scanner while the head turns."""
    truth = motion(12, (0.3, 0.2, 1), (0, 0, 0))
    fixed, moving = (scanned(FIXED, FIXED_SHAPE, transform) for transform in (None, truth))
    x, y, z = (
        np.linspace(-1, 1, n).reshape(shape) for n, shape in zip(FIXED_SHAPE, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    )
    shade = np.exp(-((x - 0.5) ** 2 + (y - 1) ** 2 + (z - 0.8) ** 2) / 2)
    find = lambda evening: register_magnitudes(
        moving * shade, fixed * shade, FIXED, FIXED, evening=evening, points=20_000
    )
    # blobs of 4 mm voxels are no head: benchmarks/scanner.py has the figures of one
    plain, even = (misfit(find(evening).transform, truth)[0] for evening in (0.0, 5.0))
    assert even < 0.4 * plain
    with pytest.raises(ValueError, match="evening must not be negative"):
        register_magnitudes(moving, fixed, FIXED, FIXED, evening=-1.0)
