"""Losses of QSMnet, as sums over masks that add up exactly over parts of a batch and over devices.

    L = Σ_i weight_i · (Σ over the mask of term_i) / (voxels in the mask)

    L1        |chi - y|
    model     |d * chi - d * y|,  normalised by the field's standard deviation
    gradient  Σ_axes | |∂chi| - |∂y| |

chi and y are normalised (`models.scaling`). The mean of means over devices would not be the mean: so numerators and the
count of voxels are summed first, and divided then.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import multiply_k

TERMS = ("l1", "model", "gradient")
PAPER_WEIGHTS = (1.0, 0.5, 0.1)
"""Of the L1, model and gradient terms. QSMnet+ kept them."""


def l1_sum(chi: Volume, truth: Volume, mask: Mask) -> Float[Array, ""]:
    """Sum |chi - y| over the mask."""
    return jnp.sum(jnp.where(mask, jnp.abs(chi - truth), 0))


def model_sum(chi: Volume, truth: Volume, mask: Mask, kernel: Kernel) -> Float[Array, ""]:
    """Sum |d * chi - d * y| over the mask: the part of the error that shows in the field.

    Args:
      chi: estimate, zero outside the mask.
      truth: likewise.
      mask: where they are compared.
      kernel: the dipole's, of the volumes' shape.
    """
    return jnp.sum(jnp.where(mask, jnp.abs(multiply_k(chi - truth, kernel)), 0))


def gradient_sum(chi: Volume, truth: Volume, mask: Mask) -> Float[Array, ""]:
    """Sum Σ_axes | |∂chi| - |∂y| | over the mask's voxels, differences to the next voxel.

    A patch is cut out of a head: its last voxels have no next one, and are not held against the opposite face.
    """
    total = jnp.float32(0)
    for axis in (-3, -2, -1):
        steep, steep_truth = (jnp.abs(jnp.diff(volume, axis=axis)) for volume in (chi, truth))
        inside = jax.lax.slice_in_dim(mask, 0, mask.shape[axis] - 1, axis=axis)
        total = total + jnp.sum(jnp.where(inside, jnp.abs(steep - steep_truth), 0))
    return total


def loss_sums(
    chi: Volume, truth: Volume, mask: Mask, kernel: Kernel, field_scale: Float[Array, ""] | float
) -> Float[Array, "3"]:
    """Sum each term of `TERMS` over the mask.

    Args:
      chi: normalised estimate, (n, x, y, z).
      truth: normalised map.
      mask: where they are compared.
      kernel: the dipole's, of the volumes' shape.
      field_scale: chi's standard deviation over the field's, which makes a normalised field of the dipole's output.
    """
    chi, truth = jnp.where(mask, chi, 0), jnp.where(mask, truth, 0)
    model = field_scale * model_sum(chi, truth, mask, kernel)
    return jnp.stack([l1_sum(chi, truth, mask), model, gradient_sum(chi, truth, mask)])


def count(mask: Mask, axis_name: str | None = None) -> Float[Array, ""]:
    """Count the mask's voxels over all samples and devices; at least one, so that it can be divided by."""
    voxels = jnp.sum(mask, dtype=jnp.float32)
    return jnp.maximum(voxels if axis_name is None else jax.lax.psum(voxels, axis_name), 1)


def weighted_loss(sums: Float[Array, "3"], voxels: Float[Array, ""], weights: tuple[float, float, float]) -> Array:
    """Return the loss, or one part's share of it, from sums and the count of all voxels."""
    return jnp.dot(sums, jnp.asarray(weights, jnp.float32), precision="highest") / voxels
