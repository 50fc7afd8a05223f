"""The background as the field of dipoles outside the mask, fitted to the total field inside.

    minimise  |W M (field - D (chi_in + chi_out))|² + |chi_in / inside|² + |chi_out / outside|²

M is the mask, W one over the noise, D the dipole; chi_in lives in the mask and chi_out around it, where D is that of
cuboids (`physics.cuboids`), unless the field was made within the grid's band, where it rings beside air. `inside` and
`outside` are the standard deviations that each is expected to have [ppm]. With inside = 0 this is the projection onto
dipole fields (PDF), which explains by sources outside whatever it can, also what comes from near the edge. Giving the
inside its due share makes the two compete as they do in the head: air is a hundred times stronger than tissue.
In the unknown u = chi / std the normal equations are well scaled, and conjugate gradients solve them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.background.edge import EDGE, STEEPEST, beside_the_skull, shrink, steep_voxels
from qsmjax.background.frame import Local, in_frame
from qsmjax.numerics.arrays import Kernel, Mask, Volume
from qsmjax.numerics.kspace import irfft3, multiply_k, rfft3
from qsmjax.numerics.operators import centred
from qsmjax.numerics.options import Number, real
from qsmjax.numerics.solvers import cg, cg_steps
from qsmjax.physics.cuboids import cuboid_kernel
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

TRIAL = 15
"""Steps of conjugate gradients by which the kernel of the sources around the mask is chosen."""

CLEARLY = 0.95
"""Part of what the cuboids leave unexplained below which D is chosen: it rings, and so follows rough tissue too."""

NOISE = 1e-3
"""Standard deviation of the field's noise where the field map does not know it [ppm]."""


def joint(
    field_map: FieldMap,
    *,
    inside: Number = 0.2,
    outside: Number = 5.0,
    margin: Number = 2.0,
    steepest: Number = STEEPEST,
    tolerance: Number = 1e-3,
    max_iterations: int = 80,
) -> FieldMap:
    """Remove the background by fitting sources inside and outside the mask together.

    Args:
      field_map: the total field; its noise, where known, weighs it.
      inside: standard deviation of chi inside the mask [ppm].
      outside: standard deviation of chi outside [ppm].
      margin: how far from the mask's edge the local field is kept [mm]; 0 for the whole mask.
      steepest: rise of the field from voxel to voxel that is still believed [ppm]; by default half a turn at 40 ms and
        3 T. Steeper ones have no say, and near the skull are left out with what lies within the margin of them.
      tolerance: relative residual at which conjugate gradients stop.
      max_iterations: their limit.

    Returns:
      The local field, on the mask less the margin.

    References:
      Liu et al., NMR Biomed. 24:1129 (2011), doi:10.1002/nbm.1670 (dipoles outside).
      Liu et al., Magn. Reson. Med. 78:303 (2017), doi:10.1002/mrm.26331 (inside and outside, preconditioned).
    """
    given = {"inside": inside, "outside": outside, "margin": margin, "steepest": steepest, "tolerance": tolerance}
    options = {name: real(value) for name, value in given.items()}
    return in_frame(remove_by_dipoles, field_map, options | {"max_iterations": max_iterations}, uses=("noise",))


def pdf(field_map: FieldMap, *, outside: Number = 5.0, tolerance: Number = 1e-3, max_iterations: int = 40) -> FieldMap:
    """Remove the background by projection onto the fields of dipoles outside the mask (PDF).

    Args:
      field_map: the total field; its noise, where known, weighs it.
      outside: standard deviation of chi outside [ppm].
      tolerance: relative residual at which conjugate gradients stop.
      max_iterations: their limit, which also regularises.

    Returns:
      The local field, on the same mask.

    References:
      Liu et al., NMR Biomed. 24:1129 (2011), doi:10.1002/nbm.1670.
    """
    options = {"inside": 0.0, "outside": real(outside), "margin": 0.0, "tolerance": real(tolerance)}
    return in_frame(remove_by_dipoles, field_map, options | {"max_iterations": max_iterations}, uses=("noise",))


