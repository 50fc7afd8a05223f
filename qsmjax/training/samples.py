"""From indices, or maps, to training samples: on the device, inside the step.

    key of a sample = fold_in(fold_in(key(seed), step), index in the global batch)

so a sample does not depend on the devices that share the batch. Susceptibility is drawn, or comes with the batch; it is
turned with respect to B0 and scaled, and its field made by the dipole in k-space: from what is inside the box, so that
the field holds all its sources and no others. A measured field comes with its map, and then neither is turned.
"""

from collections.abc import Mapping
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from qsmjax.numerics.arrays import Kernel
from qsmjax.physics.dipole import dipole_kernel, forward_field
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.procedural import random_chi
from qsmjax.training.config import TrainConfig

Box = Float[Array, "x y z"]
BoxMask = Bool[Array, "x y z"]
B0_DIR = (0.0, 0.0, 1.0)
"""Networks of this kind know one direction of B0, the third axis; data are turned to it."""


@flax.struct.dataclass
class Samples:
    """What a network is trained on.

    Attributes:
      field: local field with its noise [ppm].
      chi: the susceptibility that made it [ppm].
      mask: where both are known.
    """

    field: Float[Array, "*n x y z"]
    chi: Float[Array, "*n x y z"]
    mask: Bool[Array, "*n x y z"]


def make_samples(config: TrainConfig, step: Int[Array, ""], batch: Mapping[str, Array]) -> Samples:
    """Make a batch, or a device's share of it.

    Args:
      config: of the run.
      step: folded into the keys; may be traced.
      batch: "index" (n,) in the global batch; where maps are given also "chi" and "mask" (n, x, y, z), and "field".
    """
    base = jax.random.fold_in(jax.random.key(config.seed), step)

    def one(arrays):
        key = jax.random.fold_in(base, arrays["index"])
        if "field" in arrays:
            return measured_sample(config, key, arrays["field"], arrays["chi"], arrays["mask"])
        if "chi" in arrays:
            return simulated_sample(config, key, arrays["chi"], arrays["mask"])
        drawing, key = jax.random.split(key)
        chi, mask = random_chi(drawing, config.patch, config.voxel_size, lesions=config.lesions)
        return simulated_sample(config, key, chi, mask)

    # XLA for the CPU takes minutes to compile the batched random numbers, and gains nothing by the batch
    return jax.lax.platform_dependent(dict(batch), cpu=partial(jax.lax.map, one), default=jax.vmap(one))


def simulated_sample(config: TrainConfig, key: Key[Array, ""], chi: Box, mask: BoxMask) -> Samples:
    """Turn and scale a map, and make its noisy field."""
    turning, scaling, noising = jax.random.split(key, 3)
    if config.rotation:
        chi, mask = turn(turning, chi, mask, config.voxel_size, config.rotation)
    chi = chi * random_factor(config, scaling)
    field = forward_field(chi, geometry(chi.shape, config.voxel_size, B0_DIR))
    return _noisy(config, noising, field, chi, mask)


def measured_sample(config: TrainConfig, key: Key[Array, ""], field: Box, chi: Box, mask: BoxMask) -> Samples:
    """Scale a measured field with its map: the dipole is linear. Its own noise grows along, and none is added."""
    factor = random_factor(config, key)
    return Samples(jnp.where(mask, factor * field, 0), jnp.where(mask, factor * chi, 0), mask)


def random_factor(config: TrainConfig, key: Key[Array, ""]) -> Float[Array, ""]:
    """Draw QSMnet+'s factor, and its sign.

    References:
      Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619.
    """
    size, sign = jax.random.split(key)
    low, high = config.chi_scale
    turned = jax.random.bernoulli(sign, config.negate)
    return jnp.where(turned, -1, 1) * jax.random.uniform(size, minval=low, maxval=high)


def turn(
    key: Key[Array, ""], chi: Box, mask: BoxMask, voxel_size: tuple[float, float, float], degrees: float
) -> tuple[Box, BoxMask]:
    """Turn a map about a random axis across B0, by an angle between -degrees and degrees, with linear interpolation."""
    across, by = jax.random.split(key)
    azimuth = jax.random.uniform(across, maxval=jnp.pi)
    angle = jnp.radians(jax.random.uniform(by, minval=-degrees, maxval=degrees))
    points = voxel_positions(chi.shape, voxel_size)
    turned = jnp.einsum("ij,jxyz->ixyz", rotation(azimuth, angle), points, precision="highest")
    centre = (jnp.asarray(chi.shape, jnp.float32) - 1) / 2
    index = turned / jnp.asarray(voxel_size)[:, None, None, None] + centre[:, None, None, None]
    sampled = [jax.scipy.ndimage.map_coordinates(a, list(index), order=1) for a in (chi, mask.astype(jnp.float32))]
    return sampled[0], sampled[1] > 0.5


def rotation(azimuth: Float[Array, ""], angle: Float[Array, ""]) -> Float[Array, "3 3"]:
    """Return the rotation by an angle about the axis (cos azimuth, sin azimuth, 0), by Rodrigues' formula."""
    x, y, zero = jnp.cos(azimuth), jnp.sin(azimuth), jnp.zeros(())
    cross = jnp.stack([jnp.stack([zero, zero, y]), jnp.stack([zero, zero, -x]), jnp.stack([-y, x, zero])])
    square = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * square


def voxel_positions(shape: tuple[int, ...], voxel_size: tuple[float, float, float]) -> Float[Array, "3 x y z"]:
    """Return the voxels' positions about the centre of the box [mm]."""
    axes = [(jnp.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, voxel_size)]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"))


def training_kernel(config: TrainConfig, shape: tuple[int, ...]) -> Kernel:
    """Return the dipole kernel of the network's grid."""
    x, y, z = shape
    return dipole_kernel((x, y, z), config.voxel_size, B0_DIR)


def _noisy(config: TrainConfig, key: Key[Array, ""], field: Box, chi: Box, mask: BoxMask) -> Samples:
    level, values = jax.random.split(key)
    low, high = config.noise
    noise = jax.random.uniform(level, minval=low, maxval=high) * jax.random.normal(values, field.shape)
    return Samples(jnp.where(mask, field + noise, 0), jnp.where(mask, chi, 0), mask)
