"""Laws of the solvers: they solve, they stop, they say so, and gradients flow through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics import solvers


@pytest.fixture(scope="module")
def system():
    root = jax.random.normal(jax.random.key(0), (12, 12))
    return root @ root.T + jnp.eye(12), jax.random.normal(jax.random.key(1), (12,))


def test_cg_solves_and_says_how(system):
    matrix, rhs = system
    found = solvers.cg(lambda x: matrix @ x, rhs, tolerance=1e-5)
    np.testing.assert_allclose(matrix @ found.state, rhs, atol=1e-4)
    assert 0 < found.iterations <= 40 and found.residual <= 1e-5


def test_cg_with_the_inverse_as_preconditioner_needs_one_step(system):
    matrix, rhs = system
    inverse = jnp.linalg.inv(matrix)
    found = solvers.cg(lambda x: matrix @ x, rhs, preconditioner=lambda r: inverse @ r, tolerance=1e-4)
    assert found.iterations <= 2


def test_cg_keeps_a_start_that_solves(system):
    matrix, rhs = system
    found = solvers.cg(lambda x: matrix @ x, rhs, start=jnp.linalg.solve(matrix, rhs), tolerance=1e-3)
    assert found.iterations == 0


def test_cg_of_a_zero_right_hand_side_is_zero(system):
    found = solvers.cg(lambda x: system[0] @ x, jnp.zeros(12))
    assert not found.state.any() and found.iterations == 0


def test_cg_is_differentiated_implicitly(system):
    matrix, rhs = system
    loss = lambda m, r: jnp.sum(solvers.cg(lambda x: m @ x, r, tolerance=1e-6).state ** 2)
    exact = lambda m, r: jnp.sum(jnp.linalg.solve(m, r) ** 2)
    np.testing.assert_allclose(jax.grad(loss, 1)(matrix, rhs), jax.grad(exact, 1)(matrix, rhs), rtol=1e-3, atol=1e-4)


def test_iterate_stops_at_the_tolerance():
    # x ← (x + 2/x) / 2 is Newton's way to the root of two
    found = solvers.iterate(lambda x: (x + 2 / x) / 2, jnp.float32(1), max_iterations=50, tolerance=1e-5)
    np.testing.assert_allclose(found.state, np.sqrt(2), rtol=1e-6)
    assert found.iterations < 8 and found.residual <= 1e-5


def test_iterate_stops_where_it_breaks():
    found = solvers.iterate(
        lambda s: (jnp.where(s[1] == 3, jnp.nan, s[0] + 1), s[1] + 1),
        (jnp.float32(1), jnp.asarray(0)),
        max_iterations=50,
        tolerance=1e-5,
    )
    assert found.iterations == 4 and jnp.isnan(found.residual)


def test_a_fixed_count_can_be_differentiated_backwards():
    root = lambda a: solvers.iterate(lambda x: (x + a / x) / 2, jnp.float32(1), max_iterations=12).state
    np.testing.assert_allclose(jax.grad(root)(2.0), 1 / (2 * np.sqrt(2)), rtol=1e-5)


def test_the_report_hears_every_iteration():
    heard = []
    found = solvers.iterate(
        lambda x: x / 2, jnp.float32(1), max_iterations=3, tolerance=0.0, report=lambda i, change: heard.append(int(i))
    )
    found.state.block_until_ready()
    jax.effects_barrier()
    assert heard == [1, 2, 3]


def test_soft_threshold_is_the_proximal_map_of_the_absolute_value():
    values = jnp.asarray([-2.0, -0.5, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(solvers.soft_threshold(values, 1.0), [-1, 0, 0, 0, 1])
