"""From the total field on, the default chain is one differentiable function."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.cli.stages import DEFAULTS
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry, geometry_from_affine
from qsmjax.pipeline import BACKGROUNDS, local_field_to_chi, total_field_to_chi

SHAPE = (32, 32, 32)


def test_a_reference_beside_the_mask_is_refused_and_none_is_none():
    mask = np.zeros((6, 6, 6), bool)
    mask[1:5, 1:5, 1:5] = True
    field = np.random.default_rng(0).normal(0, 0.01, mask.shape)
    local = field_map(field, mask, geometry(mask.shape))
    solution, mapped = local_field_to_chi(local, INVERSIONS["tkd"], region=None)
    np.testing.assert_array_equal(mapped.chi, solution.chi)
    with pytest.raises(ValueError, match="reference must share voxels with the mask"):
        local_field_to_chi(local, INVERSIONS["tkd"], region=~mask)
    # beneath the tests' own checker of types
    with pytest.raises(ValueError, match="region must be \"mean\", a mask or None, got 'none'"):
        inspect.unwrap(local_field_to_chi)(local, INVERSIONS["tkd"], region="none")


def test_both_stages_run_along_the_axes_of_the_world():
    seen = []
    remove = lambda total: seen.append(total.geometry.shape) or total
    invert = lambda local: seen.append(local.geometry.shape) or INVERSIONS["tkd"](local)
    affine = np.eye(4)[[2, 0, 1, 3]]
    shape = (7, 8, 9)
    total = field_map(np.random.default_rng(0).normal(0, 0.01, shape), None, geometry_from_affine(affine, shape))
    total_field_to_chi(total, remove, invert, affine=affine)
    assert seen == [(9, 7, 8)] * 2


@pytest.mark.slow
def test_the_default_pipeline_from_the_total_field_on_is_differentiable():
    rng, grid = np.random.default_rng(0), geometry(SHAPE, (1.0, 1.0, 1.0), (0, 0, 1))
    radius = np.linalg.norm(np.indices(SHAPE) - 15.5, axis=0)
    mask = radius < 11
    blocks = rng.normal(0, 0.1, (2, 8, 8, 8)).repeat(4, 1).repeat(4, 2).repeat(4, 3)
    tissue, change = np.where(mask, blocks, 0)
    air = np.where((radius > 13) & (rng.random(SHAPE) < 0.02), 4.0, 0)
    field, towards = (forward_field(chi, grid, padding=0.5) for chi in (tissue + air, change))
    total = field_map(field, mask, grid, noise=1e-3, magnitude=np.ones(SHAPE), radians_per_ppm=8.0)
    remove, invert = BACKGROUNDS[DEFAULTS["background.method"]], INVERSIONS[DEFAULTS["inversion.method"]]

    def seen(field):
        """How much of the change is in the map."""
        options = {"background_options": {"steepest": 10.0}}
        return jnp.vdot(total_field_to_chi(total.replace(field=field), remove, invert, **options)[-1].chi, change)

    step, slope = 0.03, jax.grad(seen)(total.field)
    about = (seen(total.field + step * towards) - seen(total.field - step * towards)) / (2 * step)
    # the removal's gradients are those of a simpler estimate
    np.testing.assert_allclose(jnp.vdot(slope, towards), about, rtol=0.25)
    assert about > 0.5 * np.sum(change**2)