def remove_by_dipoles(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    noise: Volume | None = None,
    *,
    inside: ArrayLike,
    outside: ArrayLike,
    margin: ArrayLike,
    tolerance: ArrayLike,
    max_iterations: int,
    steepest: ArrayLike = jnp.inf,
) -> Local:
    """Fit the sources and subtract the field of those outside: the block beneath `joint` and `pdf`."""
    # a constant is the centre frequency's, and no source's
    field = centred(field, mask)
    steep = steep_voxels(field, mask, steepest)
    kernel = outside_kernel(field, mask, geometry, noise, ~steep)
    chi = fit_sources(
        field,
        mask,
        geometry,
        noise,
        kernel=kernel,
        inside=inside,
        outside=outside,
        trusted=~steep,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    background = multiply_k(jnp.where(mask, 0, chi), kernel)
    valid = shrink(mask & ~beside_the_skull(steep, mask, geometry), geometry, margin)
    return Local(jnp.where(valid, field - background, 0), valid)


def fit_sources(
    field: Volume,
    mask: Mask,
    geometry: Geometry,
    noise: Volume | None = None,
    *,
    kernel: Kernel,
    inside: ArrayLike,
    outside: ArrayLike,
    trusted: Mask,
    tolerance: ArrayLike | None,
    max_iterations: int,
) -> Volume:
    """Return the susceptibility on both sides of the mask's edge that makes the field of the trusted voxels [ppm].

    The kernel is that of the sources outside (`outside_kernel`).

    Without a tolerance exactly `max_iterations` steps are taken, and gradients flow through them.
    """
    within = dipole_kernel(geometry.shape, geometry.voxel_size, geometry.b0_dir)
    std = jnp.where(mask, jnp.asarray(inside, jnp.float32), outside)
    weight, level = _weights(mask, noise)
    weight = jnp.where(trusted, weight, 0)

    def spread(u: Volume) -> Volume:
        parts = rfft3(jnp.where(mask, std * u, 0)) * within + rfft3(jnp.where(mask, 0, std * u)) * kernel
        return irfft3(parts, geometry.shape)

    def gather(residual: Volume) -> Volume:
        spectrum = rfft3(weight * residual)
        inner, outer = (irfft3(spectrum * each, geometry.shape) for each in (within, kernel))
        return std * jnp.where(mask, inner, outer)

    normal = lambda u: gather(spread(u)) + level**2 * u
    if tolerance is None:
        return std * cg_steps(normal, gather(field), max_iterations=max_iterations).state
    return std * cg(normal, gather(field), max_iterations=max_iterations, tolerance=tolerance).state


def outside_kernel(field: Volume, mask: Mask, geometry: Geometry, noise: Volume | None, trusted: Mask) -> Kernel:
    """Return the kernel of the sources around a mask: the cuboids', or D where it explains clearly more deep inside.

    Cuboids are right for what a scanner measures, D for a field that was simulated, or cut, within the grid's band and
    so rings. A few steps tell: sources around the mask alone, by the one and by the other.
    """
    where = geometry.shape, geometry.voxel_size, geometry.b0_dir
    cuboids, banded = cuboid_kernel(*where), dipole_kernel(*where)
    # the choice has no gradient, but the kernel that is chosen has: it knows B0's direction and the voxels' edges
    field, known_cuboids, known_banded, noise = jax.lax.stop_gradient((field, cuboids, banded, noise))
    weight = jnp.where(trusted, _weights(mask, noise)[0], 0)
    deep = jnp.where(shrink(mask, geometry, EDGE), weight, 0)

    def unexplained(kernel: Kernel) -> Float[Array, ""]:
        gather = lambda residual: jnp.where(mask, 0, multiply_k(weight * residual, kernel))
        tried = cg_steps(lambda s: gather(multiply_k(s, kernel)), gather(field), max_iterations=TRIAL).state
        rest = field - multiply_k(tried, kernel)
        mean = lambda part: jnp.sum(deep * part) / jnp.sum(deep)
        return jnp.sqrt(mean((rest - mean(rest)) ** 2))

    # NaN, where nothing lies deep, is not less
    ringing = unexplained(known_banded) < CLEARLY * unexplained(known_cuboids)
    return jnp.where(ringing, banded, cuboids)


def _weights(mask: Mask, noise: Volume | None) -> tuple[Volume, ArrayLike]:
    """Return (level / noise)² within the mask, and the level: the noise that is typical in it."""
    if noise is None:
        return mask.astype(jnp.float32), NOISE
    known = mask & (noise > 0)
    precision = jnp.where(known, 1 / jnp.where(known, noise, 1) ** 2, 0)
    # the mean precision's noise: one good voxel of a field must not set the scale, nor one bad one
    level = 1 / jnp.sqrt(jnp.sum(precision) / jnp.maximum(jnp.sum(known), 1))
    return precision * level**2, level
