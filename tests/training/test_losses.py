"""Losses against their definitions, and that parts add up."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.models import unrolled
from qsmjax.physics.dipole import dipole_convolve, dipole_kernel
from qsmjax.training import correction, losses

SHAPE = (6, 5, 7)
KERNEL = dipole_kernel(SHAPE, (1, 1, 1), (0, 0, 1))


@pytest.fixture(scope="module")
def volumes():
    chi, truth, draw = (jax.random.normal(jax.random.key(i), (2, *SHAPE)) for i in range(3))
    return chi, truth, draw > -0.5


def sums(chi, truth, mask):
    return jnp.sum(jax.vmap(losses.loss_sums, (0, 0, 0, None, None))(chi, truth, mask, KERNEL, 2.0), 0)


def test_terms_are_the_definitions(volumes):
    chi, truth, mask = (v[0] for v in volumes)
    chi, truth = jnp.where(mask, chi, 0), jnp.where(mask, truth, 0)
    field_error = dipole_convolve(chi, KERNEL) - dipole_convolve(truth, KERNEL)
    expected = [jnp.abs(chi - truth)[mask].sum(), 2 * jnp.abs(field_error)[mask].sum(), 0]
    for axis in range(3):
        edges = np.abs(np.abs(np.diff(chi, axis=axis)) - np.abs(np.diff(truth, axis=axis)))
        expected[2] += edges[np.delete(mask, -1, axis)].sum()
    np.testing.assert_allclose(losses.loss_sums(chi, truth, mask, KERNEL, 2.0), expected, rtol=1e-5)


def test_the_truth_costs_nothing(volumes):
    _, truth, mask = volumes
    np.testing.assert_array_equal(sums(truth, truth, mask), 0)


def test_what_lies_outside_the_mask_does_not_count(volumes):
    chi, truth, mask = volumes
    np.testing.assert_allclose(sums(jnp.where(mask, chi, 9.0), truth, mask), sums(chi, truth, mask), rtol=1e-5)


def test_the_gradient_term_is_blind_to_the_sign(volumes):
    chi, _, mask = volumes
    assert losses.gradient_sum(chi, -chi, mask) == 0


def test_opposite_faces_of_a_patch_are_not_compared():
    ramp = jnp.broadcast_to(jnp.arange(6.0)[:, None, None], SHAPE)
    # 5 steps of one along x in each of 5 x 7 rows, none from the last voxel to the first
    assert losses.gradient_sum(ramp, jnp.zeros(SHAPE), jnp.ones(SHAPE, bool)) == 5 * 5 * 7


def test_a_corrections_gradient_term_compares_neighbours_alone():
    shape = (1, 16, 16, 16)
    begun, error = (np.random.default_rng(i).normal(size=shape).cumsum(1).astype(np.float32) for i in (0, 1))
    begun = begun - begun.mean()
    batch = {
        "features": jnp.zeros((*shape, unrolled.FEATURES)).at[..., 0].set(np.arcsinh(begun / unrolled.UNIT)),
        "chi": jnp.zeros(shape),
        "mask": jnp.ones(shape, bool),
        "voxel_size": jnp.ones((1, 3)),
        "b0_dir": jnp.asarray([[0.0, 0.0, 1.0]]),
    }
    steep = lambda volume: sum(np.abs(np.diff(volume, axis=axis)).mean() for axis in (1, 2, 3))
    terms = correction.loss_of(_Changes(error - begun), {}, batch)[1]
    np.testing.assert_allclose(terms["gradient"], steep(error) / steep(begun), rtol=1e-4)


class _Changes(nn.Module):
    """A network that makes a change that is known."""

    change: Any

    def __call__(self, features, numbers):
        return self.change, jnp.zeros_like(self.change)


def test_parts_of_unequal_masks_add_up_to_the_whole(volumes):
    chi, truth, mask = volumes
    mask = mask.at[0].set(mask[0] & (jnp.arange(SHAPE[2]) < 2))
    voxels = losses.count(mask)
    whole = losses.weighted_loss(sums(chi, truth, mask), voxels, losses.PAPER_WEIGHTS)
    each = [sums(chi[i : i + 1], truth[i : i + 1], mask[i : i + 1]) for i in (0, 1)]
    parts = [losses.weighted_loss(s, voxels, losses.PAPER_WEIGHTS) for s in each]
    np.testing.assert_allclose(parts[0] + parts[1], whole, rtol=1e-6)


def test_gradients_are_finite_where_estimate_and_truth_agree(volumes):
    _, truth, mask = volumes
    loss = lambda chi: losses.weighted_loss(sums(chi, truth, mask), losses.count(mask), losses.PAPER_WEIGHTS)
    assert bool(jnp.all(jnp.isfinite(jax.grad(loss)(truth))))


def test_an_empty_mask_costs_nothing(volumes):
    chi, truth, mask = volumes
    empty = jnp.zeros_like(mask)
    assert losses.weighted_loss(sums(chi, truth, empty), losses.count(empty), losses.PAPER_WEIGHTS) == 0
