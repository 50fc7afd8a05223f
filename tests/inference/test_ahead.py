"""A flow finds compiled what it calls, whatever goes wrong or is left ahead of it."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.inference.ahead import ahead


def functions():
    """Return two compiled functions and the threads that they were traced in."""
    traced = []

    @jax.jit
    def double(x):
        traced.append(threading.current_thread())
        return {"twice": 2 * x}

    @jax.jit
    def cut(x):
        traced.append(threading.current_thread())
        return x[:2]

    return double, cut, traced


def test_what_a_flow_calls_is_traced_in_another_thread_and_once():
    double, cut, traced = functions()

    def flow(call, x, times):
        for _ in range(times):
            x = call(double, x)["twice"]
        return call(cut, x)

    x = jnp.arange(3.0)
    with ahead(flow, x, 3) as call:
        np.testing.assert_array_equal(flow(call, x, 3), [0, 8])
    assert len(traced) == 2 and threading.main_thread() not in traced


def test_an_error_ahead_is_left_for_the_arrays_to_find():
    double, _, traced = functions()

    def flow(call, x):
        # a shape has no values: ahead this ends the walk
        return call(double, x + 1)["twice"]

    with ahead(flow, jnp.ones(3)) as call:
        np.testing.assert_array_equal(flow(call, jnp.ones(3)), [4, 4, 4])
    assert traced == [threading.main_thread()]
    with pytest.raises(ValueError, match="the flow's own"), ahead(flow, jnp.ones(3)):
        raise ValueError("the flow's own")


def test_a_flow_that_is_left_is_compiled_no_further():
    double, cut, traced = functions()
    reached, go_on = threading.Event(), threading.Event()

    def flow(call, x):
        made = call(double, x)["twice"]
        if isinstance(made, jax.ShapeDtypeStruct):
            reached.set()
            go_on.wait()
        return call(cut, made)

    with ahead(flow, jnp.ones(3)):
        reached.wait()
        # it hears that it is left as soon as it asks for more
        threading.Timer(0.5, go_on.set).start()
    assert len(traced) == 1


def test_traced_arrays_and_those_of_a_device_are_called_at_once():
    double, cut, traced = functions()
    flow = lambda call, x: call(cut, call(double, x)["twice"])

    def whole(x):
        with ahead(flow, x) as call:
            return flow(call, x)

    expected = [2, 2]
    np.testing.assert_array_equal(jax.jit(whole)(jnp.ones(3)), expected)
    np.testing.assert_array_equal(whole(jax.device_put(jnp.ones(3), jax.devices()[0])), expected)
    assert set(traced) == {threading.main_thread()}
