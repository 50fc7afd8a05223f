"""ESPIRiT finds the coils' sensitivities, as sigpy does, and the combination with them is the least noisy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qsmjax.recon.combine import combine, image_to_kspace, kspace_to_image, root_sum_of_squares, whiten
from qsmjax.recon.espirit import espirit

COILS, WIDTH = 5, 20
RNG = np.random.default_rng(0)


def phantom(shape):
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    ball = x**2 + y**2 + z**2 < 0.6
    image = ball * (1 + 0.4 * np.sin(5 * y)) * np.exp(1j * (x + y**2))
    angles = 2 * np.pi * np.arange(COILS) / COILS
    maps = np.stack([np.exp(-((x - np.cos(a)) ** 2) - (y - np.sin(a)) ** 2 + 1j * (a + x * y + z)) for a in angles])
    maps = maps / np.linalg.norm(maps, axis=0)
    kspace = np.asarray(image_to_kspace(maps * image))
    kspace = kspace + 1e-3 * (RNG.normal(size=kspace.shape) + 1j * RNG.normal(size=kspace.shape))
    return ball, image, maps, kspace.astype(np.complex64)


def centre(kspace):
    return kspace[(slice(None), *(slice(max(0, n // 2 - WIDTH // 2), n // 2 + WIDTH // 2) for n in kspace.shape[1:]))]


def differ(a, b, where):
    """The largest distance of unit vectors over coils, up to one phase a voxel."""
    turn = np.sum(np.conj(a) * b, axis=0)
    return np.linalg.norm(a * np.exp(1j * np.angle(turn)) - b, axis=0)[where]


def test_maps_agree_with_the_coils_and_with_sigpy():
    app = pytest.importorskip("sigpy.mri.app")
    shape = (36, 32, 1)
    ball, _, maps, kspace = phantom(shape)
    found = espirit(centre(kspace), shape)
    theirs = app.EspiritCalib(kspace[..., 0], calib_width=WIDTH, kernel_width=6, crop=0, show_pbar=False).run()
    assert np.quantile(differ(np.asarray(found.maps), theirs[..., None], ball), 0.99) < 1e-2
    assert np.quantile(differ(np.asarray(found.maps), maps, ball), 0.95) < 2e-2
    np.testing.assert_allclose(found.eigenvalue[ball], 1, atol=0.02)
    assert found.weight[ball].min() > 0.9 and np.mean(found.weight[:3]) < 0.5


def test_a_volumes_maps_are_those_of_sigpy_once_their_first_coil_is_real():
    app = pytest.importorskip("sigpy.mri.app")
    shape = (20, 18, 16)
    ball, _, maps, kspace = phantom(shape)
    found = np.asarray(espirit(kspace[:, 3:17, 2:16, 1:15], shape, kernel_size=(4, 4, 4)).maps)
    theirs = app.EspiritCalib(kspace, calib_width=14, kernel_width=4, crop=0, show_pbar=False).run()
    turned = found * np.exp(-1j * np.angle(found[0]))
    assert np.linalg.norm(turned - theirs, axis=0)[ball].max() < 1e-2
    assert np.quantile(differ(found, maps, ball), 0.95) < 2e-2


def test_three_dimensions_and_small_kernels():
    shape = (14, 15, 12)
    ball, image, maps, kspace = phantom(shape)
    found = jax.jit(lambda c: espirit(c, shape, kernel_size=(4, 4, 3)))(centre(kspace))
    assert np.quantile(differ(np.asarray(found.maps), maps, ball), 0.95) < 0.05
    combined = np.asarray(combine(kspace_to_image(kspace), found.maps, found.weight))
    np.testing.assert_allclose(np.abs(combined)[ball], np.abs(image)[ball], rtol=0.05)


def test_the_combination_keeps_what_echoes_say_of_the_field():
    _, image, maps, _ = phantom((10, 9, 8))
    turned = np.stack([image, image * np.exp(0.7j)])[:, None] * maps
    combined = np.asarray(combine(turned, maps))
    np.testing.assert_allclose(combined[0], image, atol=1e-5)
    np.testing.assert_allclose(combined[1], combined[0] * np.exp(0.7j), atol=1e-5)
    np.testing.assert_allclose(root_sum_of_squares(turned)[0], np.abs(image), atol=1e-5)


def test_whitened_coils_have_white_noise_of_unit_variance():
    mixing = np.eye(COILS) + 0.4 * RNG.normal(size=(COILS, COILS))
    noise = mixing @ (RNG.normal(size=(COILS, 4000)) + 1j * RNG.normal(size=(COILS, 4000)))
    white = np.asarray(whiten(noise.reshape(COILS, 20, 20, 10), noise)).reshape(COILS, -1)
    np.testing.assert_allclose(white @ white.conj().T / 4000, np.eye(COILS), atol=1e-3)


def test_transforms_are_unitary_and_inverse():
    image = jnp.asarray(RNG.normal(size=(2, 7, 6, 5)) + 1j, jnp.complex64)
    kspace = image_to_kspace(image)
    np.testing.assert_allclose(kspace_to_image(kspace), image, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(kspace), jnp.linalg.norm(image), rtol=1e-5)
    assert abs(image_to_kspace(np.ones((7, 6, 5)))[3, 3, 2]) == pytest.approx(np.sqrt(210), rel=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least the kernel"):
        espirit(np.ones((2, 4, 4, 4), np.complex64), (8, 8, 8))
    with pytest.raises(ValueError, match="coil x y z"):
        espirit(np.ones((4, 8, 8), np.complex64), (8, 8, 1))
    with pytest.raises(ValueError, match=r"images\.shape must end"):
        combine(np.ones((2, 4, 4, 4)), np.ones((3, 4, 4, 4)))
    with pytest.raises(ValueError, match="more samples"):
        whiten(np.ones((2, 4, 4, 4)), np.ones((2, 2)))
