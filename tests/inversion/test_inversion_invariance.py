"""Maps turn with the head: flips and permutations of the axes, oblique B0, and a field that is scaled."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special

from qsmjax.inversion import METHODS
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry

N = 20
B0_DIR = np.array([0.3, -0.2, 0.93])
TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
TOLERANCE = {"tkd": 1e-4, "tv": 1e-2}


def local_map(scale=1.0):
    at = np.stack(np.meshgrid(*[np.arange(N) - (N - 1) / 2] * 3, indexing="ij"))
    mask = np.linalg.norm(at, axis=0) < 8
    chi = np.zeros((N,) * 3, np.float32)
    chi[9:14, 7:10, 5:15], chi[4:7, 10:14, 8:12] = 0.2, -0.15
    grid = geometry(chi.shape, (1, 1, 1), B0_DIR)
    noise = 0.003 * np.random.default_rng(0).normal(size=chi.shape)
    return field_map(scale * (forward_field(chi, grid) + noise), mask, grid, noise=scale * 0.003)


@pytest.mark.parametrize("name", TOLERANCE)
def test_the_map_of_a_turned_head_is_the_turned_map(name):
    local = local_map()
    upright = np.asarray(METHODS[name](local).chi)
    for axes, signs in TURNS:
        flips = tuple(slice(None, None, sign) for sign in signs)
        direction = B0_DIR[list(axes)] * signs
        field, mask = (np.asarray(v).transpose(axes)[flips] for v in (local.field, local.mask))
        turned = METHODS[name](field_map(field, mask, geometry(mask.shape, (1, 1, 1), direction), noise=0.003)).chi
        expected = upright.transpose(axes)[flips]
        assert np.linalg.norm(turned - expected) < TOLERANCE[name] * np.linalg.norm(expected), (axes, signs)


@pytest.mark.parametrize("name", TOLERANCE)
def test_a_field_scaled_gives_a_map_scaled(name):
    once, thrice = METHODS[name](local_map()).chi, METHODS[name](local_map(3.0)).chi
    assert jnp.linalg.norm(thrice - 3 * once) < 1e-3 * jnp.linalg.norm(thrice)


def blob_field(n: int, sigma: float, direction: np.ndarray) -> np.ndarray:
    """Sample the analytic field of chi = exp(-r²/2σ²): (chi - mean of chi within r)(1/3 - cos² θ)."""
    at = np.stack(np.meshgrid(*[np.arange(n) - n / 2 + 0.5] * 3, indexing="ij"))
    r = np.linalg.norm(at, axis=0)
    u = r / sigma
    inside = np.sqrt(np.pi / 2) * scipy.special.erf(u / np.sqrt(2)) - u * np.exp(-(u**2) / 2)
    cosine = np.tensordot(direction / np.linalg.norm(direction), at, 1) / r
    return (np.exp(-(u**2) / 2) - 3 * inside / u**3) * (1 / 3 - cosine**2)


def test_tkd_of_an_oblique_head_is_the_rotated_map():
    """An analytic object, known everywhere, in a field of view of six radii."""
    n, sigma, angle = 64, 4.0, 25.0
    tilt = np.array([np.sin(np.radians(angle)), 0, np.cos(np.radians(angle))])
    axial, oblique = (
        np.asarray(METHODS["tkd"](field_map(blob_field(n, sigma, b), None, geometry((n,) * 3, (1, 1, 1), b))).chi)
        for b in (np.array([0.0, 0, 1]), tilt)
    )
    turned = scipy.ndimage.rotate(axial, -angle, axes=(0, 2), reshape=False, order=5)
    at = np.stack(np.meshgrid(*[np.arange(n) - n / 2 + 0.5] * 3, indexing="ij"))
    near = np.linalg.norm(at, axis=0) < 16
    error = np.linalg.norm((oblique - turned)[near]) / np.linalg.norm(oblique[near])
    assert error < 0.01
