"""Slopes of the reconstruction's parts, and of all of it, are those of central differences in a random direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coil_phantom import COILS, complex_normal, middle, scan

from qsmjax.recon.combine import combine, image_to_kspace, kspace_to_image, whiten
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa_fill, grappa_weights

SHAPE = (8, 12, 10)
_, _, FULL = scan(SHAPE, (1, 1), (0, 0), (0, 0), noise=0.02)
REGION = middle(FULL, (6, 8, 8))


def check_slope(loss, at, *, step, rtol, seed=7):
    """Compare along a direction as long as the point itself; the difference must not be near zero."""
    at = jnp.asarray(at, jnp.complex64)
    along = complex_normal(at.shape, seed)
    along = jnp.asarray(along * np.linalg.norm(at) / np.linalg.norm(along), jnp.complex64)
    on_line = jax.jit(lambda t: loss(at + t * along))
    expected = (on_line(step) - on_line(-step)) / (2 * step)
    # JAX's gradient of a real loss is the conjugate of the direction of steepest ascent
    found = jnp.sum(jax.jit(jax.grad(loss))(at) * along).real
    assert abs(expected) > 0.01 * abs(on_line(0.0))
    np.testing.assert_allclose(found, expected, rtol=rtol)


def weigh(values, seed=3):
    """A loss to which phase, the global one too, matters as much as magnitude."""
    return jnp.sum(jnp.asarray(complex_normal(values.shape, seed), jnp.complex64) * values).real


MAPS = {
    "full rank": (REGION, (3, 3, 3), 0.13),
    "more rows than windows": (REGION[:, :4, :4, :4], (3, 3, 3), 0.2),
    "a silent coil: eigenvalues that are equal": (REGION * np.arange(COILS)[:, None, None, None], (2, 3, 3), 0.1),
}


@pytest.mark.parametrize("name", MAPS)
def test_sensitivities(name):
    """By a threshold in a gap of the singular values, so that the step keeps as many: maps jump where one passes."""
    region, kernel, threshold = MAPS[name]

    def loss(calibration):
        found = espirit(calibration, SHAPE, kernel_size=kernel, threshold=threshold)
        return weigh(found.maps) + weigh(found.eigenvalue) + weigh(found.weight)

    check_slope(loss, region, step=1e-3, rtol=2e-2)


def test_combination():
    maps, images = complex_normal((COILS, *SHAPE), 1), complex_normal((COILS, *SHAPE), 2)
    check_slope(lambda value: weigh(combine(value, maps)), images, step=1e-2, rtol=1e-3)
    check_slope(lambda value: weigh(combine(images, value)), maps, step=1e-3, rtol=1e-2)
    # coils that see nothing at a place: zero there, slope and all
    blind = jnp.asarray(maps).at[:, 0].set(0)
    assert np.isfinite(jax.grad(lambda value: weigh(combine(images, value)))(blind)).all()


def test_whitening():
    noise, data = complex_normal((COILS, 60), 1), complex_normal((COILS, 4, 3, 2), 2)
    check_slope(lambda value: weigh(whiten(value, noise)), data, step=1e-2, rtol=1e-3)
    check_slope(lambda value: weigh(whiten(data, value)), noise, step=3e-3, rtol=1e-2)


def test_all_from_kspace_to_image():
    """Calibration and k-space are one array: both paths to the image count."""
    acceleration, offset, kernel = (2, 2), (0, 1), (3, 2, 2)
    sampled = np.zeros(SHAPE[1:], bool)
    sampled[offset[0] :: 2, offset[1] :: 2] = True
    maps = espirit(REGION, SHAPE, kernel_size=(3, 3, 3)).maps

    def loss(kspace):
        weights = grappa_weights(middle(kspace, (8, 10, 10)), acceleration, kernel_size=kernel, regularisation=0.01)
        filled = grappa_fill(kspace * sampled, weights, acceleration, offset, kernel_size=kernel)
        return weigh(combine(kspace_to_image(filled), maps))

    check_slope(loss, FULL, step=3e-3, rtol=1e-2, seed=8)


def test_the_transforms_are_linear():
    """<Ax, y> = <x, A*y>, where A* is the transform's gradient."""
    x, y = (jnp.asarray(complex_normal((2, *SHAPE), seed), jnp.complex64) for seed in (1, 2))
    _, pull = jax.vjp(kspace_to_image, x)
    # JAX transposes without conjugation
    np.testing.assert_allclose(jnp.conj(pull(jnp.conj(y))[0]), image_to_kspace(y), atol=1e-5)
