"""Volumes on another grid, through a rigid transform, and where B0 points there.

    out(i) = volume(A_source⁻¹ T A_target i)

A are the affines, voxel index to world [mm]; T takes the target's world to the source's. Interpolation is linear (2
taps an axis) or cubic (4), differentiable in the volume and in T; what lies beyond the volume is zero.

References:
  Keys, IEEE Trans. Acoust. Speech Signal Process. 29:1153 (1981), doi:10.1109/TASSP.1981.1163711.
"""

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qsmjax.numerics.arrays import Shape, Vector, VectorLike, as_vector, as_volume

Method = Literal["linear", "cubic"]
HIGHEST = jax.lax.Precision.HIGHEST


def resample(
    volume: ArrayLike,
    source_affine: ArrayLike,
    target_affine: ArrayLike,
    target_shape: Shape,
    transform: ArrayLike | None = None,
    *,
    method: str = "cubic",
) -> Float[Array, "x y z"]:
    """Bring a volume to another grid.

    Args:
      volume: x y z.
      source_affine: its own, voxel index to world [mm].
      target_affine: the other grid's.
      target_shape: voxels of the other grid.
      transform: 4x4, the target's world to the source's [mm]; None where both share one world.
      method: "linear", or "cubic", which keeps fine detail.

    Returns:
      The volume on the other grid, zero where the source does not reach.

    Raises:
      ValueError: if an array is not of its shape, or the method is unknown.
    """
    volume = as_volume("volume", volume)
    if volume.ndim != 3:
        raise ValueError(f"volume must have the axes x y z, got shape {volume.shape}: map over the others")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    between = voxel_transform(source_affine, target_affine, transform)
    axes = [jnp.arange(n, dtype=jnp.float32) for n in target_shape]
    places = jnp.stack([a.ravel() for a in jnp.meshgrid(*axes, indexing="ij")])
    values = interpolate(volume, move(between, places), taps=2 if method == "linear" else 4)
    return values.reshape(target_shape)


def resample_mask(
    mask: ArrayLike,
    source_affine: ArrayLike,
    target_affine: ArrayLike,
    target_shape: Shape,
    transform: ArrayLike | None = None,
) -> Bool[Array, "x y z"]:
    """Bring a mask to another grid: where at least half of the voxel lies inside. Arguments as for `resample`."""
    inside = (jnp.asarray(mask) != 0).astype(jnp.float32)
    return resample(inside, source_affine, target_affine, target_shape, transform, method="linear") >= 0.5


def resample_within(
    volume: ArrayLike,
    mask: ArrayLike,
    source_affine: ArrayLike,
    target_affine: ArrayLike,
    target_shape: Shape,
    transform: ArrayLike | None = None,
) -> Float[Array, "x y z"]:
    """Bring a volume to another grid by what is known of it alone: the taps that lie in its mask, their sum made one.

    So no voxel at the mask's rim is a mean with the zeros beyond it. Zero where less than a quarter of the taps' weight
    lies inside. Arguments as for `resample`; `mask` is on the volume's grid.
    """
    known = jnp.asarray(mask) != 0
    to = lambda part: resample(part, source_affine, target_affine, target_shape, transform)
    weight = to(known.astype(jnp.float32))
    return jnp.where(weight > 0.25, to(jnp.where(known, jnp.asarray(volume), 0)) / jnp.maximum(weight, 0.25), 0)


def turned_b0(
    b0_dir: VectorLike, source_affine: ArrayLike, target_affine: ArrayLike, transform: ArrayLike | None = None
) -> Vector:
    """Tell where B0 points in the target's voxel axes once the source was resampled there.

    Args:
      b0_dir: direction of B0 in the source's voxel axes (`Geometry.b0_dir`).
      source_affine: voxel index to world [mm].
      target_affine: the other grid's.
      transform: 4x4, the target's world to the source's [mm]; None where both share one world.
    """
    turn = jnp.eye(3) if transform is None else jnp.asarray(transform, jnp.float32)[:3, :3]
    world = jnp.matmul(_axes(source_affine), as_vector("b0_dir", b0_dir), precision=HIGHEST)
    direction = jnp.matmul(_axes(target_affine).T, jnp.matmul(turn.T, world, precision=HIGHEST), precision=HIGHEST)
    return direction / jnp.linalg.norm(direction)


