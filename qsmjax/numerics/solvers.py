"""Iterations as functions: callables in, the solution and what it took out.

A tolerance stops a loop when the relative change of the solution, |x' - x| / |x'|, falls below it. Without one the
number of iterations is fixed, and then reverse-mode gradients flow through the unrolled loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

State = Any
Report = Callable[[Array, Array], None]


class Solved(NamedTuple):
    """What a solver returns: the state, the iterations that it took, and the last relative change or residual."""

    state: State
    iterations: Int[Array, ""]
    residual: Float[Array, ""]


def iterate(
    step: Callable[[State], State],
    start: State,
    *,
    max_iterations: int,
    tolerance: ArrayLike | None = None,
    solution: Callable[[State], Array] = lambda state: jax.tree.leaves(state)[0],
    report: Report | None = None,
) -> Solved:
    """Repeat state ← step(state) until the solution's relative change falls below the tolerance.

    A change that is not finite stops the loop too, so that the iteration at which it broke is returned.

    Args:
      step: one iteration, on any tree of arrays.
      start: the state before the first.
      max_iterations: the limit; with no tolerance, the fixed count.
      tolerance: relative change at which to stop; None for a fixed count, through which reverse-mode gradients flow.
      solution: picks the array whose change is watched, by default the state's first.
      report: called on the host after every iteration with its number and the change.

    Returns:
      The last state, the count, and the last relative change.
    """

    def advance(state: State, count: Array) -> tuple[State, Array]:
        new = step(state)
        # only watched: without the stop, sqrt at a change of zero would send NaN through the gradient
        old_x, new_x = (jax.lax.stop_gradient(solution(s)) for s in (state, new))
        change = norm(new_x - old_x) / jnp.maximum(norm(new_x), jnp.finfo(jnp.float32).tiny)
        if report is not None:
            jax.debug.callback(report, count + 1, change)
        return new, change

    if tolerance is None:

        def body(carry, count):
            state, done, _ = carry
            new, change = advance(state, count)
            # counts on only while all is finite, so that the iteration at which it broke is returned here too
            return (new, jnp.where(done == count, count + jnp.isfinite(change), done), change), None

        first = (start, jnp.asarray(0), jnp.float32(jnp.inf))
        (state, done, change), _ = jax.lax.scan(body, first, jnp.arange(max_iterations))
        return Solved(state, jnp.minimum(done + 1, max_iterations), change)

    def unfinished(carry):
        _, count, change = carry
        return (count < max_iterations) & ((count == 0) | ((change > tolerance) & jnp.isfinite(change)))

    def advance_while(carry):
        state, count, _ = carry
        new, change = advance(state, count)
        return new, count + 1, change

    return Solved(*jax.lax.while_loop(unfinished, advance_while, (start, jnp.asarray(0), jnp.float32(jnp.inf))))


def cg(
    operator: Callable[[Array], Array],
    rhs: Array,
    *,
    start: Array | None = None,
    preconditioner: Callable[[Array], Array] = lambda residual: residual,
    max_iterations: int = 100,
    tolerance: ArrayLike = 1e-4,
    report: Report | None = None,
) -> Solved:
    """Solve operator(x) = rhs for a symmetric, positive semidefinite operator by preconditioned conjugate gradients.

    Gradients in either mode are implicit: one more solve with the same operator, whatever the iterations were.

    Args:
      operator: x -> A x, linear, shape kept.
      rhs: right-hand side.
      start: first guess, zero by default.
      preconditioner: r -> an approximation of A⁻¹ r, symmetric and positive.
      max_iterations: the limit.
      tolerance: |rhs - A x| / |rhs| at which to stop.
      report: called on the host after every iteration with its number and the residual.

    Returns:
      x, the iterations, and the relative residual.

    References:
      Hestenes & Stiefel, J. Res. Natl. Bur. Stand. 49:409 (1952), doi:10.6028/jres.049.044.
    """

    def solve(_, rhs):
        scale = jnp.maximum(norm(rhs), jnp.finfo(jnp.float32).tiny)

        def unfinished(carry):
            _, count, relative = carry
            return (count < max_iterations) & (relative > tolerance)

        def advance(carry):
            state, count, _ = carry
            new = _cg_step(operator, preconditioner, state)
            relative = norm(new[1]) / scale
            if report is not None:
                jax.debug.callback(report, count + 1, relative)
            return new, count + 1, relative

        x = jnp.zeros_like(rhs) if start is None else start
        residual = rhs - operator(x)
        direction = preconditioner(residual)
        first = (x, residual, direction, dot(residual, direction))
        state, count, relative = jax.lax.while_loop(
            unfinished, advance, (first, jnp.asarray(0), norm(residual) / scale)
        )
        # counts as floats: the auxiliary output of an implicit solve must have a tangent
        return state[0], (count.astype(jnp.float32), relative)

    x, (count, relative) = jax.lax.custom_linear_solve(operator, rhs, solve, symmetric=True, has_aux=True)
    return Solved(x, count.astype(jnp.int32), relative)


def cg_steps(
    operator: Callable[[Array], Array],
    rhs: Array,
    *,
    max_iterations: int,
    tolerance: ArrayLike | None = None,
    report: Report | None = None,
) -> Solved:
    """Take conjugate gradient steps from zero, where how many are taken is itself the regularisation.

    Stops as `iterate` does. Without a tolerance reverse-mode gradients flow through the unrolled steps, as they must:
    those of `cg` belong to the solution, which these steps do not reach.

    Args:
      operator: x -> A x, linear, symmetric and positive semidefinite.
      rhs: right-hand side.
      max_iterations: the limit; with no tolerance, the fixed count.
      tolerance: relative change of x at which to stop, or None.
      report: called on the host after every iteration with its number and the change.

    Returns:
      x, the iterations, and the last relative change.
    """
    solved = iterate(
        lambda state: _cg_step(operator, lambda residual: residual, state),
        (jnp.zeros_like(rhs), rhs, rhs, dot(rhs, rhs)),
        max_iterations=max_iterations,
        tolerance=tolerance,
        report=report,
    )
    return solved._replace(state=solved.state[0])


def _cg_step(operator, preconditioner, state):
    x, residual, direction, size = state
    applied = operator(direction)
    curvature = dot(direction, applied)
    # a direction in the null space, or a zero residual, moves nothing
    length = jnp.where(curvature > 0, size / jnp.where(curvature > 0, curvature, 1), 0)
    x, residual = x + length * direction, residual - length * applied
    towards = preconditioner(residual)
    new_size = dot(residual, towards)
    turn = jnp.where(size > 0, new_size / jnp.where(size > 0, size, 1), 0)
    return x, residual, towards + turn * direction, new_size


def soft_threshold(values: Array, threshold: Array | float) -> Array:
    """Shrink towards zero: sign(v) max(|v| - threshold, 0), the proximal map of threshold·|v|₁."""
    return values - jnp.clip(values, -threshold, threshold)


def norm(values: Array) -> Float[Array, ""]:
    """Return the Euclidean norm of all values."""
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(values))))


def dot(a: Array, b: Array) -> Float[Array, ""]:
    """Return the real inner product of all values."""
    return jnp.sum(a * b)
