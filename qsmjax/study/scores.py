"""A map against a reference: every figure of merit, the streaks, the regions.

Maps and references have their mean over the mask taken off, so that none is judged by its own zero. `nrmse`, `psnr`,
`hfen` and `ssim` are then the QSMnet paper's (the 2016 challenge's: peak and SSIM's scaling from both maps' range,
Laplacian of Gaussian of 1.5 voxels), the rest the 2.0 challenge's and QSM-CI's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.evaluation.metrics import Labels, scores
from qsmjax.evaluation.moments import slope
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.geometry import Geometry
from qsmjax.study.scans import DEEP_GREY, REGIONS

CONE = 0.1
"""|D| below which a field says next to nothing of chi: what is wrong there shows as streaks."""

NUMBERS = {name: number for number, name in enumerate(REGIONS, 1)}
LABELS = Labels(
    deep_grey=tuple(NUMBERS[name] for name in DEEP_GREY),
    tissue=tuple(NUMBERS[name] for name in ("thalamus", "white matter", "grey matter")),
    blood=-1,
    calcification=-1,
)
"""Regions as the metrics know them; veins and calcifications are no regions of a study."""


def judge(
    chi: ArrayLike, reference: ArrayLike, mask: ArrayLike, geometry: Geometry, regions: ArrayLike | None = None
) -> dict[str, float]:
    """Compute every figure of merit; those that are not defined (no such region) are left out.

    Args:
      chi: the map to judge [ppm].
      reference: [ppm].
      mask: where both are known.
      geometry: of the scan, for the cone of its B0.
      regions: as `number_regions` gives them.
    """
    chi, reference, mask = (jnp.asarray(a) for a in (chi, reference, mask))
    found = _judge(chi, reference, mask, geometry, None if regions is None else jnp.asarray(regions))
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


@jax.jit
def _judge(chi: Volume, reference: Volume, mask: Mask, geometry: Geometry, regions: Array | None) -> dict[str, Array]:
    found = scores(chi, reference, mask, regions, numbers=LABELS)
    return found | {"slope": slope(reference, chi, mask), "streaks": streaks(chi, reference, mask, geometry)}


def streaks(chi: Volume, reference: Volume, mask: Mask, geometry: Geometry) -> Float[Array, ""]:
    """Return the norm of what is wrong in the cone |D| < 0.1 over the norm of the reference, within the mask [%]."""
    dipole = dipole_kernel(geometry.shape, geometry.voxel_size, geometry.b0_dir)
    error = multiply_k(jnp.where(mask, chi - reference, 0), (jnp.abs(dipole) < CONE).astype(jnp.float32))
    power = lambda volume: jnp.sum(jnp.where(mask, volume, 0) ** 2)
    return 100 * jnp.sqrt(power(error) / power(reference))


def region_values(chi: np.ndarray, regions: np.ndarray, mask: np.ndarray) -> dict[str, list[float]]:
    """Return mean and standard deviation [ppm] and voxels of every region that is there."""
    values = {name: chi[(regions == number) & mask].astype(np.float64) for name, number in NUMBERS.items()}
    return {name: [float(v.mean()), float(v.std()), float(v.size)] for name, v in values.items() if v.size}
