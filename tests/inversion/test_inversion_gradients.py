"""Gradients through every iterative method agree with finite differences, and a sweep of weights is one call."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inversion import METHODS, cosmos, taken
from qsmjax.inversion.tv import solve_tv
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

SHAPE = (12, 12, 12)
ITERATIVE = [name for name, method in METHODS.items() if "max_iterations" in inspect.signature(method).parameters]
ITERATIVE.remove("nltgv")  # the solver of tgv and the data term of nltv, both tested
ONE_STEP = [name for name in ITERATIVE if taken(METHODS[name]) == "totalfield"]


def local_map(b0_dir=(0, 0, 1)):
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 5.5
    smooth = sum(np.roll(rng.normal(size=SHAPE), i, axis=i % 3) for i in range(4))
    magnitude = 1 + 0.1 * rng.normal(size=SHAPE)
    return field_map(0.02 * smooth, mask, geometry(SHAPE, (1, 1, 1), b0_dir), noise=0.004, magnitude=magnitude)


def assert_agrees_with_finite_differences(loss, field):
    size = 3e-5
    direction = jax.random.normal(jax.random.key(1), SHAPE)
    exact = jnp.vdot(jax.grad(loss)(field), direction)
    about = (loss(field + size * direction) - loss(field - size * direction)) / (2 * size)
    # shrinkage has kinks, which a finite step crosses and a derivative does not
    np.testing.assert_allclose(exact, about, rtol=0.06, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in ITERATIVE if name not in ONE_STEP])
def test_gradient_through_the_unrolled_iterations(name):
    local, wanted = local_map(), jax.random.normal(jax.random.key(0), SHAPE)
    options = {"max_iterations": 4, "tolerance": None}
    names = inspect.signature(METHODS[name]).parameters
    options |= {"weight": 3e-4} if "weight" in names else {}
    # rounding grows with every step of conjugate gradients: after 50, finite differences drown in it
    options |= {"first_iterations": 10} if "first_iterations" in names else {}

    def loss(field):
        return jnp.vdot(METHODS[name](local.replace(field=field), **options).chi, wanted)

    assert_agrees_with_finite_differences(loss, local.field)


def test_gradient_at_a_field_of_zero_is_finite():
    local = local_map()
    loss = lambda field: jnp.sum(METHODS["tv"](local.replace(field=field), max_iterations=3, tolerance=None).chi)
    assert np.isfinite(jax.grad(loss)(jnp.zeros_like(local.field))).all()


@pytest.mark.parametrize("name", ["tfi", *(pytest.param(n, marks=pytest.mark.slow) for n in ONE_STEP if n != "tfi")])
def test_gradient_through_one_step_methods(name):
    """Their start is unrolled too; no voxel may cross the limit of steepness."""
    local, wanted = local_map(), jax.random.normal(jax.random.key(0), SHAPE)
    options = {"weight": 3e-4, "start_iterations": 5, "steepest": 1e3, "max_iterations": 3, "tolerance": None}

    def loss(field):
        return jnp.vdot(METHODS[name](local.replace(field=field), **options).chi, wanted)

    assert_agrees_with_finite_differences(loss, local.field)


def test_gradient_through_cosmos_is_implicit():
    maps, wanted = [local_map((0, 0, 1)), local_map((0.6, 0, 0.8))], jax.random.normal(jax.random.key(0), SHAPE)

    def loss(field):
        both = [maps[0].replace(field=field), maps[1]]
        return jnp.vdot(cosmos(both, max_iterations=200, tolerance=1e-5).chi, wanted)

    assert_agrees_with_finite_differences(loss, maps[0].field)


def test_a_sweep_of_weights_is_one_call_and_equals_the_loop():
    local, weights = local_map(), jnp.asarray([1e-4, 1e-3])

    @jax.jit
    def solve(weight):
        return solve_tv(local.field, local.mask, local.geometry, weight=weight, max_iterations=20).chi

    for chi, weight in zip(jax.vmap(solve)(weights), weights):
        alone = solve(weight)
        np.testing.assert_allclose(chi, alone, atol=1e-5)


def test_progress_is_reported_and_a_limit_that_is_reached_is_stated():
    seen = []
    solution = METHODS["tv"](local_map(), max_iterations=3, report=lambda count, change: seen.append(int(count)))
    jax.effects_barrier()
    assert sorted(seen) == [1, 2, 3]
    assert int(solution.iterations) == 3 and not bool(solution.converged) and solution.residual > 1e-3
