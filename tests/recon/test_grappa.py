"""GRAPPA fills what is missing as well as pygrappa does, over one or two accelerated axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.recon.combine import image_to_kspace, kspace_to_image
from qsmjax.recon.grappa import grappa, grappa_fill, grappa_weights, trim_kernel
from qsmjax.recon.reconstruct import reconstruct
from qsmjax.recon.sampling import find_sampling

COILS = 6
RNG = np.random.default_rng(0)


def coil_images(shape):
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    ball = (x / 0.9) ** 2 + (y / 0.8) ** 2 + (z / 0.85) ** 2 < 1
    image = ball * (1 + 0.5 * np.sin(6 * y) * np.cos(5 * z)) * np.exp(1j * (2 * y + z**2))
    angles = 2 * np.pi * np.arange(COILS) / COILS
    far = [np.exp(-0.7 * ((y - 1.2 * np.cos(a)) ** 2 + (z - 1.2 * np.sin(a)) ** 2) + 1j * (a + y + x)) for a in angles]
    return np.stack(far) * image


def scan(shape, acceleration, offset, block, noise=0.005):
    """Return the clean coil images, and k-space with noise where it is sampled."""
    images = coil_images(shape)
    kspace = np.asarray(image_to_kspace(images))
    kspace = kspace + noise * (RNG.normal(size=kspace.shape) + 1j * RNG.normal(size=kspace.shape))
    sampled = np.zeros(shape[1:], bool)
    sampled[offset[0] :: acceleration[0], offset[1] :: acceleration[1]] = True
    sampled[tuple(slice(n // 2 - b // 2, n // 2 - b // 2 + b) for n, b in zip(shape[1:], block))] = True
    return images, (kspace * sampled).astype(np.complex64), kspace


def nrmse(kspace, images):
    return np.linalg.norm(np.asarray(kspace_to_image(kspace)) - images) / np.linalg.norm(images)


SCANS = {
    "2x2": ((8, 28, 26), (2, 2), (1, 0), (14, 14), (3, 4, 4)),
    "2x1, odd": ((8, 29, 21), (2, 1), (1, 0), (15, 21), (3, 4, 3)),
    "one plane": ((1, 40, 36), (2, 2), (0, 1), (18, 18), (5, 4, 4)),
}


@pytest.mark.parametrize("name", SCANS)
def test_the_missing_samples_are_filled(name):
    shape, acceleration, offset, block, kernel = SCANS[name]
    images, undersampled, full = scan(shape, acceleration, offset, block)
    found = find_sampling(undersampled)
    assert found.acceleration == acceleration and found.offset == offset
    filled = np.asarray(grappa(undersampled, kernel_size=kernel))
    measured = undersampled != 0
    np.testing.assert_array_equal(filled[measured], undersampled[measured])
    assert nrmse(filled, images) < 2.5 * nrmse(full, images)
    assert nrmse(filled, images) < 0.5 * nrmse(undersampled, images)


def test_it_is_no_worse_than_pygrappa():
    pygrappa = pytest.importorskip("pygrappa")
    shape, acceleration, offset, block, kernel = SCANS["one plane"]
    images, undersampled, _ = scan(shape, acceleration, offset, block)
    theirs = pygrappa.mdgrappa(np.moveaxis(undersampled[:, 0], 0, -1).copy(), kernel_size=(5, 5))
    theirs = np.moveaxis(theirs, -1, 0)[:, None]
    assert nrmse(grappa(undersampled, kernel_size=kernel), images) < nrmse(theirs, images)


def test_full_kspace_comes_back_and_a_region_measured_apart_is_used():
    shape, acceleration, offset, block, kernel = SCANS["2x2"]
    images, undersampled, full = scan(shape, acceleration, offset, block)
    np.testing.assert_array_equal(grappa(full), jnp.asarray(full, jnp.complex64))
    apart = grappa(undersampled, calibration=full[:, :, 6:22, 5:21], kernel_size=kernel)
    assert nrmse(apart, images) < 2.5 * nrmse(full, images)


def test_filling_is_pure_mapped_over_echoes_and_differentiable():
    shape, acceleration, offset, _, kernel = SCANS["2x2"]
    _, undersampled, full = scan(shape, acceleration, offset, (14, 14))
    weights = jax.jit(lambda c: grappa_weights(c, acceleration, kernel_size=kernel))(full[:, :, 7:21, 6:20])
    fill = lambda k: grappa_fill(k, weights, acceleration, offset, kernel_size=kernel)
    echoes = jnp.stack([jnp.asarray(undersampled), 2j * jnp.asarray(undersampled)])
    both = jax.jit(jax.vmap(fill))(echoes)
    np.testing.assert_allclose(both[1], 2j * both[0], rtol=1e-4, atol=1e-4)
    loss = lambda scale: jnp.sum(jnp.abs(fill(scale * echoes[0])) ** 2)
    np.testing.assert_allclose(jax.grad(loss)(1.0), 2 * loss(1.0), rtol=1e-3)


def test_the_weights_slope_is_that_of_finite_differences():
    shape, acceleration, offset, _, kernel = SCANS["2x2"]
    _, _, full = scan(shape, acceleration, offset, (14, 14))
    rng = np.random.default_rng(0)
    region = full[:, :, 7:21, 6:20]
    along = rng.normal(size=region.shape) + 1j * rng.normal(size=region.shape)
    along = jnp.asarray(0.1 * np.abs(region).max() * along, jnp.complex64)

    @jax.jit
    def loss(t):
        weights = grappa_weights(region + t * along, acceleration, kernel_size=kernel, regularisation=0.1)
        return jnp.sum(jnp.abs(weights) ** 2)

    step = 1e-2
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=2e-2)


def test_what_cannot_be_calibrated_is_refused():
    shape, acceleration, offset, _, _ = SCANS["2x2"]
    _, undersampled, _ = scan(shape, acceleration, offset, (6, 6))
    with pytest.raises(ValueError, match="calibration must hold"):
        grappa(undersampled)
    with pytest.raises(ValueError, match="sampled at its centre"):
        find_sampling(np.zeros((2, 4, 6, 6)))
    with pytest.raises(ValueError, match="coil x y z"):
        find_sampling(np.zeros((4, 6, 6)))
    with pytest.raises(ValueError, match=r"weights\.shape must be"):
        grappa_fill(undersampled, jnp.zeros((4, 3, 2, 2), jnp.complex64), (2, 2), (0, 0))


@pytest.mark.parametrize(
    "option",
    [
        {"kernel_size": (3, 0, 4)},
        {"map_kernel": (4, 4, -1)},
        {"map_threshold": 2.0},
        {"map_threshold": 0.0},
        {"map_threshold": float("nan")},
        {"regularisation": -1.0},
    ],
)
def test_options_out_of_their_range_are_refused(option):
    """Full k-space and all: an option that is not used is none that may be wrong."""
    with pytest.raises(ValueError, match=f"{next(iter(option))} must"):
        reconstruct(np.ones((1, 2, 8, 8, 8), np.complex64), **option)


@pytest.mark.parametrize("kernel", [(3, 4), (3, 4, 4, 4), (3, 4, 0)])
def test_a_kernel_is_three_counts(kernel):
    assert trim_kernel((3, 4, 4), (2, 8, 8, 1)) == (3, 4, 1)
    with pytest.raises(ValueError, match="kernel_size must be three positive counts"):
        trim_kernel(kernel, (2, 8, 8, 8))


def test_what_stands_on_no_lattice_is_refused_and_an_ellipse_is_not():
    shape, centre = (32, 32), (slice(12, 20), slice(12, 20))
    y, z = np.indices(shape)
    sheared = (y % 2 == 0) & ((z + y // 2) % 2 == 0)
    patterns = {"sheared": sheared, "random": RNG.uniform(size=shape) < 0.3, "few": RNG.uniform(size=shape) < 0.02}
    for pattern in patterns.values():
        pattern[centre] = True
        with pytest.raises(ValueError, match=r"on a lattice along y and z .* gaps in steps"):
            find_sampling(np.broadcast_to(pattern, (2, 4, *shape)).astype(np.complex64))
    whole = (y % 2 == 1) & (z % 3 == 0) & ((y - 16) ** 2 + (z - 16) ** 2 < 15**2) & (z > 5)
    whole[centre] = True
    found = find_sampling(np.broadcast_to(whole, (2, 4, *shape)).astype(np.complex64))
    assert found.acceleration == (2, 3) and found.offset == (1, 0)
