"""The total field less that of the sources outside which total field inversion finds: the default background removal.

It stands here and not among the other removals since it needs the solver of an inversion.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from qsmjax.background.dipoles import fit_sources
from qsmjax.background.edge import STEEPEST
from qsmjax.background.frame import Local, in_frame
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.medi import BALANCE
from qsmjax.inversion.one_step import INSIDE, STRENGTH, TOTAL, begin, find_with_sources
from qsmjax.inversion.weighting import auto_weight, data_weights
from qsmjax.numerics.arrays import Mask, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.options import Number, real
from qsmjax.numerics.solvers import Report
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry


def remove_by_tfi(
    field_map: FieldMap,
    *,
    preconditioner: Number = STRENGTH,
    edge_percentage: Number = 90.0,
    steepest: Number = STEEPEST,
    start_iterations: int = 30,
    max_iterations: int = 60,
    report: Report | None = None,
) -> FieldMap:
    """Remove the field of the sources outside that total field inversion finds beside the tissue.

    The whole mask is kept. Where the skull's field is steeper than the model can follow, the noise is raised by the
    model's error, and the field drawn towards what the map makes, as far as that error outweighs the noise. In
    gradients what was found follows the field as the sources of `background.joint` do.

    Args:
      field_map: the total field; its noise and magnitude, where known, weigh it.
      preconditioner: strength of the sources outside over those inside.
      edge_percentage: how many differences of the magnitude count as edges, over the voxels of the mask [%].
      steepest: rise of the field from voxel to voxel that is still believed beside the skull [ppm].
      start_iterations: steps of conjugate gradients for the first sources.
      max_iterations: of the inversion.
      report: called after each of these with its number and the change of chi.

    Returns:
      The local field, its noise raised, on the same mask.

    References:
      Liu et al., Magn. Reson. Med. 78:303 (2017), doi:10.1002/mrm.26331 (total field inversion).
    """
    floats = {"preconditioner": preconditioner, "edge_percentage": edge_percentage, "steepest": steepest}
    options: dict[str, Any] = {name: real(value) for name, value in floats.items()}
    options |= {"start_iterations": start_iterations, "max_iterations": max_iterations, "report": report}
    return in_frame(part_by_tfi, field_map, options, uses=("noise", "magnitude"))


def part_by_tfi(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    noise: Volume | None = None,
    magnitude: Volume | None = None,
    *,
    preconditioner: ArrayLike,
    edge_percentage: ArrayLike,
    steepest: ArrayLike,
    start_iterations: int,
    max_iterations: int,
    report: Report | None,
) -> Local:
    """Part a total field into that of the tissue and that of sources outside: the block beneath `remove_by_tfi`."""
    begun = begin(field, mask, geometry, noise, magnitude, preconditioner, steepest, start_iterations)
    solved, background = find_with_sources(
        begun,
        mask,
        geometry,
        magnitude,
        None,
        weight=auto_weight(begun.level, begun.local, mask, geometry, TOTAL * BALANCE),
        strength=preconditioner,
        edge_percentage=edge_percentage,
        max_iterations=max_iterations,
        tolerance=None,
        report=report,
    )
    dipole = inversion_kernel(geometry)
    made = multiply_k(jnp.where(mask, solved.state.chi, 0), dipole)
    # unrolled, so many iterations have gradients that grow without bound
    background, made, begun = jax.lax.stop_gradient((background, made, begun))
    if noise is None:
        noise = begun.level / jnp.maximum(data_weights(mask, None, magnitude), 1e-2)
    known, trusted = noise**2, begun.trust > 0
    raised = jnp.where(trusted, jnp.sqrt(known + begun.missed), steepest)
    # sources of no field: they are zero, but their gradients are those of what was found
    sources = fit_sources(
        field - jax.lax.stop_gradient(field),
        mask,
        geometry,
        raised,
        kernel=begun.kernel,
        inside=INSIDE,
        outside=INSIDE * preconditioner,
        trusted=trusted,
        tolerance=1e-5,
        max_iterations=1000,
    )
    background += multiply_k(jnp.where(mask, 0, sources), begun.kernel)
    made += multiply_k(jnp.where(mask, sources, 0), dipole)
    kept = jnp.where(trusted, known / jnp.maximum(known + begun.missed, 1e-30), 0)
    local = made + kept * (field - background - made)
    return Local(jnp.where(mask, local, 0), mask, jnp.where(mask, raised, 0))
