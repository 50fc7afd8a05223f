"""Every form of the convolution is the native one, in values and in gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from qsmjax.models import convolution
from qsmjax.models.convolution import convolve3d, convolve_native, convolve_planes, max_pool3d, upsample3d

SHAPES = [((2, 6, 5, 7, 2), 3, 3), ((1, 3, 4, 2, 3), 5, 2), ((1, 1, 1, 1, 1), 3, 2), ((1, 3, 18, 17, 1), 5, 2)]


def normal(seed, shape):
    return jax.random.normal(jax.random.key(seed), shape)


def value_and_pullback(function, *arrays):
    def both(*arrays):
        value, pull = jax.vjp(function, *arrays)
        return value, pull(jnp.cos(jnp.arange(value.size)).astype(value.dtype).reshape(value.shape))

    return jax.jit(both)(*arrays)


@pytest.mark.parametrize(("shape", "size", "out"), SHAPES)
def test_convolution_and_its_gradients_are_the_native_ones(shape, size, out):
    maps, weights = normal(0, shape), normal(1, (size, size, size, shape[-1], out))
    ours, native = (value_and_pullback(f, maps, weights) for f in (convolve3d, convolve_native))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(native)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_plane_by_plane_is_tap_by_tap():
    maps, weights = normal(0, (2, 4, 5, 3, 2)), normal(1, (3, 3, 3, 2, 2))
    np.testing.assert_allclose(
        convolve_planes(maps, weights), convolution.convolve_taps(maps, weights), rtol=1e-5, atol=1e-5
    )


def test_other_platforms_get_the_native_operation():
    maps, weights = jnp.zeros((1, 8, 8, 8, 2)), jnp.zeros((3, 3, 3, 2, 2))
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(convolve3d(maps, w) ** 2)))
    for platform in ("tpu", "cuda"):
        text = jax.export.export(gradient, platforms=[platform])(weights).mlir_module()
        assert "stablehlo.while" not in text and "b, 0, 1, 2, f" in text
    assert "stablehlo.while" in jax.export.export(gradient, platforms=["cpu"])(weights).mlir_module()


@pytest.mark.parametrize("shape", [(2, 3, 2, 1, 3), (1, 1, 1, 1, 1)])
def test_upsampling_is_the_transposed_convolution(shape):
    maps, weights = normal(0, shape), normal(1, (2, 2, 2, shape[-1], 2))

    def native(maps, weights):
        # XLA's convention for a transposed kernel is mirrored
        mirrored = weights[::-1, ::-1, ::-1]
        return lax.conv_transpose(maps, mirrored, (2, 2, 2), "VALID", dimension_numbers=convolution.LAYOUT_3D)

    for a, b in zip(*(jax.tree.leaves(value_and_pullback(f, maps, weights)) for f in (upsample3d, native))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_upsampling_puts_each_tap_in_its_place():
    weights = jnp.arange(8.0).reshape(2, 2, 2, 1, 1)
    np.testing.assert_array_equal(upsample3d(jnp.ones((1, 1, 1, 1, 1)), weights)[0, ..., 0], weights[..., 0, 0])


def test_pooling_takes_each_block_s_maximum():
    maps = normal(0, (1, 4, 2, 6, 2))
    expected = -lax.reduce_window(-maps, jnp.inf, lax.min, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(max_pool3d(maps), expected)


def test_pooling_has_a_gradient_where_its_input_is_computed_anew():
    """Compiled so, XLA's maximum is that of values rounded otherwise than those which the gradient finds."""
    maps, wanted = normal(0, (2, 8, 8, 8, 3)), normal(1, (2, 4, 4, 4, 3))

    def loss(shift, maps, scale):
        centred = maps - maps.mean((0, 1, 2, 3))
        level = lax.rsqrt(jnp.mean(centred**2, (0, 1, 2, 3)))
        return jnp.sum(wanted * max_pool3d(centred * level * scale + shift))

    given = jnp.asarray([0.1, 0.2, 0.3]), maps, jnp.asarray([1.1, 0.7, 1.3])
    gradient = jax.jit(jax.grad(loss)).lower(*given).compile({"xla_backend_optimization_level": 0})(*given)
    np.testing.assert_allclose(gradient, wanted.sum((0, 1, 2, 3)), rtol=1e-4)


def test_half_precision_stays_half():
    maps, weights = normal(0, (1, 4, 4, 4, 1)).astype(jnp.bfloat16), normal(1, (3, 3, 3, 1, 1)).astype(jnp.bfloat16)
    value, gradients = value_and_pullback(convolve3d, maps, weights)
    assert {a.dtype for a in (value, *gradients)} == {jnp.dtype(jnp.bfloat16)}


def test_kernels_without_a_middle_are_refused():
    with pytest.raises(ValueError, match="odd sizes"):
        convolve3d(jnp.zeros((1, 4, 4, 4, 1)), jnp.zeros((2, 3, 3, 1, 1)))
