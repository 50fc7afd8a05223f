"""Closed forms: the field divided by the dipole in k-space, with the cone where D = 0 dealt with in one way each.

    X = inverse(D) F

The field outside the mask is taken as zero, which it is not: these are the fast methods, not the good ones.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.method import method
from qsmjax.inversion.solution import Solution
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import laplacian_k
from qsmjax.physics.geometry import Geometry


def solve_tkd(field: Volume, mask: Mask, geometry: Geometry, *, threshold: ArrayLike = 0.15) -> Solution:
    """Divide by the dipole in k-space, its magnitude held above a threshold (TKD).

        X = F / D where |D| > threshold,    X = sign(D) F / threshold elsewhere

    Args:
      threshold: smallest |D| that is divided by, between 0 and 2/3.

    References:
      Shmueli et al., Magn. Reson. Med. 62:1510 (2009), doi:10.1002/mrm.22135.
    """
    dipole = inversion_kernel(geometry)
    inverse = jnp.where(dipole < 0, -1, 1) / jnp.maximum(jnp.abs(dipole), threshold)
    # D(0) = 0: the mean of chi makes no field and is not to be had from it
    return _divide(field, mask, inverse.at[0, 0, 0].set(0))


def solve_tsvd(field: Volume, mask: Mask, geometry: Geometry, *, threshold: ArrayLike = 0.1) -> Solution:
    """Divide by the dipole in k-space, and give up what lies below a threshold (truncated singular values).

        X = F / D where |D| > threshold,    X = 0 elsewhere

    Args:
      threshold: smallest |D| that is divided by, between 0 and 2/3.

    References:
      Wharton, Schäfer & Bowtell, Magn. Reson. Med. 63:1292 (2010), doi:10.1002/mrm.22334.
    """
    dipole = inversion_kernel(geometry)
    kept = jnp.abs(dipole) > threshold
    return _divide(field, mask, jnp.where(kept, 1 / jnp.where(kept, dipole, 1), 0))


def solve_tikhonov(
    field: Volume, mask: Mask, geometry: Geometry, *, weight: ArrayLike = 0.01, regulariser: str = "identity"
) -> Solution:
    """Minimise ½|D chi - field|² + ½ weight |R chi|² in closed form, R the identity or the gradient (Tikhonov).

        X = D F / (D² + weight R²)

    Args:
      weight: of the regulariser; [mm²] for the gradient.
      regulariser: "identity" or "gradient".

    References:
      Bilgic et al., J. Magn. Reson. Imaging 40:181 (2014), doi:10.1002/jmri.24365.
      Kressler et al., IEEE Trans. Med. Imaging 29:273 (2010), doi:10.1109/TMI.2009.2023787.
    """
    if regulariser not in ("identity", "gradient"):
        raise ValueError(f"regulariser must be identity or gradient, got {regulariser!r}")
    dipole = inversion_kernel(geometry)
    penalty = 1 if regulariser == "identity" else laplacian_k(geometry.shape, geometry.voxel_size)
    denominator = dipole**2 + weight * penalty
    # at k = 0 the gradient and the dipole both vanish
    inverse = jnp.where(denominator > 0, dipole / jnp.where(denominator > 0, denominator, 1), 0)
    return _divide(field, mask, inverse)


tkd, tsvd, tikhonov = method(solve_tkd), method(solve_tsvd), method(solve_tikhonov)


def _divide(field: Volume, mask: Mask, inverse: Kernel) -> Solution:
    chi = multiply_k(jnp.where(mask, field, 0), inverse)
    return Solution(chi=jnp.where(mask, chi, 0))
