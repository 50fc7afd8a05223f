"""Laws of k-space: half spectrum and full one agree, what is padded comes back, every size finds a fast one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics import kspace

SHAPES = [(8, 8, 8), (7, 8, 9), (5, 6, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_frequencies_are_those_of_numpy_per_mm(shape):
    kx, ky, kz = kspace.frequencies(shape, (0.5, 1.0, 3.0))
    np.testing.assert_allclose(kx.ravel(), np.fft.fftfreq(shape[0], 0.5), rtol=1e-6)
    np.testing.assert_allclose(ky.ravel(), np.fft.fftfreq(shape[1], 1.0), rtol=1e-6)
    np.testing.assert_allclose(kz.ravel(), np.fft.fftfreq(shape[2], 3.0)[: shape[2] // 2 + 1], rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_transform_and_back_is_the_identity(shape):
    volume = jax.random.normal(jax.random.key(0), (2, *shape))
    np.testing.assert_allclose(kspace.irfft3(kspace.rfft3(volume), shape), volume, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_product_in_k_space_is_periodic_convolution(shape):
    volume = jnp.zeros(shape).at[0, 0, 0].set(1.0)
    response = jax.random.normal(jax.random.key(1), shape)
    np.testing.assert_allclose(kspace.multiply_k(volume, kspace.rfft3(response)), response, atol=1e-6)


def test_a_kernel_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"kernel.shape must be \(8, 8, 5\)"):
        kspace.multiply_k(jnp.zeros((8, 8, 8)), jnp.zeros((8, 8, 8)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("larger", [(8, 9, 10), (11, 8, 9)])
def test_crop_undoes_pad_for_odd_and_even_sizes(shape, larger):
    volume = jax.random.normal(jax.random.key(2), shape)
    padded = kspace.pad_to(volume, larger)
    assert padded.shape == larger
    np.testing.assert_array_equal(kspace.crop_to(padded, shape), volume)
    np.testing.assert_allclose(padded.sum(), volume.sum(), rtol=1e-5)


def test_padding_into_less_and_cropping_to_more_are_refused():
    with pytest.raises(ValueError, match="at least"):
        kspace.pad_to(jnp.zeros((4, 4, 4)), (4, 3, 4))
    with pytest.raises(ValueError, match="at most"):
        kspace.crop_to(jnp.zeros((4, 4, 4)), (4, 5, 4))


@pytest.mark.parametrize("n", [1, 7, 97, 175, 226, 251])
def test_fast_size_is_the_next_with_small_factors(n):
    fast = kspace.fast_size(n)
    rest = fast
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    assert fast >= n and rest == 1 and fast < 1.2 * n + 1
