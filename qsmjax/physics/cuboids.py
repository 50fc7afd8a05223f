"""The field of cuboids of constant susceptibility at the centres of voxels, exact up to their faces.

    field = F⁻¹ (D g) F chi + n * chi,    n = field of one cuboid - that of a Gaussian of its moment,    g = F Gaussian

`physics.dipole` is the field of sources within the band that a grid holds, and right for tissue, which is measured
in that band. Air and bone are not: cut off at Nyquist, D is the field of a source that rings between the voxels. Beside
air it is not harmonic where there is no source, by more than a brain's own field. A Gaussian has no such tail, and its
field outside of it is that of the cuboid, but for what falls off so fast that n is summed over a few voxels (Ewald's
split). Both are known:

    cuboid:    1/3 inside + bᵀ∇∇b U,    U = ∫ 1/(4π|r - r'|) over the cuboid
    Gaussian:  G/3 + bᵀ∇∇b u,           u = erf(r / sqrt(2) sigma) / (4πr)
"""

from itertools import product

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Kernel, Shape, VectorLike, Volume, as_vector
from qsmjax.numerics.kspace import crop_to, fast_shape, frequencies, multiply_k, pad_to, rfft3
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.geometry import Geometry

SIGMA = 1.2
"""Standard deviation of the Gaussian [largest voxel edge]: at Nyquist it leaves 0.1 % of D."""
NEAR = 24
"""Voxels along each axis within which n is summed: three of the Gaussian's deviations where edges differ sixfold."""


def cuboid_field(chi: ArrayLike, geometry: Geometry, *, padding: float = 0.1) -> Volume:
    """Make the field of a map whose voxels are cuboids, at their centres.

    Args:
      chi: susceptibility [ppm], zero where the map ends.
      geometry: of the map.
      padding: zeros added along each axis, as a part of its length.
    """
    x, y, z = (max(round(n * padding), NEAR // 2) for n in geometry.shape)
    shape = fast_shape(geometry.shape, (x, y, z))
    kernel = cuboid_kernel(shape, geometry.voxel_size, geometry.b0_dir)
    return crop_to(multiply_k(pad_to(chi, shape), kernel), geometry.shape)


def cuboid_kernel(shape: Shape, voxel_size: VectorLike, b0_dir: VectorLike) -> Kernel:
    """Return the kernel from susceptibility to field [ppm to ppm] of voxels that are cuboids, in half of k-space.

    Args:
      shape: of the volume.
      voxel_size: [mm].
      b0_dir: direction of B0 in voxel axes, of any length but zero.

    References:
      Ewald, Ann. Phys. 369:253 (1921), doi:10.1002/andp.19213690304.
    """
    size, b0_dir = as_vector("voxel_size", voxel_size), as_vector("b0_dir", b0_dir)
    b0_dir = b0_dir / jnp.linalg.norm(b0_dir)
    sigma = SIGMA * jnp.max(size)
    squared = sum(k**2 for k in frequencies(shape, size))
    smooth = dipole_kernel(shape, size, b0_dir) * jnp.exp(-2 * jnp.pi**2 * sigma**2 * squared)
    reach = [min(NEAR, (n - 1) // 2) for n in shape]
    steps = [jnp.arange(-far, far + 1, dtype=jnp.int32) for far in reach]
    places = jnp.stack(jnp.meshgrid(*[step * d for step, d in zip(steps, size)], indexing="ij"), -1)
    near = cuboid(places, size, b0_dir) - jnp.prod(size) * gaussian(places, sigma, b0_dir)
    at = jnp.ix_(*[step % n for step, n in zip(steps, shape)])
    return smooth + rfft3(jnp.zeros(shape, jnp.float32).at[at].set(near)).real


def cuboid(places: Float[Array, "*n 3"], size: VectorLike, b0_dir: VectorLike) -> Float[Array, "*n"]:
    """Return the field of a cuboid of chi = 1 around the origin, at places off its faces and edges' lines.

    References:
      Newell et al., J. Geophys. Res. 98:9551 (1993), doi:10.1029/93JB00694 (Maxwell's potential of a cuboid).
    """
    half, (bx, by, bz) = as_vector("size", size) / 2, as_vector("b0_dir", b0_dir)
    total = jnp.zeros(places.shape[:-1], jnp.float32)
    for signs in product((1, -1), repeat=3):
        x, y, z = jnp.moveaxis(places - jnp.asarray(signs, jnp.float32) * half, -1, 0)
        r = jnp.sqrt(x**2 + y**2 + z**2)
        # log(z + r) but for what cancels over the corners, and exact in float32
        slope = lambda a, b, c: jnp.arcsinh(a / jnp.sqrt(b**2 + c**2))
        corner = bx**2 * jnp.arctan(y * z / (x * r)) + by**2 * jnp.arctan(x * z / (y * r))
        corner += bz**2 * jnp.arctan(x * y / (z * r))
        corner -= 2 * (bx * by * slope(z, x, y) + bx * bz * slope(y, x, z) + by * bz * slope(x, y, z))
        total += signs[0] * signs[1] * signs[2] * corner
    inside = jnp.all(jnp.abs(places) < half, axis=-1)
    return inside / 3 + total / (4 * jnp.pi)


def gaussian(places: Float[Array, "*n 3"], sigma: ArrayLike, b0_dir: VectorLike) -> Float[Array, "*n"]:
    """Return the field of a Gaussian source of unit moment around the origin."""
    squared = jnp.sum(places**2, axis=-1)
    off = squared > 0
    # at the centre the field vanishes, as inside a sphere
    r = jnp.sqrt(jnp.where(off, squared, 1))
    density = jnp.exp(-(r**2) / (2 * sigma**2)) / ((2 * jnp.pi) ** 1.5 * sigma**3)
    first = sigma**2 * density / r - jax.scipy.special.erf(r / (2**0.5 * sigma)) / (4 * jnp.pi * r**2)
    along = (jnp.matmul(places, jnp.asarray(b0_dir), precision=jax.lax.Precision.HIGHEST) / r) ** 2
    field = density / 3 + (-density - 2 * first / r) * along + first / r * (1 - along)
    return jnp.where(off, field, 0)
