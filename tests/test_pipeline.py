"""From the echoes to chi, and by the default methods from the total field on, is one differentiable function."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.stages import DEFAULTS
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry, geometry_from_affine
from qsmjax.physics.units import radians_per_ppm
from qsmjax.pipeline import BACKGROUNDS, local_field_to_chi, total_field, total_field_to_chi

SHAPE = (24, 24, 24)


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


FEW, B0, TE = (16, 15, 14), 3.0, (0.004, 0.012, 0.020, 0.028)
HEAD = np.linalg.norm(np.indices(FEW) - np.reshape([7.5, 7, 6.5], (3, 1, 1, 1)), axis=0) < 6.5
TRUTH = 0.1 * np.sin(np.indices(FEW)[0] / 3) + 0.02 * np.indices(FEW)[2]


def echoes(noise):
    t = np.asarray(TE, np.float32)[:, None, None, None]
    clean = 100 * np.exp(-30 * t + 1j * np.asarray(radians_per_ppm(B0, t)) * TRUTH)
    return clean + noise * jax.random.normal(jax.random.key(0), clean.shape, jnp.complex64)


def along(loss, at, step):
    """Return the slope of a real number along a random direction, by jax.grad and by central differences."""
    towards = jax.random.normal(jax.random.key(1), at.shape, at.dtype)
    numeric = (loss(at + step * towards) - loss(at - step * towards)) / (2 * step)
    return jnp.sum(jax.grad(loss)(at) * towards).real, numeric


def test_the_total_field_has_the_gradient_of_the_echoes():
    weights = jax.random.normal(jax.random.key(2), FEW)
    made = lambda signal: total_field(signal, TE, B0, HEAD, geometry(FEW), bipolar=True, erode=1).field_map.field
    np.testing.assert_allclose(*along(lambda signal: jnp.vdot(weights, made(signal)), echoes(1.0), 0.05), rtol=0.01)


def test_from_echoes_to_chi_is_one_differentiable_function():
    weights = jax.random.normal(jax.random.key(2), FEW)
    options = {"background_options": {"radius": 2.0}}

    def seen(signal):
        total = total_field(signal, TE, B0, HEAD, geometry(FEW)).field_map
        return jnp.vdot(weights, total_field_to_chi(total, BACKGROUNDS["sharp"], INVERSIONS["tkd"], **options)[-1].chi)

    np.testing.assert_allclose(*along(seen, echoes(1.0), 0.05), rtol=0.01)


def test_a_total_field_inside_jit_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"signal must have values .* outside jax\.jit"):
        jax.jit(lambda signal: total_field(signal, TE, B0, HEAD, geometry(FEW)).field_map.field)(echoes(1.0))


def test_an_initial_phase_of_zero_halves_the_noise_and_keeps_the_field():
    free, known = (total_field(echoes(3.0), TE, B0, HEAD, geometry(FEW), initial_phase=p) for p in (None, 0.0))
    inside = HEAD & np.asarray(free.field_map.mask & known.field_map.mask)
    assert np.median((known.field_map.noise / free.field_map.noise)[inside]) == pytest.approx(0.5, abs=0.1)
    error = np.asarray(known.field_map.field - TRUTH)[inside]
    spread = np.asarray(known.field_map.noise)[inside]
    assert abs(error.mean()) < 4 * spread.mean() / np.sqrt(len(error))
    assert error.std() == pytest.approx(np.sqrt(np.mean(spread**2)), rel=0.15)
    assert parse_settings(["initial_phase=0"], options_of(total_field), "field") == {"initial_phase": 0.0}


@pytest.mark.slow
def test_the_default_pipeline_from_the_total_field_on_is_differentiable():
    rng, grid = np.random.default_rng(0), geometry(SHAPE, (1.0, 1.0, 1.0), (0, 0, 1))
    radius = np.linalg.norm(np.indices(SHAPE) - 11.5, axis=0)
    mask = radius < 8.25
    blocks = rng.normal(0, 0.1, (2, 6, 6, 6)).repeat(4, 1).repeat(4, 2).repeat(4, 3)
    tissue, change = np.where(mask, blocks, 0)
    air = np.where((radius > 9.75) & (rng.random(SHAPE) < 0.02), 4.0, 0)
    field, towards = (forward_field(chi, grid, padding=0.5) for chi in (tissue + air, change))
    total = field_map(field, mask, grid, noise=1e-3, magnitude=np.ones(SHAPE), radians_per_ppm=8.0)
    remove, invert = BACKGROUNDS[DEFAULTS["background.method"]], INVERSIONS[DEFAULTS["inversion.method"]]
    options = {"steepest": 10.0}

    def removed(field):
        local = remove(total.replace(field=field), **options)
        return local.field, local

    def seen(mapped):
        """How much of the change is in the map."""
        return jnp.vdot(mapped.chi, change)

    def seen_in_local(field):
        return seen(local_field_to_chi(local.replace(field=field), invert)[-1])

    def seen_in_total(field):
        return seen(total_field_to_chi(total.replace(field=field), remove, invert, background_options=options)[-1])

    # the removal's gradients are those of a simpler estimate, which its own tests hold against the removal
    _, moved, local = jax.jvp(removed, (total.field,), (towards,), has_aux=True)
    step, slope = 0.02, jax.grad(seen_in_total)(total.field)
    about = (seen_in_local(local.field + step * moved) - seen_in_local(local.field - step * moved)) / (2 * step)
    # back through it, conjugate gradients end elsewhere than forwards
    np.testing.assert_allclose(jnp.vdot(slope, towards), about, rtol=0.06)
    assert about > 0.4 * np.sum(change**2)
