"""What an inversion of a map's own field tells of that map's errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.models import rehearsal, unrolled
from qsmjax.numerics.kspace import crop_to, multiply_k, pad_to
from qsmjax.physics.geometry import geometry

SHAPE = (48, 48, 48)
RNG = np.random.default_rng(3)
AT = np.stack(np.meshgrid(*[np.arange(48) - 23.5] * 3, indexing="ij"))
MASK = jnp.asarray(np.linalg.norm(AT, axis=0) < 11)
CHI = jnp.asarray(np.where((np.abs(AT) < 5).all(axis=0), 0.1, 0) * np.asarray(MASK), jnp.float32)
GRID = geometry(SHAPE, (1, 1, 1.5), (0.3, 0.1, 0.95))
NOISE = jnp.full(SHAPE, 2e-4)
CLEAN = multiply_k(CHI, inversion_kernel(GRID))


def rehearse(field, noise, magnitude=None, size=SHAPE, shape=SHAPE):
    scan = jax.jit(unrolled.weigh)(jnp.where(MASK, field, 0), MASK, GRID, noise, magnitude)
    return jax.jit(rehearsal.rehearsal, static_argnums=(2, 3))(CHI, scan, size, shape)


def test_it_is_the_field_of_the_map_with_the_scans_noise():
    inside = np.asarray(MASK)
    steep = jnp.where(AT[0] > 0, 3 * NOISE, NOISE)
    drawn = np.asarray(rehearse(20 * CLEAN, 100 * steep)[0].field - jnp.where(MASK, CLEAN, 0))
    for half in (AT[0] > 0, AT[0] < 0):
        where = inside & half
        np.testing.assert_allclose(drawn[where].std(), 100 * np.asarray(steep)[where].mean(), rtol=0.05)
    assert not drawn[~inside].any()
    hole = jnp.where(AT[1] > 5, 0.0, 1.0)
    drawn = np.asarray(rehearse(CLEAN, None, hole)[0].field - jnp.where(MASK, CLEAN, 0))
    assert drawn.std() < 20 * drawn[inside & (AT[1] < 5)].std(), "where no signal is the noise has a bound"


def test_of_the_middle_it_is_the_field_of_what_lies_there_alone():
    size, shape = (12, 14, 13), (45, 48, 50)
    again, truth = rehearse(CLEAN, NOISE, size=size, shape=shape)
    kept = pad_to(crop_to(CHI, size), shape)
    np.testing.assert_array_equal(truth, kept)
    np.testing.assert_array_equal(again.mask, pad_to(crop_to(MASK, size), shape))
    grid = geometry(shape, (1, 1, 1.5), (0.3, 0.1, 0.95))
    expected = np.asarray(multiply_k(kept, inversion_kernel(grid)))[again.mask]
    assert np.abs(np.asarray(again.field)[again.mask] - expected).max() < 6 * float(again.level)
    assert expected.std() > 20 * float(again.level) and not np.asarray(again.field)[~again.mask].any()
    begun = unrolled.start(again)
    assert np.asarray(begun.sharp - truth)[again.mask].std() < 0.5 * np.asarray(truth)[again.mask].std()


@pytest.mark.parametrize(
    ("shape", "voxel_size", "expected"),
    [
        ((60, 70, 50), (1.0, 1.0, 1.0), (60, 70, 50)),
        ((300, 280, 20), (1.0, 1.0, 1.0), (223, 223, 20)),
        ((160, 200, 180), (1.0, 1.0, 1.0), (99, 99, 99)),
        ((160, 200, 120), (1.0, 1.0, 2.0), (125, 125, 63)),
    ],
)
def test_the_middle_is_a_cube_of_a_size_that_is_soon_done(shape, voxel_size, expected):
    found = rehearsal.middle(jnp.ones(shape, bool), voxel_size)
    assert np.prod(found) <= rehearsal.MOST and np.all(np.abs(np.subtract(found, expected)) <= 3)


def test_a_mask_that_is_hollow_or_traced_is_rehearsed_whole():
    shape = (150, 150, 150)
    shell = jnp.ones(shape, bool).at[20:-20, 20:-20, 20:-20].set(False)
    assert rehearsal.middle(shell, (1, 1, 1)) == shape
    assert jax.jit(lambda mask: jnp.asarray(rehearsal.middle(mask, (1, 1, 1))))(~shell).tolist() == list(shape)


def test_one_that_is_off_by_as_much_scales_the_deviation():
    """a = 0, b = c = 1: errors of three deviations triple it, wherever the map's mean lies."""
    mask = jnp.asarray(RNG.uniform(size=(20, 20, 20)) < 0.8)
    std = jnp.where(mask, jnp.asarray(RNG.uniform(0.003, 0.006, mask.shape), jnp.float32), 0)
    error = 0.5 + 2.5 * std * jnp.asarray(RNG.normal(size=mask.shape), jnp.float32)
    quantile = jax.jit(rehearsal.off_by)(error, mask, std)
    flat = jnp.zeros(mask.shape)
    scale = lambda *factors: jax.jit(rehearsal.rehearsed)(std, mask, quantile, jnp.asarray((*factors, 0.3)), flat)
    np.testing.assert_allclose(scale(0.0, 1, 1), 2.5 * std, rtol=0.06)
    np.testing.assert_allclose(scale(0.7, 0, 1), np.exp(0.7) * std, rtol=1e-4)
    even, inside = np.asarray(scale(0.0, 0, 0)), np.asarray(mask)
    np.testing.assert_allclose(even[inside], np.exp(np.log(std[inside]).mean()), rtol=1e-4)
    assert not even[~inside].any()
    # in lesions it stays what it was, but for what the tissue below lost
    place = (10, 10, 10)
    std, mask = std.at[place].set(0.1), mask.at[place].set(True)
    np.testing.assert_allclose(scale(0.0, 0, 0)[place], 0.1 * np.exp(-rehearsal.LESION), rtol=0.01)


def test_a_maps_slope_is_what_its_edges_are_off_by():
    """Central differences of a ramp, and half of them where only one neighbour is known."""
    # a frame reaches beyond its mask
    mask = jnp.ones((7, 6, 4), bool).at[0].set(False).at[:, -1].set(False).at[:, :, -1].set(False)
    inside = np.asarray(mask)
    ramp = jnp.asarray(0.02 * np.indices(mask.shape)[0] + 0.03 * np.indices(mask.shape)[1], jnp.float32)
    steep = np.asarray(rehearsal.slope(ramp, mask))
    np.testing.assert_allclose(steep[2:-1, 1:4, :3], np.hypot(0.02, 0.03), rtol=1e-5)
    np.testing.assert_allclose(steep[1, 1:4, :3], np.hypot(0.01, 0.03), rtol=1e-5)
    np.testing.assert_allclose(steep[1, 0, :3], np.hypot(0.01, 0.015), rtol=1e-5)
    std = jnp.full(mask.shape, 0.004)
    told = np.asarray(rehearsal.rehearsed(std, mask, jnp.float32(1), jnp.asarray((0, 1.0, 1, 0.1)), ramp))
    np.testing.assert_allclose(told[inside], np.hypot(0.004, 0.1 * steep[inside]), rtol=1e-4)
    assert not told[~inside].any()
    slope = jax.grad(lambda chi: jnp.sum(rehearsal.slope(chi, mask)))(jnp.zeros(mask.shape))
    assert np.isfinite(slope).all()
