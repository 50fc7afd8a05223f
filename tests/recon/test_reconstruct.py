"""The whole reconstruction by a calibration scan measured apart and the coils' noise, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from coil_phantom import COILS, coil_images, complex_normal, middle, scan

from qsmjax.recon.combine import combine, image_to_kspace, kspace_to_image, whiten
from qsmjax.recon.espirit import espirit
from qsmjax.recon.grappa import grappa
from qsmjax.recon.reconstruct import reconstruct

SHAPE = (12, 20, 18)
KERNELS = {"kernel_size": (3, 3, 3), "map_kernel": (4, 4, 4)}


def undersample(kspace, offset):
    made = np.zeros_like(kspace)
    made[..., offset[0] :: 2, offset[1] :: 2] = kspace[..., offset[0] :: 2, offset[1] :: 2]
    return made


def error(found, truth, where):
    return np.linalg.norm((found - truth)[..., where]) / np.linalg.norm(truth[..., where])


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (0, 0)], ids=str)
def test_a_lattice_without_a_centre_is_filled_by_a_calibration_measured_apart(offset):
    """20 // 2 is even, 18 // 2 odd: the lattice holds k = 0, misses it along both axes, or along one."""
    echoes = np.stack([coil_images(SHAPE), coil_images(SHAPE, echo=1.0)])
    full = np.asarray(image_to_kspace(echoes))
    noise = [0.003 * complex_normal(full.shape[1:], seed) for seed in range(3)]
    scanned = undersample(full + np.stack(noise[:2]), offset)
    # of another contrast, shorter along every axis
    calibration = middle(3j * full[0] + noise[2], (10, 16, 14))
    found = np.asarray(reconstruct(scanned, calibration=calibration, **KERNELS))
    truth = np.sqrt(np.sum(np.abs(echoes) ** 2, axis=1))
    inside = truth[0] > 0.3 * truth.max()
    assert error(np.abs(found), truth, inside) < 0.06
    turned = np.angle(found[1] * np.conj(found[0]) * np.conj(echoes[1, 0]) * echoes[0, 0])[inside]
    assert np.sqrt(np.mean(turned**2)) < 0.06


def test_a_calibration_is_taken_before_the_centre():
    _, undersampled, full = scan(SHAPE, (2, 2), (0, 1), (12, 12))
    region = middle(full, (12, 16, 14))
    found = reconstruct(undersampled[None], calibration=region, **KERNELS)[0]
    filled = grappa(undersampled, calibration=region, kernel_size=(3, 3, 3))
    maps = espirit(region, SHAPE, kernel_size=(4, 4, 4)).maps
    np.testing.assert_allclose(found, combine(kspace_to_image(filled), maps), atol=2e-4)
    assert np.abs(found - reconstruct(undersampled[None], **KERNELS)[0]).max() > 1e-3
    # full k-space has its maps from it too
    maps = espirit(0.5 * region[:, ::-1], SHAPE, kernel_size=(4, 4, 4)).maps
    found = reconstruct(full[None], calibration=0.5 * region[:, ::-1], **KERNELS)[0]
    np.testing.assert_allclose(found, combine(kspace_to_image(full), maps), atol=2e-4)


@pytest.mark.parametrize("apart", [False, True])
def test_coils_are_whitened_before_all_else(apart):
    _, undersampled, full = scan(SHAPE, (2, 2), (0, 1), (12, 12))
    mixing = np.eye(COILS) * np.arange(1, COILS + 1) + 0.3 * complex_normal((COILS, COILS))
    noise = (mixing @ complex_normal((COILS, 2000), 1)).astype(np.complex64)
    calibration = middle(full, (12, 16, 14)) if apart else None
    white = None if calibration is None else whiten(calibration, noise)
    found = reconstruct(undersampled[None], calibration=calibration, noise=noise, **KERNELS)
    before = reconstruct(np.asarray(whiten(undersampled[None], noise)), calibration=white, **KERNELS)
    np.testing.assert_allclose(found, before, atol=1e-5 * np.abs(before).max())


def test_a_noisy_coil_counts_less_once_its_noise_is_known():
    """A fully sampled scan, whose every voxel has then the noise of the best combination: one."""
    images = coil_images(SHAPE)
    loud = np.where(np.arange(COILS) < 3, 0.2, 0.004)[:, None, None, None]
    clean = np.asarray(image_to_kspace(images))
    noise = (loud[..., 0, 0] * complex_normal((COILS, 4000), 5)).astype(np.complex64)
    calibration = middle(clean, (12, 14, 14))
    scans = [clean + loud * complex_normal(clean.shape, seed) for seed in range(2)]
    inside = np.abs(images[0]) > 0.1
    ratios = []
    for given in (None, noise):
        how = {"calibration": calibration, "noise": given, **KERNELS}
        first, second = (np.asarray(reconstruct(kspace[None], **how)[0]) for kspace in scans)
        spread = np.std((first - second)[inside]) / np.sqrt(2)
        ratios.append(np.mean(np.abs(first)[inside]) / spread)
    assert ratios[1] > 5 * ratios[0]
    assert spread == pytest.approx(1, rel=0.05)


REGION = np.ones((2, 6, 6, 6), np.complex64)
REFUSED = {
    "real calibration": ({"calibration": np.ones((2, 6, 6, 6))}, "complex with the axes coil x y z"),
    "axes": ({"calibration": REGION[0]}, "of kspace's 2 coils"),
    "other coils": ({"calibration": REGION[:1]}, "of kspace's 2 coils"),
    "longer": ({"calibration": np.ones((2, 6, 9, 6), np.complex64)}, r"within its \(8, 8, 8\)"),
    "a plane of a volume": ({"calibration": REGION[..., :1]}, r"within its \(8, 8, 8\)"),
    "gaps": ({"calibration": REGION * (np.arange(6) % 2)}, "fully sampled, got 18 empty lines along x"),
    "small": ({"calibration": REGION[:, :3]}, "calibration must be at least the kernel's"),
    "shifted": ({"calibration": REGION * (1 + 9 * np.isin(np.arange(6), (0, 5)))}, "calibration must have k = 0 at n"),
    "real noise": ({"noise": np.ones((2, 50))}, "noise must be complex"),
    "sample first": ({"noise": complex_normal((50, 2))}, "kspace's 2 coils first"),
    "few samples": ({"noise": complex_normal((2, 2))}, "more samples than its 2 coils"),
    "silent coil": ({"noise": complex_normal((2, 50)) * [[1], [0]]}, "noise must be each coil's own"),
    "twice one coil": ({"noise": complex_normal((1, 50)) * [[1], [2j]]}, "noise must be each coil's own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_the_scan_is_refused(name):
    given, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refused:
        reconstruct(np.ones((1, 2, 8, 8, 8), np.complex64), **KERNELS, **given)
    assert "\n" not in str(refused.value)


def test_arrays_of_any_kind_are_taken():
    """ArrayLike: of JAX, of double precision, of noise with axes of its own."""
    kspace = complex_normal((1, 2, 8, 8, 8))
    noise = complex_normal((2, 5, 10), 1)
    region = kspace[0, :, 1:7, 1:7, 1:7]
    found = reconstruct(jnp.asarray(kspace), calibration=jnp.asarray(region), noise=noise, **KERNELS)
    other = {"calibration": region, "noise": noise.reshape(2, 50)}
    np.testing.assert_allclose(found, reconstruct(kspace, **other, **KERNELS), atol=1e-5)
