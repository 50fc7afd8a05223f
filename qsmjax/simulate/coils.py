"""The receive coils of a scanner, and the k-space that they see: undersampled, with a full centre, noisy.

    S_c(k) = F(s_c image)(k) + noise   on a lattice over y and z and in its middle, zero elsewhere

A coil is a small loop that faces the middle of the head: s = B_x - i B_y of a magnetic dipole, softened by the loop's
radius. k-space is (echo, coil, x, y, z), k = 0 at n // 2, x the readout.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Key

from qsmjax.numerics.arrays import Shape
from qsmjax.physics.geometry import Geometry
from qsmjax.recon.combine import image_to_kspace

DISTANCE = 1.3
"""Of the coils from the middle, in halves of the grid's edges across B0."""
LOOP = 0.5
"""A loop's radius, in the same measure."""


def coil_sensitivities(geometry: Geometry, coils: int = 8) -> Complex[np.ndarray, "coil x y z"]:
    """Return the sensitivities of two rings of loops about the third axis, their root sum of squares one in the middle.

    Args:
      geometry: the grid.
      coils: their number, half of them in each ring.
    """
    half = np.asarray(geometry.shape) * np.asarray(geometry.voxel_size) / 2
    axes = [(np.arange(n) - n // 2) * d for n, d in zip(geometry.shape, np.asarray(geometry.voxel_size))]
    maps = []
    for number in range(coils):
        # the rings are turned against each other by half a step
        angle = 2 * np.pi * (number // 2 + (number % 2) / 2) / max(1, (coils + 1) // 2)
        place = half * (DISTANCE * np.cos(angle), DISTANCE * np.sin(angle), 0.6 * (-1) ** number)
        moment = -place / np.linalg.norm(place)
        off = [a.reshape(s) - p for a, s, p in zip(axes, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), place)]
        squared = sum(o**2 for o in off) + (LOOP * half[:2].mean()) ** 2
        along = 3 * sum(m * o for m, o in zip(moment, off)) / squared
        bx, by = ((along * o - m) / squared**1.5 for o, m in zip(off[:2], moment[:2]))
        maps.append(bx - 1j * by)
    stacked = np.stack(maps)
    x, y, z = (n // 2 for n in geometry.shape)
    return (stacked / np.linalg.norm(stacked[:, x, y, z])).astype(np.complex64)


def sampling_pattern(
    shape: Shape, acceleration: tuple[int, int] = (2, 2), calibration: int = 24
) -> Bool[np.ndarray, "y z"]:
    """Return which lines along x are sampled: a lattice through k = 0, and a full middle."""
    y, z = (np.arange(n) - n // 2 for n in shape[1:])
    lattice = (y % acceleration[0] == 0)[:, None] & (z % acceleration[1] == 0)
    middle = lambda k: (k >= -(calibration // 2)) & (k < calibration // 2)
    return lattice | (middle(y)[:, None] & middle(z))


def multicoil_kspace(
    key: Key[Array, ""],
    echoes: ArrayLike,
    geometry: Geometry,
    *,
    sigma: float,
    coils: int = 8,
    acceleration: Sequence[int] = (2, 2),
    calibration: int = 24,
) -> Complex[np.ndarray, "echo coil x y z"]:
    """Measure images by several coils, undersampled.

    Args:
      key: of the noise.
      echoes: images without noise, complex, echo x y z.
      geometry: their grid.
      sigma: of the noise: standard deviation of the real and of the imaginary part of each coil's samples.
      coils: their number.
      acceleration: steps of the lattice along y and z.
      calibration: lines of the full middle along y and along z.
    """
    maps = jnp.asarray(coil_sensitivities(geometry, coils))
    sampled = sampling_pattern(geometry.shape, (acceleration[0], acceleration[1]), calibration)
    measure = jax.jit(lambda image, noise: (image_to_kspace(maps * image) + noise) * sampled)
    made = []
    for number, image in enumerate(np.asarray(echoes)):
        parts = jax.random.normal(jax.random.fold_in(key, number), (2, coils, *geometry.shape), jnp.float32) * sigma
        made.append(np.asarray(measure(image, parts[0] + 1j * parts[1]), np.complex64))
    return np.stack(made)
