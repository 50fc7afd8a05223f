"""The unit dipole: from a susceptibility map to the field it makes, and back by the adjoint.

    D(k) = 1/3 - (k · b)² / |k|²,    D(0) = 0
    field = F⁻¹ D F chi

Volumes are (..., x, y, z) in NIfTI array order, chi and field in ppm of B0. b is the direction of B0 in voxel axes.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.numerics.arrays import Kernel, Shape, VectorLike, Volume, as_vector, as_volume, check_grid
from qsmjax.numerics.kspace import crop_to, fast_shape, frequencies, multiply_k, pad_to
from qsmjax.physics.geometry import Geometry


def dipole_kernel(shape: Shape, voxel_size: VectorLike, b0_dir: VectorLike, *, flip_symmetric: bool = False) -> Kernel:
    """Sample the dipole kernel on the half spectrum that `jnp.fft.rfftn` returns.

    On the Nyquist planes of an even axis k and -k share one sample, but an oblique B0 gives them different values. The
    mean of the two is taken, so that the half spectrum and the full one describe the same real convolution. Where two
    planes meet, the sample stands for four points, of which that mean takes two. The mean of all four makes the kernel
    of a flipped grid the flipped kernel, which an inversion needs, since it divides by what is small there.

    Args:
      shape: voxels along x, y, z.
      voxel_size: edges of a voxel [mm]; may be traced.
      b0_dir: direction of B0 in voxel axes, of any length but zero; may be traced.
      flip_symmetric: take the mean of all points that a sample stands for, so that flips keep it.

    Returns:
      D on the half spectrum, within [-2/3, 1/3].

    References:
      Salomir et al., Concepts Magn. Reson. B 19B:26 (2003), doi:10.1002/cmr.b.10083.
      Marques & Bowtell, Concepts Magn. Reson. B 25B:65 (2005), doi:10.1002/cmr.b.20034.
    """
    direction = as_vector("b0_dir", b0_dir)
    direction = direction / jnp.linalg.norm(direction)
    k = frequencies(shape, voxel_size)
    parts = [a * b for a, b in zip(k, direction)]
    # the mean over ±k at Nyquist leaves no product of a component there with one elsewhere
    at_nyquist = [jnp.arange(a.size).reshape(a.shape) == n / 2 for a, n in zip(k, shape)]
    inner = sum(jnp.where(at, 0, part) for at, part in zip(at_nyquist, parts))
    outer = [jnp.where(at, part, 0) for at, part in zip(at_nyquist, parts)]
    along_squared = inner**2 + (sum(part**2 for part in outer) if flip_symmetric else sum(outer) ** 2)
    squared = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    # a safe denominator inside as well: `where` alone still sends NaN through the gradient
    return jnp.where(squared > 0, 1 / 3 - along_squared / jnp.where(squared > 0, squared, 1), 0)


def dipole_convolve(chi: ArrayLike, kernel: ArrayLike) -> Volume:
    """Convolve chi with the dipole; the operator is its own adjoint.

    The convolution is periodic: pad chi where what leaves one side must not come back on the other.

    Args:
      chi: susceptibility [ppm].
      kernel: `dipole_kernel` of the same shape.

    Returns:
      The field [ppm of B0], shaped like chi.

    Raises:
      ValueError: if the kernel was made for another shape.
    """
    return multiply_k(as_volume("chi", chi), jnp.asarray(kernel))


def forward_field(chi: ArrayLike, geometry: Geometry, *, padding: float = 0.5) -> Volume:
    """Make the field of a susceptibility map in free space.

    The map is centred in a larger grid of zeros, whose size is fast to transform, so that its periodic images are far
    off.

    Args:
      chi: susceptibility [ppm], on the geometry's grid.
      geometry: its voxel size and B0 direction.
      padding: zeros added along each axis, as a part of its length; 0 for the periodic field, 1 for none of the
        images'.

    Returns:
      The field [ppm of B0], shaped like chi.

    Raises:
      ValueError: if chi is not on the grid, or the padding is negative.
    """
    chi = as_volume("chi", chi)
    check_grid("chi", chi, geometry.shape)
    if padding < 0:
        raise ValueError(f"padding must not be negative, got {padding}")
    x, y, z = (round(n * padding) for n in geometry.shape)
    shape = fast_shape(geometry.shape, (x, y, z)) if padding else geometry.shape
    kernel = dipole_kernel(shape, geometry.voxel_size, geometry.b0_dir)
    return crop_to(dipole_convolve(pad_to(chi, shape), kernel), geometry.shape)
