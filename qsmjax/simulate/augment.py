"""New fields from known maps, inside the step: rotations with respect to B0, scaling, sign and noise.

    chi' = ± factor · chi(R r),    field = D chi' + noise

Turning the object under a fixed B0 and turning B0 over a fixed object make the same scan on two grids. Networks that
know one direction of B0 need the first (`rotate`), which interpolates chi and makes the field afterwards, so that the
pair obeys the dipole; what takes B0 as an input needs the second (`random_b0_dir`), which interpolates nothing.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from qsmjax.numerics.arrays import Vector, VectorLike, Volume, as_mask, as_vector, as_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import geometry

Rotation = Float[Array, "3 3"]
B0_DIR = (0.0, 0.0, 1.0)
VOXEL = (1.0, 1.0, 1.0)
MAX_ANGLE = 0.5235988
"""30 degrees: how far QSMnet's authors turn their heads with respect to B0."""


def augment(
    key: Key[Array, ""],
    chi: ArrayLike,
    mask: ArrayLike,
    *,
    voxel_size: VectorLike = VOXEL,
    b0_dir: VectorLike = B0_DIR,
    max_angle: ArrayLike | None = MAX_ANGLE,
    scale: tuple[ArrayLike, ArrayLike] = (1.0, 1.0),
    negate: ArrayLike = 0.0,
    noise: tuple[ArrayLike, ArrayLike] = (0.0, 0.0),
    padding: float = 0.5,
) -> tuple[Float[Array, "x y z"], Float[Array, "x y z"], Bool[Array, "x y z"]]:
    """Turn and scale a map, and make its noisy local field.

    Args:
      key: random key; fold in the sample's index in the global batch.
      chi: susceptibility [ppm].
      mask: of the brain.
      voxel_size: edges of a voxel [mm]; may be traced.
      b0_dir: direction of B0 in voxel axes; may be traced, and drawn by `random_b0_dir`.
      max_angle: the object is turned by up to this [rad] about a random axis across B0; None to leave it.
      scale: range of QSMnet+'s factor.
      negate: chance that the sign is turned.
      noise: range of the standard deviation of the field's noise [ppm].
      padding: see `physics.dipole.forward_field`.

    Returns:
      The local field [ppm], zero outside the mask; chi [ppm] and mask, turned and scaled alike.

    References:
      Yoon et al., NeuroImage 179:199 (2018), doi:10.1016/j.neuroimage.2018.06.030.
      Jung et al., NeuroImage 211:116619 (2020), doi:10.1016/j.neuroimage.2020.116619.
    """
    chi = as_volume("chi", chi)
    mask = as_mask("mask", mask, chi.shape)
    turning, drawing, noising = jax.random.split(key, 3)
    if max_angle is not None:
        matrix = random_rotation(turning, max_angle, b0_dir)
        chi = rotate(matrix, chi, voxel_size=voxel_size)
        mask = rotate(matrix, mask.astype(jnp.float32), voxel_size=voxel_size) > 0.5
    size, sign, level = jax.random.uniform(drawing, (3,), jnp.float32)
    chi = chi * _between(scale, size) * jnp.where(sign < jnp.asarray(negate), -1, 1)
    field = forward_field(chi, geometry(chi.shape, voxel_size, b0_dir), padding=padding)
    field = field + _between(noise, level) * jax.random.normal(noising, field.shape, jnp.float32)
    return jnp.where(mask, field, 0), chi, mask


def rotate(matrix: ArrayLike, volume: ArrayLike, *, voxel_size: VectorLike = VOXEL) -> Volume:
    """Turn a volume about its centre, by linear interpolation: out(R r) = volume(r).

    Args:
      matrix: the rotation R in mm, 3x3, such as `random_rotation` draws.
      volume: one volume; zero outside.
      voxel_size: edges of a voxel [mm]; may be traced.

    Raises:
      ValueError: if the matrix is not 3x3.
    """
    if jnp.shape(matrix) != (3, 3):
        raise ValueError(f"matrix must be 3x3, got shape {jnp.shape(matrix)}: draw one of a key by random_rotation")
    matrix = jnp.asarray(matrix, jnp.float32)
    volume, size = as_volume("volume", volume), as_vector("voxel_size", voxel_size)
    axes = [(jnp.arange(n) - (n - 1) / 2) * d for n, d in zip(volume.shape, size)]
    x, y, z = jnp.meshgrid(*axes, indexing="ij")
    # the transpose leads from a place in the result back to one in the volume
    places = [(matrix[0, i] * x + matrix[1, i] * y + matrix[2, i] * z) / size[i] for i in range(3)]
    index = [place + (n - 1) / 2 for place, n in zip(places, volume.shape)]
    return jax.scipy.ndimage.map_coordinates(volume, index, order=1)


def random_rotation(key: Key[Array, ""], max_angle: ArrayLike = MAX_ANGLE, b0_dir: VectorLike = B0_DIR) -> Rotation:
    """Draw a rotation by -max_angle to max_angle [rad] about a random axis across B0, by Rodrigues' formula."""
    along = _unit(as_vector("b0_dir", b0_dir))
    turn, angle = jax.random.uniform(key, (2,), jnp.float32)
    # any vector that is surely not along B0 gives a first axis across it
    x, _, z = jnp.eye(3, dtype=jnp.float32)
    first = _unit(jnp.cross(along, jnp.where(jnp.abs(along[2]) > 0.7, x, z)))
    azimuth = jnp.pi * turn
    axis = jnp.cos(azimuth) * first + jnp.sin(azimuth) * jnp.cross(along, first)
    return rotation(axis, (2 * angle - 1) * jnp.asarray(max_angle, jnp.float32))


def random_b0_dir(key: Key[Array, ""], max_angle: ArrayLike = MAX_ANGLE, b0_dir: VectorLike = B0_DIR) -> Vector:
    """Draw a direction of B0 within max_angle [rad] of the given one: what a head turned the other way sees."""
    matrix = random_rotation(key, max_angle, b0_dir)
    return jnp.matmul(matrix, _unit(as_vector("b0_dir", b0_dir)), precision="highest")


def rotation(axis: VectorLike, angle: ArrayLike) -> Rotation:
    """Return the rotation by an angle [rad] about a unit axis, by the right-hand rule."""
    x, y, z = as_vector("axis", axis)
    angle, zero = jnp.asarray(angle, jnp.float32), jnp.zeros((), jnp.float32)
    cross = jnp.stack([jnp.stack([zero, -z, y]), jnp.stack([z, zero, -x]), jnp.stack([-y, x, zero])])
    square = jnp.matmul(cross, cross, precision="highest")
    return jnp.eye(3, dtype=jnp.float32) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * square


def _unit(vector: Vector) -> Vector:
    return vector / jnp.linalg.norm(vector)


def _between(limits: tuple[ArrayLike, ArrayLike], part: Float[Array, ""]) -> Float[Array, ""]:
    low, high = (jnp.asarray(limit, jnp.float32) for limit in limits)
    return low + (high - low) * part
