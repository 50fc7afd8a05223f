"""Resampling goes where the transform says, B0 turns with it, and FLIRT's files hold the same transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.registration.field import bring_field
from qsmjax.registration.flirt import from_flirt, read_flirt, to_flirt, write_flirt
from qsmjax.registration.resample import resample, resample_mask, resample_within, turned_b0
from qsmjax.registration.rigid import rotation_matrix

RNG = np.random.default_rng(0)
SHAPE = (14, 12, 10)
SMOOTH = scipy.ndimage.gaussian_filter(RNG.normal(size=SHAPE), 1.5).astype(np.float32)


def rigid(vector, shift):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = np.asarray(rotation_matrix(vector), np.float64), shift
    return matrix


def affine(vector, voxels, shift=(0, 0, 0)):
    matrix = rigid(vector, shift)
    matrix[:3, :3] *= voxels
    return matrix


OBLIQUE, FLIPPED = affine((0.2, -0.1, 0.3), (1.0, 1.2, 2.0), (5, -3, 2)), affine((0, 0.3, 0), (-0.8, 0.8, 3.0))
TRANSFORM = rigid((0.1, 0.2, -0.15), (1, 2, -1))


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_the_same_grid_changes_nothing(method):
    np.testing.assert_allclose(resample(SMOOTH, OBLIQUE, OBLIQUE, SHAPE, method=method), SMOOTH, atol=1e-4)


@pytest.mark.parametrize(("method", "order"), [("linear", 1), ("cubic", 3)])
def test_it_reads_where_the_transform_points(method, order):
    ours = np.asarray(resample(SMOOTH, OBLIQUE, FLIPPED, SHAPE, TRANSFORM, method=method))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")).reshape(3, -1)
    between = np.linalg.inv(OBLIQUE) @ TRANSFORM @ FLIPPED
    places = between[:3, :3] @ grid + between[:3, 3:]
    theirs = scipy.ndimage.map_coordinates(SMOOTH, places, order=order).reshape(SHAPE)
    deep = np.all((places > 1.5) & (places < np.asarray(SHAPE)[:, None] - 2.5), axis=0).reshape(SHAPE)
    assert deep.sum() > 50
    np.testing.assert_allclose(ours[deep], theirs[deep], atol=1e-4 if order == 1 else 0.02 * np.abs(SMOOTH).max())
    beyond = np.any((places < -1) | (places > np.asarray(SHAPE)[:, None]), axis=0).reshape(SHAPE)
    assert not np.any(ours[beyond])


def test_masks_stay_masks():
    mask = SMOOTH > 0
    assert np.array_equal(resample_mask(mask, OBLIQUE, OBLIQUE, SHAPE), mask)
    assert resample_mask(mask, OBLIQUE, FLIPPED, SHAPE, TRANSFORM).dtype == bool


def test_the_rim_of_a_mask_is_no_mean_with_the_zeros_beyond_it():
    mask = SMOOTH > 0
    moved = resample_mask(mask, OBLIQUE, FLIPPED, SHAPE, TRANSFORM)
    flat = np.asarray(resample_within(np.where(mask, 1, 7), mask, OBLIQUE, FLIPPED, SHAPE, TRANSFORM))
    assert 20 < moved.sum() < moved.size / 2
    np.testing.assert_allclose(flat[moved], 1, atol=1e-5)
    np.testing.assert_allclose(resample_within(SMOOTH, mask, OBLIQUE, OBLIQUE, SHAPE), SMOOTH * mask, atol=1e-4)


def test_a_noise_of_zero_is_not_measured_on_the_other_grid_either():
    noise = np.full(SHAPE, 2e-3, np.float32)
    noise[7, 6, 5] = 0
    grid, mask = geometry_from_affine(np.eye(4), SHAPE), np.ones(SHAPE, bool)
    given = field_map(SMOOTH, mask, grid, noise=noise)
    shift = np.eye(4)
    shift[0, 3] = 0.5
    moved = np.asarray(bring_field(given, np.eye(4), grid, np.eye(4), shift).noise)
    inner = moved[2:-2, 2:-2, 2:-2]
    assert set(np.round(1e3 * inner[inner > 0], 4)) == {2.0}


def test_resampling_is_differentiable_in_volume_and_transform():
    # away from the faces: what leaves the volume drops to zero at once
    weights = jnp.zeros(SHAPE).at[3:-3, 3:-3, 3:-3].set(RNG.normal(size=tuple(n - 6 for n in SHAPE)))
    loss = jax.jit(lambda v, p: jnp.vdot(weights, resample(v, OBLIQUE, OBLIQUE, SHAPE, _small(p))))
    volume, p = jnp.asarray(SMOOTH), jnp.asarray([0.02, 0.01, -0.03, 0.3, -0.2, 0.1])
    by_volume, by_motion = jax.jit(jax.grad(loss, (0, 1)))(volume, p)
    np.testing.assert_allclose(jnp.vdot(by_volume, volume), loss(volume, p), rtol=1e-3, atol=1e-3)
    numeric = (loss(volume, p.at[3].add(0.01)) - loss(volume, p.at[3].add(-0.01))) / 0.02
    assert float(by_motion[3]) == pytest.approx(float(numeric), rel=0.05)


def test_a_field_on_another_grid_has_the_gradient_of_field_noise_and_transform():
    grid, mask, rng = geometry_from_affine(OBLIQUE, SHAPE), np.zeros(SHAPE, bool), np.random.default_rng(1)
    mask[2:-2, 2:-2, 2:-2] = True
    weights, towards, by = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(3))
    # away from the mask's rim: a voxel more or less is a step
    weights = jnp.zeros(SHAPE).at[4:-4, 4:-4, 4:-4].set(weights[4:-4, 4:-4, 4:-4])

    def brought(field, noise, p):
        given = field_map(field, mask, grid, noise=noise, magnitude=np.ones(SHAPE))
        moved = bring_field(given, OBLIQUE, grid, OBLIQUE, _small(p))
        return jnp.vdot(weights, moved.field) + 1e3 * jnp.vdot(weights, moved.noise)

    at = (jnp.asarray(SMOOTH), jnp.asarray(1e-3 * np.exp(SMOOTH)), jnp.asarray([0.02, 0.01, -0.03, 0.3, -0.2, 0.1]))
    slopes = jax.grad(brought, (0, 1, 2))(*at)
    ways = ((towards, 0.01), (1e-4 * by, 0.1), (jnp.asarray([0.1, -0.1, 0.05, 1.0, 1.0, -1.0]), 0.01))
    for n, (way, step) in enumerate(ways):
        ahead, behind = (brought(*at[:n], at[n] + sign * step * way, *at[n + 1 :]) for sign in (1, -1))
        np.testing.assert_allclose(jnp.vdot(slopes[n], way), (ahead - behind) / (2 * step), rtol=0.02)


def _small(p):
    top = jnp.concatenate([rotation_matrix(p[:3]), p[3:, None]], axis=1)
    return jnp.concatenate([top, jnp.asarray([[0.0, 0.0, 0.0, 1.0]])])


def test_b0_turns_with_the_head():
    own = geometry_from_affine(OBLIQUE, SHAPE).b0_dir
    there = turned_b0(own, OBLIQUE, FLIPPED)
    np.testing.assert_allclose(there, geometry_from_affine(FLIPPED, SHAPE).b0_dir, atol=1e-6)
    # a head nodded by 30 degrees in the scanner sees B0 nodded back by as much
    nod = rigid((np.radians(30), 0, 0), (0, 0, 0))
    np.testing.assert_allclose(turned_b0((0, 0, 1), np.eye(4), np.eye(4), nod), (0, 0.5, np.sqrt(0.75)), atol=1e-6)


def test_flirt_files_hold_the_same_transform(tmp_path):
    matrix = to_flirt(TRANSFORM, FLIPPED, SHAPE, OBLIQUE, (9, 8, 7))
    write_flirt(tmp_path / "a.mat", matrix)
    back = from_flirt(read_flirt(tmp_path / "a.mat"), FLIPPED, SHAPE, OBLIQUE, (9, 8, 7))
    np.testing.assert_allclose(back, TRANSFORM, atol=1e-6)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)


def test_flirt_counts_x_from_the_other_end():
    """Two equal grids with a positive determinant: a shift of +2 mm along world x is -2 mm in FSL's."""
    shift = rigid((0, 0, 0), (-2, 0, 0))
    matrix = to_flirt(shift, np.eye(4), SHAPE, np.eye(4), SHAPE)
    np.testing.assert_allclose(matrix[:3, 3], (-2, 0, 0), atol=1e-9)
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(to_flirt(shift, mirrored, SHAPE, mirrored, SHAPE)[:3, 3], (-2, 0, 0), atol=1e-9)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match="method must be one of"):
        resample(SMOOTH, OBLIQUE, OBLIQUE, SHAPE, method="sinc")
    with pytest.raises(ValueError, match="x y z"):
        resample(SMOOTH[None], OBLIQUE, OBLIQUE, SHAPE)
    with pytest.raises(ValueError, match="source_affine must be 4x4"):
        resample(SMOOTH, np.eye(3), OBLIQUE, SHAPE)
    (tmp_path / "b.mat").write_text("1 0 0\n0 1 0\n")
    with pytest.raises(ValueError, match=r"b\.mat must hold 4x4"):
        read_flirt(tmp_path / "b.mat")
