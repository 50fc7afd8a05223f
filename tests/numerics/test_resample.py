"""Laws of band-limited resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.numerics.resample import band_limit, resample_k
from qsmjax.physics.dipole import dipole_convolve, dipole_kernel

FINE = (24, 22, 26)


def wave(shape):
    """A slow wave over the field of view, sampled at the centres of the voxels."""
    x, y, z = np.meshgrid(*[(np.arange(n) + 0.5) / n for n in shape], indexing="ij")
    return (1 + np.cos(2 * np.pi * (x - 2 * y + z) + 0.3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(12, 11, 13), (13, 22, 9), (30, 33, 32), FINE])
@pytest.mark.parametrize("kind", [np.float32, np.complex64])
def test_a_slow_wave_is_kept_at_the_centres_of_the_voxels(shape, kind):
    phase = 1 if kind is np.float32 else np.exp(0.4j)
    out = resample_k(jnp.asarray(wave(FINE) * phase, kind), shape)
    np.testing.assert_allclose(out, wave(shape) * phase, atol=2e-6)


def test_the_dipole_holds_before_and_after():
    voxel, b0_dir = np.asarray([0.5, 0.7, 0.6]), (0.3, 0.1, 0.9)
    chi = jax.random.normal(jax.random.key(0), FINE)
    field = dipole_convolve(chi, dipole_kernel(FINE, voxel, b0_dir))
    shape = (12, 11, 13)
    kernel = dipole_kernel(shape, voxel * np.divide(FINE, shape), b0_dir)
    again = dipole_convolve(resample_k(chi, shape), kernel)
    np.testing.assert_allclose(again, resample_k(field, shape), atol=2e-6)


def test_resampling_is_linear_and_batched():
    a, b = jax.random.normal(jax.random.key(1), (2, *FINE))
    both = resample_k(jnp.stack([a, b]), (12, 11, 13))
    np.testing.assert_allclose(resample_k(a + 2 * b, (12, 11, 13)), both[0] + 2 * both[1], atol=1e-5)


def test_band_limit_equals_resampling_to_the_same_grid():
    a = jax.random.normal(jax.random.key(2), FINE)
    np.testing.assert_allclose(band_limit(a), resample_k(a, FINE), atol=1e-5)


@pytest.mark.parametrize(("volume", "rolloff"), [(np.zeros((4, 4)), 0.2), (np.zeros((4, 4, 4)), 0.0)])
def test_bad_input_is_refused(volume, rolloff):
    with pytest.raises(ValueError, match="must"):
        resample_k(volume, (2, 2, 2), rolloff=rolloff)
