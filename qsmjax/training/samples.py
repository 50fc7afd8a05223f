"""From indices, or maps, to training samples: on the device, inside the step.

    key of a sample = fold_in(fold_in(key(seed), step), index in the global batch)

so a sample does not depend on the devices that share the batch. Susceptibility is drawn, or comes with the batch; it is
turned with respect to B0 and scaled, and its field made by the dipole in k-space: from what is inside the box, so that
the field holds all its sources and no others. A measured field comes with its map, and then neither is turned.
"""

import math
from collections.abc import Mapping
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from qsmjax.numerics.arrays import Kernel
from qsmjax.physics.dipole import dipole_kernel
from qsmjax.simulate.augment import augment
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
      batch: "index" (n,) in the global batch; where maps are given also "chi" and "mask" (n, x, y, z), and "field";
        "measured" (n,) where some of them have no field.
    """
    base = jax.random.fold_in(jax.random.key(config.seed), step)

    def one(arrays):
        key = jax.random.fold_in(base, arrays["index"])
        if "measured" in arrays:
            field, chi, mask = (arrays[name] for name in ("field", "chi", "mask"))
            from_scan = lambda: measured_sample(config, key, field, chi, mask)
            return jax.lax.cond(arrays["measured"], from_scan, lambda: simulated_sample(config, key, chi, mask))
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
    field, chi, mask = augment(
        key,
        chi,
        mask,
        voxel_size=config.voxel_size,
        b0_dir=B0_DIR,
        max_angle=math.radians(config.rotation) if config.rotation else None,
        scale=config.chi_scale,
        negate=config.negate,
        noise=config.noise,
    )
    return Samples(field, jnp.where(mask, chi, 0), mask)


def measured_sample(config: TrainConfig, key: Key[Array, ""], field: Box, chi: Box, mask: BoxMask) -> Samples:
    """Scale a measured field with its map: the dipole is linear. Its own noise grows along, and none is added."""
    factor = random_factor(config, key)
    return Samples(jnp.where(mask, factor * field, 0), jnp.where(mask, factor * chi, 0), mask)


def random_factor(config: TrainConfig, key: Key[Array, ""]) -> Float[Array, ""]:
    """Draw QSMnet+'s factor, and its sign.

    References:
      Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619.
    """
    size, sign = jax.random.uniform(key, (2,), jnp.float32)
    low, high = config.chi_scale
    return jnp.where(sign < config.negate, -1, 1) * (low + (high - low) * size)


def training_kernel(config: TrainConfig, shape: tuple[int, ...]) -> Kernel:
    """Return the dipole kernel of the network's grid."""
    x, y, z = shape
    return dipole_kernel((x, y, z), config.voxel_size, B0_DIR)
