"""The field of cuboids of constant susceptibility at their centres, exact up to their faces.

    field = F⁻¹ (D g) F chi + n * chi,    n = field of one cuboid - that of a Gaussian of its moment,    g = F Gaussian

D cut off at Nyquist is the field of a source that rings between the voxels: beside air it is not harmonic where there
is no source, by more than a brain's own field. A Gaussian has no such tail, and its field outside of it is that of the
cuboid, but for what falls off so fast that n is summed over a few voxels (Ewald's split). Both are known:

    cuboid:    1/3 inside + bᵀ∇∇b U,    U = ∫ 1/(4π|r - r'|) over the cuboid
    Gaussian:  G/3 + bᵀ∇∇b u,           u = erf(r / sqrt(2) sigma) / (4πr)

Fields in ppm of B0, lengths in voxels' units [mm]; host and double precision for n alone.
"""

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Volume
from qsmjax.numerics.kspace import crop_to, fast_shape, frequencies, multiply_k, pad_to, rfft3
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.geometry import Geometry

SIGMA = 1.2
"""Standard deviation of the Gaussian [largest voxel edge]: at Nyquist it leaves 0.1 % of D."""
REACH = 7.0
"""Distance within which n is summed [largest voxel edge]; beyond it a cube has 1e-6 of the field that it has inside."""


def cuboid_field(chi: Float[np.ndarray, "x y z"], geometry: Geometry, *, padding: float = 0.1) -> Volume:
    """Make the field of a map whose voxels are cuboids, at their centres.

    Args:
      chi: susceptibility [ppm], zero where the map ends.
      geometry: its voxel size and B0 direction, not traced.
      padding: zeros added along each axis, as a part of its length.

    References:
      Maxwell's potential of a cuboid: Newell et al., J. Geophys. Res. 98:9551 (1993), doi:10.1029/93JB00694.
      Ewald, Ann. Phys. 369:253 (1921), doi:10.1002/andp.19213690304.
    """
    size, b0_dir = (np.asarray(a, np.float64) for a in (geometry.voxel_size, geometry.b0_dir))
    margin = [max(round(n * padding), int(np.ceil(REACH * size.max() / d))) for n, d in zip(geometry.shape, size)]
    shape = fast_shape(geometry.shape, (margin[0], margin[1], margin[2]))
    sigma = SIGMA * float(size.max())
    squared = sum(k**2 for k in frequencies(shape, size))
    smooth = dipole_kernel(shape, size, b0_dir) * jnp.exp(-2 * jnp.pi**2 * sigma**2 * squared)
    kernel = smooth + rfft3(_near(shape, size, b0_dir, sigma)).real
    return crop_to(multiply_k(pad_to(chi, shape), kernel), geometry.shape)


def _near(shape: tuple[int, ...], size: np.ndarray, b0_dir: np.ndarray, sigma: float) -> Float[Array, "x y z"]:
    """Lay n on the periodic grid, the cuboid at index 0."""
    reach = REACH * size.max()
    steps = [np.arange(-int(reach / d), int(reach / d) + 1) for d in size]
    places = np.stack(np.meshgrid(*[s * d for s, d in zip(steps, size)], indexing="ij"), -1)
    apart = np.linalg.norm(places, axis=-1)
    difference = cuboid(places, size, b0_dir) - np.prod(size) * gaussian(places, sigma, b0_dir)
    at = np.ix_(*[s % n for s, n in zip(steps, shape)])
    return jnp.zeros(shape).at[at].set(np.where(apart <= reach, difference, 0).astype(np.float32))


def cuboid(places: np.ndarray, size: np.ndarray, b0_dir: np.ndarray) -> np.ndarray:
    """Return the field of a cuboid of chi = 1 around the origin, at places off its faces."""
    total = np.zeros(places.shape[:-1])
    for signs in np.ndindex(2, 2, 2):
        side = 1 - 2 * np.asarray(signs)
        x, y, z = np.moveaxis(places - side * size / 2, -1, 0)
        r = np.sqrt(x**2 + y**2 + z**2)
        (bx, by, bz), sign = b0_dir, side.prod()
        total += sign * (
            bx**2 * np.arctan(y * z / (x * r)) + by**2 * np.arctan(x * z / (y * r)) + bz**2 * np.arctan(x * y / (z * r))
        )
        total -= 2 * sign * (bx * by * np.log(z + r) + bx * bz * np.log(y + r) + by * bz * np.log(x + r))
    inside = np.all(np.abs(places) < size / 2, axis=-1)
    return inside / 3 + total / (4 * np.pi)


def gaussian(places: np.ndarray, sigma: float, b0_dir: np.ndarray) -> np.ndarray:
    """Return the field of a Gaussian source of unit moment around the origin."""
    squared = np.sum(places**2, axis=-1)
    off = squared > 0
    # at the centre the field vanishes, as inside a sphere
    r = np.sqrt(np.where(off, squared, 1))
    density = np.exp(-(r**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    first = sigma**2 * density / r - scipy.special.erf(r / (np.sqrt(2) * sigma)) / (4 * np.pi * r**2)
    along = (places @ b0_dir / r) ** 2
    field = density / 3 + (-density - 2 * first / r) * along + first / r * (1 - along)
    return np.where(off, field, 0)
