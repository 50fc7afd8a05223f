"""Smoothing keeps constants, agrees with scipy away from the faces, and takes complex volumes."""

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.numerics.smooth import gaussian_smooth

VOLUME = np.random.default_rng(0).normal(size=(15, 14, 12)).astype(np.float32)


def test_a_constant_stays_constant():
    np.testing.assert_allclose(gaussian_smooth(jnp.ones((5, 4, 3)), (2.0, 1.0, 0.0)), 1, rtol=1e-6)


def test_it_agrees_with_scipy_away_from_the_faces():
    ours = gaussian_smooth(jnp.asarray(VOLUME), (0.8, 1.0, 0.6))
    theirs = scipy.ndimage.gaussian_filter(VOLUME, (0.8, 1.0, 0.6), truncate=5)
    np.testing.assert_allclose(ours[5:-5, 5:-5, 4:-4], theirs[5:-5, 5:-5, 4:-4], atol=1e-5)


def test_a_complex_volume_is_its_two_parts():
    both = gaussian_smooth(jnp.asarray(VOLUME + 2j * VOLUME), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(both, (1 + 2j) * gaussian_smooth(jnp.asarray(VOLUME), (1.0, 1.0, 1.0)), atol=1e-5)
