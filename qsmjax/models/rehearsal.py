"""A rehearsal: how far an inversion is off a truth that is like the map it found, where that can be seen.

    log s = a + b log q + l + c min(e, LESION) + max(e - LESION, 0),    e = log std - l,    l its mean in the mask
    std² ← s² + (d · slope)²

The map is taken for the truth, and its field, with noise as the scan's, is inverted again. q is the number of foretold
deviations within which 68 % of that map's errors lie. The middle of a head tells it as well as the whole. What it does
not tell is how far edges are off: a map's own are smoother than a head's. Those errors grow with the map's slope.

References:
  Efron, Ann. Statist. 7:1 (1979), doi:10.1214/aos/1176344552 (the parametric bootstrap).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qsmjax.inversion.frame import inversion_kernel
from qsmjax.models.unrolled import Scan
from qsmjax.numerics.arrays import Mask, Shape, VectorLike, Volume
from qsmjax.numerics.kspace import crop_to, multiply_k, pad_to
from qsmjax.numerics.operators import masked_mean, root
from qsmjax.numerics.quantiles import masked_quantile

MOST, HOLLOW = 1e6, 0.3
"""Voxels of the box that is rehearsed, at most, and the part of them that must be the mask's."""
LARGEST_NOISE = 10.0
"""Most noise of a voxel that is drawn, over its level: where next to nothing was measured the field has a size too."""
ONE_DEVIATION = 0.6827
"""Part of the errors that one standard deviation is to hold."""
LESION = 0.5
"""How far a deviation's logarithm lies above its mean in lesions and veins, at least; in tissue it scatters by 0.25."""
EDGE = 0.09
"""Part of a map's slope by which its edges are off: around lesions and in veins of heads 11 and 12."""
BELIEVED = (0.3, 3.0)
"""A rehearsal's errors over what was foretold that are believed."""


def middle(mask: Mask, voxel_size: VectorLike) -> Shape:
    """Return the size of the box, around the middle of a mask's own, that is rehearsed: a cube, or less of a slab.

    A mask whose middle is hollow, or that is traced, is rehearsed whole.
    """
    x, y, z = mask.shape
    if isinstance(mask, jax.core.Tracer):
        return x, y, z
    edges = np.ones(3) if isinstance(voxel_size, jax.core.Tracer) else np.asarray(voxel_size)
    reach = np.asarray(mask.shape) * edges
    for edge in np.geomspace(reach.max(), edges.min(), 500):
        a, b, c = (round(float(min(edge, far) / d)) for far, d in zip(reach, edges))
        if a * b * c <= MOST:
            break
    return (a, b, c) if float(jnp.mean(crop_to(mask, (a, b, c)))) > HOLLOW else (x, y, z)


def rehearsal(chi: Volume, scan: Scan, size: Shape, shape: Shape) -> tuple[Scan, Float[Array, "a b c"]]:
    """Return the middle of a scan as it were, were a map its truth, and that truth [ppm].

    Args:
      chi: the map [ppm], in the scan's frame.
      scan: that it was made of.
      size: of the box in the middle.
      shape: of the frame of what is returned.
    """
    take = lambda volume: pad_to(crop_to(volume, size), shape)
    geometry = dataclasses.replace(scan.geometry, shape=shape)
    truth, mask, trust, dipole = take(chi), take(scan.mask), take(scan.trust), inversion_kernel(geometry)
    std = scan.level / jnp.maximum(trust, 1 / LARGEST_NOISE)
    field = multiply_k(truth, dipole) + std * jax.random.normal(jax.random.key(0), shape, jnp.float32)
    # what lies around costs what it costs around a head
    field, edges = jnp.where(mask, field, 0), 1 + take(scan.edges - 1)
    return scan._replace(field=field, mask=mask, geometry=geometry, dipole=dipole, trust=trust, edges=edges), truth


def off_by(error: Volume, mask: Mask, foretold: Volume) -> Float[Array, ""]:
    """Return q: the number of foretold deviations [ppm] within which 68 % of the errors lie, their mean aside."""
    off = jnp.abs(error - masked_mean(error, mask)) / jnp.where(mask, foretold, 1)
    return jnp.clip(masked_quantile(off, mask, ONE_DEVIATION), *BELIEVED)


def slope(chi: Volume, mask: Mask) -> Volume:
    """Return how steep a map is [ppm per voxel], by central differences; beyond the mask it goes on evenly."""
    steps = [jnp.where(mask & jnp.roll(mask, -1, axis), jnp.roll(chi, -1, axis) - chi, 0) for axis in range(3)]
    x, y, z = (((step + jnp.roll(step, 1, axis)) / 2) ** 2 for axis, step in enumerate(steps))
    return root(x + y + z)


def rehearsed(std: Volume, mask: Mask, quantile: Float[Array, ""], bootstrap: Float[Array, "4"], chi: Volume) -> Volume:
    """Bring a deviation to its scan's own level, which a rehearsal tells, and add what edges are off by.

    Args:
      std: as the network foretells it [ppm].
      mask: where the map is.
      quantile: q, from `off_by`.
      bootstrap: a, b, c and d (`training.calibration.calibrate_level`).
      chi: the map [ppm].
    """
    logarithm = jnp.log(jnp.where(mask, std, 1))
    level = masked_mean(logarithm, mask)
    a, b, c, d = bootstrap
    excess = logarithm - level
    told = c * jnp.minimum(excess, LESION) + jnp.maximum(excess - LESION, 0)
    return jnp.where(mask, jnp.hypot(jnp.exp(a + b * jnp.log(quantile) + level + told), d * slope(chi, mask)), 0)
