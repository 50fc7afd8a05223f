"""The gradient echo: from field, magnitude and relaxation to complex images.

    s(TE) = m0 exp(-R2* TE) exp(i (phase₀ + 2π gamma B0 · 1e-6 · field · TE))

R2* is what dephasing within a voxel does not explain: simulate finer than the voxels, then cut to their band.
"""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex

from qsmjax.numerics.arrays import as_volume, check_grid
from qsmjax.physics.units import radians_per_ppm


def gradient_echo(
    field: ArrayLike, m0: ArrayLike, r2s: ArrayLike, *, te: ArrayLike, b0: ArrayLike, phase0: ArrayLike = 0.0
) -> Complex[Array, "x y z"]:
    """Make the complex image of one echo.

    Args:
      field: total field [ppm of B0].
      m0: signal at TE = 0.
      r2s: R2* [1/s].
      te: echo time [s]; may be traced.
      b0: field strength [T]; may be traced.
      phase0: phase at TE = 0 [rad], of the coils.

    Raises:
      ValueError: if the volumes differ in their grid.
    """
    field = as_volume("field", field)
    m0, r2s = as_volume("m0", m0), as_volume("r2s", r2s)
    check_grid("m0", m0, field.shape)
    check_grid("r2s", r2s, field.shape)
    phase = radians_per_ppm(b0, te) * field + jnp.asarray(phase0)
    return m0 * jnp.exp(-r2s * jnp.asarray(te)) * jnp.exp(1j * phase)


def r2s_at(r2s: ArrayLike, b0: ArrayLike) -> Array:
    """Bring R2* at 3 T to another field strength: a part of it does not depend on B0, the rest is linear in it.

    r2s · (0.4 + 0.6 B0 / 3 T), roughly as T2* was measured to fall from 1.5 to 7 T.

    Args:
      r2s: at 3 T [1/s].
      b0: [T].

    References:
      Peters et al., Magn. Reson. Imaging 25:748 (2007), doi:10.1016/j.mri.2007.02.014.
    """
    return jnp.asarray(r2s) * (0.4 + 0.2 * jnp.asarray(b0))
