"""The field of cuboids of constant susceptibility at the centres of voxels, exact up to their faces.

    near:  1/3 inside + bᵀ∇∇b U,    U = ∫ 1/(4π|r - r'|) over the cuboid
    far:   V (3 cos² - 1) / (4π r³)

`physics.dipole` is the field of sources within the band that a grid holds, and right for tissue, which is measured
in that band. Air and bone are not: cut off at Nyquist, D is the field of a source that rings between the voxels. Beside
air it is not harmonic where there is no source, by more than a brain's own field. Sampled in space the kernel does
not ring.
"""

from itertools import product

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Kernel, Shape, VectorLike, Volume
from qsmjax.numerics.kspace import crop_to, fast_shape, multiply_k, pad_to, rfft3
from qsmjax.physics.geometry import Geometry

NEAR = 7
"""Voxels along each axis up to which a cuboid is told from a dipole at its centre."""


def cuboid_field(chi: ArrayLike, geometry: Geometry, *, padding: float = 0.1) -> Volume:
    """Make the field of a map whose voxels are cuboids, at their centres.

    Args:
      chi: susceptibility [ppm], zero where the map ends.
      geometry: of the map.
      padding: zeros added along each axis, as a part of its length.
    """
    x, y, z = (max(round(n * padding), NEAR) for n in geometry.shape)
    shape = fast_shape(geometry.shape, (x, y, z))
    kernel = cuboid_kernel(shape, geometry.voxel_size, geometry.b0_dir)
    return crop_to(multiply_k(pad_to(chi, shape), kernel), geometry.shape)


def cuboid_kernel(shape: Shape, voxel_size: VectorLike, b0_dir: VectorLike) -> Kernel:
    """Return the kernel from susceptibility to field [ppm to ppm] of voxels that are cuboids, in half of k-space.

    Of the images that a periodic grid brings with it, only the nearest counts.

    Args:
      shape: of the volume.
      voxel_size: [mm].
      b0_dir: direction of B0 in voxel axes, of length one.
    """
    size, b0_dir = jnp.asarray(voxel_size, jnp.float32), jnp.asarray(b0_dir, jnp.float32)
    index = [jnp.fft.fftfreq(n, 1 / n) for n in shape]
    x, y, z = index[0][:, None, None] * size[0], index[1][:, None] * size[1], index[2] * size[2]
    squared = x**2 + y**2 + z**2
    squared = jnp.where(squared > 0, squared, 1)
    along = (x * b0_dir[0] + y * b0_dir[1] + z * b0_dir[2]) ** 2
    far = jnp.prod(size) * (3 * along / squared - 1) / (4 * jnp.pi * squared**1.5)
    steps = [jnp.arange(-min(NEAR, (n - 1) // 2), min(NEAR, (n - 1) // 2) + 1) for n in shape]
    places = jnp.stack(jnp.meshgrid(*[step * d for step, d in zip(steps, size)], indexing="ij"), -1)
    at = jnp.ix_(*[step % n for step, n in zip(steps, shape)])
    # the real part: on the planes of Nyquist an oblique B0 leaves a field that has no mirror image
    return rfft3(far.at[at].set(cuboid(places, size, b0_dir))).real


def cuboid(places: Float[Array, "*n 3"], size: VectorLike, b0_dir: VectorLike) -> Float[Array, "*n"]:
    """Return the field of a cuboid of chi = 1 around the origin, at places off its faces and edges' lines.

    References:
      Newell et al., J. Geophys. Res. 98:9551 (1993), doi:10.1029/93JB00694 (Maxwell's potential of a cuboid).
    """
    half, (bx, by, bz) = jnp.asarray(size) / 2, jnp.asarray(b0_dir)
    total = jnp.zeros(places.shape[:-1])
    for signs in product((1, -1), repeat=3):
        x, y, z = jnp.moveaxis(places - jnp.asarray(signs) * half, -1, 0)
        r = jnp.sqrt(x**2 + y**2 + z**2)
        # log(z + r) but for what cancels over the corners, and exact in float32
        slope = lambda a, b, c: jnp.arcsinh(a / jnp.sqrt(b**2 + c**2))
        corner = bx**2 * jnp.arctan(y * z / (x * r)) + by**2 * jnp.arctan(x * z / (y * r))
        corner += bz**2 * jnp.arctan(x * y / (z * r))
        corner -= 2 * (bx * by * slope(z, x, y) + bx * bz * slope(y, x, z) + by * bz * slope(x, y, z))
        total += signs[0] * signs[1] * signs[2] * corner
    inside = jnp.all(jnp.abs(places) < half, axis=-1)
    return inside / 3 + total / (4 * jnp.pi)
