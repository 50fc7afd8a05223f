"""A ball that six coils about x see, and its k-space."""

import numpy as np

from qsmjax.recon.combine import image_to_kspace, kspace_to_image

COILS = 6


def coil_images(shape, echo=0.0):
    """What the coils see; `echo` turns the ball's phase."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape], indexing="ij")
    ball = (x / 0.9) ** 2 + (y / 0.8) ** 2 + (z / 0.85) ** 2 < 1
    image = ball * (1 + 0.5 * np.sin(6 * y) * np.cos(5 * z)) * np.exp(1j * (2 * y + z**2 + echo * x))
    angles = 2 * np.pi * np.arange(COILS) / COILS
    far = [np.exp(-0.7 * ((y - 1.2 * np.cos(a)) ** 2 + (z - 1.2 * np.sin(a)) ** 2) + 1j * (a + y + x)) for a in angles]
    return np.stack(far) * image


def scan(shape, acceleration, offset, block, noise=0.005, seed=0):
    """Return the clean coil images, and k-space with noise: where it is sampled, and everywhere."""
    images = coil_images(shape)
    kspace = np.asarray(image_to_kspace(images)) + noise * complex_normal((COILS, *shape), seed)
    sampled = np.zeros(shape[1:], bool)
    sampled[offset[0] :: acceleration[0], offset[1] :: acceleration[1]] = True
    sampled[tuple(slice(n // 2 - b // 2, n // 2 - b // 2 + b) for n, b in zip(shape[1:], block))] = True
    return images, (kspace * sampled).astype(np.complex64), kspace.astype(np.complex64)


def complex_normal(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def middle(kspace, size):
    """Cut the middle out of coil x y z."""
    return kspace[(slice(None), *(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(kspace.shape[1:], size)))]


def nrmse(kspace, images):
    return np.linalg.norm(np.asarray(kspace_to_image(kspace)) - images) / np.linalg.norm(images)