def voxel_transform(
    source_affine: ArrayLike, target_affine: ArrayLike, transform: ArrayLike | None = None
) -> Float[Array, "4 4"]:
    """Return the matrix from the target's voxel indices to the source's.

    Raises:
      ValueError: if a matrix is not 4x4.
    """
    source, target = (np.asarray(check_matrix(n, a), np.float64)
                      for n, a in (("source_affine", source_affine), ("target_affine", target_affine)))  # fmt: skip
    # the inverse in double precision on the host: affines are known, the transform may be traced
    inverse = jnp.asarray(np.linalg.inv(source), jnp.float32)
    if transform is None:
        return jnp.asarray(np.linalg.solve(source, target), jnp.float32)
    moved = jnp.matmul(jnp.asarray(check_matrix("transform", transform), jnp.float32), jnp.asarray(target, jnp.float32),
                       precision=HIGHEST)  # fmt: skip
    return jnp.matmul(inverse, moved, precision=HIGHEST)


def move(matrix: Float[Array, "4 4"], places: Float[Array, "3 n"]) -> Float[Array, "3 n"]:
    """Apply a 4x4 matrix to points."""
    return jnp.matmul(matrix[:3, :3], places, precision=HIGHEST) + matrix[:3, 3:]


@partial(jax.jit, static_argnames="taps")
def interpolate(volume: Float[Array, "x y z"], places: Float[Array, "3 n"], *, taps: int) -> Float[Array, " n"]:
    """Read a volume between its voxels, linearly (2 taps an axis) or cubically (4); zero beyond its outer voxels."""
    last = jnp.asarray(volume.shape)[:, None] - 1
    first = jnp.floor(places)
    weights = jnp.stack(_weights(places - first, taps))
    first = first.astype(jnp.int32) - (taps // 2 - 1)

    def add(total, tap):
        at = jnp.clip(first + tap[:, None], 0, last)
        weight = weights[tap[0], 0] * weights[tap[1], 1] * weights[tap[2], 2]
        return total + weight * volume[at[0], at[1], at[2]], None

    steps = np.stack(np.meshgrid(*[np.arange(taps)] * 3, indexing="ij")).reshape(3, -1).T
    # a loop, since the unrolled sum takes long to compile
    total, _ = jax.lax.scan(add, jnp.zeros(places.shape[1], jnp.float32), jnp.asarray(steps))
    return jnp.where(inside_volume(volume.shape, places), total, 0)


def inside_volume(
    shape: tuple[int, ...], places: Float[Array, "3 n"], margin: VectorLike = (-0.5, -0.5, -0.5)
) -> Bool[Array, " n"]:
    """Tell which places lie a margin inside the outer voxels; by default up to half a voxel beyond them."""
    edge = jnp.asarray(margin, jnp.float32)[:, None]
    return jnp.all((places >= edge) & (places <= jnp.asarray(shape)[:, None] - 1 - edge), axis=0)


def check_matrix(name: str, matrix: ArrayLike) -> ArrayLike:
    """Check that a matrix is 4x4.

    Raises:
      ValueError: if it is not.
    """
    if jnp.shape(matrix) != (4, 4):
        raise ValueError(f"{name} must be 4x4, got shape {jnp.shape(matrix)}")
    return matrix


def _weights(t: Float[Array, "3 n"], taps: int) -> list[Float[Array, "3 n"]]:
    if taps == 2:
        return [1 - t, t]
    return [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t**2 + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t**2,
    ]


def _axes(affine: ArrayLike) -> Float[Array, "3 3"]:
    matrix = np.asarray(check_matrix("affine", affine), np.float64)[:3, :3]
    return jnp.asarray(matrix / np.linalg.norm(matrix, axis=0), jnp.float32)
