"""The rotation and translation between two volumes of one head, by normalised correlation.

    min over R, t, a, b   Σ_i w_i (F(x_i) - a M(R (x_i - c) + c + t) - b)²

x_i are points of the fixed volume, c their centre, w_i tells whether the moving volume reaches there. Scale a and
shift b are found along, which makes this the correlation of the overlap. Levenberg-Marquardt steps on smoothed volumes,
coarse to fine; the coarsest starts from several rotations, so that 35 degrees are found from none. Lengths in mm, world
to world.

The library's own interpolation serves here in place of a registration library: rigid motion of one contrast needs no
more, it stays differentiable, and there is nothing to install.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from qsmjax.numerics.arrays import VectorLike, Volume, as_mask, as_vector, as_volume
from qsmjax.numerics.options import check_option
from qsmjax.numerics.smooth import gaussian_smooth
from qsmjax.registration.resample import check_matrix, inside_volume, interpolate, move

HIGHEST = jax.lax.Precision.HIGHEST
START_ANGLES = (-0.5, 0.5)
"""Rotations about each axis from which the coarsest level also starts [rad]."""
COARSE_POINTS = 6_000
LEAST_OVERLAP = 0.3
"""Part of the points that must lie in the moving volume."""
FACES = 1.5
"""Standard deviations of the smoothing that its effect reaches in from the faces."""
RIM = 0.05
"""Part of the largest smoothed value down to which points are taken: the rim of the head says most."""


class Registration(NamedTuple):
    """The transform from the fixed world to the moving world [mm], 4x4, and the correlation that it reaches."""

    transform: np.ndarray
    correlation: float


class Motion(NamedTuple):
    """A rotation about the points' centre, and a translation [mm]."""

    rotation: Float[Array, "3 3"]
    shift: Float[Array, "3"]


class Points(NamedTuple):
    """Points of the fixed volume about their centre [mm], and the moving volume to look into.

    Near the faces of a volume its smoothed values are not those of the head: such points have weight zero, and so has
    what lies within `margin` voxels of the moving volume's faces.
    """

    places: Float[Array, "3 n"]
    values: Float[Array, " n"]
    weight: Float[Array, " n"]
    margin: Float[Array, "3"]
    centre: Float[Array, "3"]
    moving: Float[Array, "x y z"]
    to_voxel: Float[Array, "4 4"]


def register_rigid(
    moving: ArrayLike,
    fixed: ArrayLike,
    moving_affine: ArrayLike,
    fixed_affine: ArrayLike,
    *,
    fixed_mask: ArrayLike | None = None,
    start: ArrayLike | None = None,
    smoothing: Sequence[float] = (8.0, 4.0, 2.0),
    points: int = 60_000,
    iterations: int = 20,
) -> Registration:
    """Find the rigid transform that brings a moving volume onto a fixed one (magnitudes of the same contrast).

    Args:
      moving: x y z.
      fixed: x y z, on any grid of its own.
      moving_affine: voxel index to world [mm].
      fixed_affine: voxel index to world [mm].
      fixed_mask: voxels to go by, and their rim; None for wherever the fixed volume is bright, and its rim.
      start: 4x4 to start from alone, fixed world to moving world; None to try several rotations.
      smoothing: standard deviation of the Gaussian at each level [mm], falling.
      points: voxels of the fixed volume that are compared.
      iterations: steps at each level.

    Returns:
      The transform, fixed world to moving world, and the correlation at the finest level.

    Raises:
      ValueError: if the axes do not fit, or the volumes hardly overlap.
    """
    moving, fixed = (_one_volume(n, v) for n, v in (("moving", moving), ("fixed", fixed)))
    affines = [np.asarray(check_matrix(n, a), np.float64)
               for n, a in (("moving_affine", moving_affine), ("fixed_affine", fixed_affine))]  # fmt: skip
    sizes = [np.linalg.norm(a[:3, :3], axis=0) for a in affines]
    bright = fixed if fixed_mask is None else as_mask("fixed_mask", fixed_mask, fixed.shape).astype(jnp.float32)
    wide = gaussian_smooth(bright, smoothing[0] / sizes[1])
    indices = _spread(np.asarray(wide), points)
    world = affines[1][:3, :3] @ indices + affines[1][:3, 3:]
    centre = world.mean(axis=1)

    def at_level(sigma: float, every: int) -> Points:
        smooth_fixed, smooth_moving = (gaussian_smooth(v, sigma / s) for v, s in zip((fixed, moving), sizes[::-1]))
        few = indices[:, ::every]
        known = inside_volume(fixed.shape, jnp.asarray(few, jnp.float32), FACES * sigma / sizes[1])
        return Points(
            places=jnp.asarray((world - centre[:, None])[:, ::every], jnp.float32),
            values=smooth_fixed[few[0], few[1], few[2]],
            weight=known.astype(jnp.float32),
            margin=jnp.asarray(FACES * sigma / sizes[0], jnp.float32),
            centre=jnp.asarray(centre, jnp.float32),
            moving=smooth_moving,
            to_voxel=jnp.asarray(np.linalg.inv(affines[0]), jnp.float32),
        )

    if start is None:
        motion = _best_start(at_level(smoothing[0], max(1, points // COARSE_POINTS)), moving, affines[0], centre)
    else:
        matrix = np.asarray(check_matrix("start", start), np.float64)
        shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
        motion = Motion(jnp.asarray(matrix[:3, :3], jnp.float32), jnp.asarray(shift, jnp.float32))
    for sigma in smoothing:
        motion, correlation = _align(motion, at_level(sigma, 1), iterations=iterations)
    if not float(correlation) > 0:
        raise ValueError(
            f"moving and fixed must overlap by {LEAST_OVERLAP:.0%} and look alike, got a correlation of "
            f"{float(correlation):.2f}: check the affines, or pass start"
        )
    return Registration(_matrix(motion, centre), float(correlation))


def align(motion: Motion, points: Points, *, iterations: int) -> tuple[Motion, Float[Array, ""]]:
    """Take Levenberg-Marquardt steps from a motion; return the best and its correlation (pure, maps over motions)."""

    def step(carry, _):
        motion, correlation, damping = carry
        normal, gradient = _normal_equations(motion, points)
        ridge = 1e-9 * jnp.trace(normal) * jnp.eye(8, dtype=jnp.float32)
        damped = normal + damping * jnp.diag(jnp.diagonal(normal)) + ridge
        trial = _advance(motion, jnp.linalg.solve(damped, gradient)[:6])
        reached = correlate(trial, points)
        better = reached > correlation
        motion = jax.tree.map(lambda new, old: jnp.where(better, new, old), trial, motion)
        damping = jnp.clip(jnp.where(better, damping / 5, damping * 5), 1e-6, 1e4)
        return (motion, jnp.maximum(reached, correlation), damping), None

    (motion, correlation, _), _ = jax.lax.scan(
        step, (motion, correlate(motion, points), jnp.float32(1e-2)), length=iterations
    )
    return motion, correlation


# compiled once for all heads of one size
_align = jax.jit(align, static_argnames="iterations")


def correlate(motion: Motion, points: Points) -> Float[Array, ""]:
    """Return the correlation of both volumes where they overlap; -1 where they hardly do (differentiable)."""
    values, weight = _look(motion, points)
    total = jnp.maximum(jnp.sum(weight), 1)
    a, b = (v - jnp.sum(weight * v) / total for v in (values, points.values))
    power = jnp.sum(weight * a**2) * jnp.sum(weight * b**2)
    found = jnp.sum(weight * a * b) / jnp.sqrt(jnp.where(power > 0, power, 1))
    return jnp.where((power > 0) & (total > LEAST_OVERLAP * jnp.sum(points.weight)), found, -1)


def rotation_matrix(vector: VectorLike) -> Float[Array, "3 3"]:
    """Return the rotation about a vector by its length [rad].

    References:
      Rodrigues, J. Math. Pures Appl. 5:380 (1840).
    """
    v = as_vector("vector", vector)
    squared = jnp.sum(v**2)
    # a safe root: its gradient at zero would be infinite
    angle = jnp.sqrt(jnp.where(squared > 1e-8, squared, 1))
    first = jnp.where(squared > 1e-8, jnp.sin(angle) / angle, 1 - squared / 6)
    second = jnp.where(squared > 1e-8, (1 - jnp.cos(angle)) / angle**2, 0.5 - squared / 24)
    cross = jnp.asarray([[0, -1, 0], [1, 0, 0], [0, 0, 0]]) * v[2]
    cross = cross + jnp.asarray([[0, 0, 1], [0, 0, 0], [-1, 0, 0]]) * v[1]
    cross = cross + jnp.asarray([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) * v[0]
    return jnp.eye(3, dtype=jnp.float32) + first * cross + second * jnp.matmul(cross, cross, precision=HIGHEST)


def _look(motion: Motion, points: Points) -> tuple[Array, Array]:
    """Read the moving volume at every point: values, and the points' weights."""
    turned = jnp.matmul(motion.rotation, points.places, precision=HIGHEST)
    voxels = move(points.to_voxel, turned + (points.centre + motion.shift)[:, None])
    return interpolate(points.moving, voxels, taps=2), _reached(points, voxels)


def _normal_equations(motion: Motion, points: Points) -> tuple[Float[Array, "8 8"], Float[Array, "8"]]:
    """Linearise in rotation, translation, scale and shift of the values."""
    turned = jnp.matmul(motion.rotation, points.places, precision=HIGHEST)

    def values_at(places):
        values = interpolate(points.moving, move(points.to_voxel, places), taps=2)
        return jnp.sum(values), values

    world = turned + (points.centre + motion.shift)[:, None]
    # each value depends on its own place alone: one backward pass gives every slope
    slope, values = jax.grad(values_at, has_aux=True)(world)
    weight = _reached(points, move(points.to_voxel, world))
    total = jnp.maximum(jnp.sum(weight), 1)
    a, b = (v - jnp.sum(weight * v) / total for v in (values, points.values))
    scale = jnp.sum(weight * a * b) / jnp.maximum(jnp.sum(weight * a**2), jnp.finfo(jnp.float32).tiny)
    rows = jnp.concatenate([scale * jnp.cross(turned, slope, axis=0), scale * slope, a[None], jnp.ones_like(a)[None]])
    normal = jnp.matmul(rows * weight, rows.T, precision=HIGHEST)
    return normal, jnp.matmul(rows * weight, b - scale * a, precision=HIGHEST)


def _reached(points: Points, voxels: Float[Array, "3 n"]) -> Float[Array, " n"]:
    return jnp.where(inside_volume(points.moving.shape, voxels, points.margin), points.weight, 0)


def _advance(motion: Motion, change: Float[Array, "6"]) -> Motion:
    turn = jnp.matmul(rotation_matrix(change[:3]), motion.rotation, precision=HIGHEST)
    return Motion(turn, motion.shift + change[3:])


def _best_start(points: Points, moving: Array, affine: np.ndarray, centre: np.ndarray) -> Motion:
    """Align the coarsest level from several rotations, each from the shared world and from the centres of mass."""
    weight = np.asarray(moving, np.float64)
    indices = [np.sum(weight * np.arange(n).reshape([-1 if a == b else 1 for b in range(3)])) / max(weight.sum(), 1e-12)
               for a, n in enumerate(moving.shape)]  # fmt: skip
    mass = np.asarray(points.values, np.float64)
    own = np.sum(np.asarray(points.places, np.float64) * mass, axis=1) / max(mass.sum(), 1e-12) + centre
    shifts = [np.zeros(3), affine[:3, :3] @ np.asarray(indices) + affine[:3, 3] - own]
    turns = [np.zeros(3), *(angle * np.eye(3)[axis] for axis in range(3) for angle in START_ANGLES)]
    starts = Motion(
        rotation=jnp.stack([rotation_matrix(turn) for turn in turns for _ in shifts]),
        shift=jnp.asarray(np.stack([shift for _ in turns for shift in shifts]), jnp.float32),
    )
    return _best_of(starts, points)


@jax.jit
def _best_of(starts: Motion, points: Points) -> Motion:
    motions, correlations = jax.lax.map(lambda start: align(start, points, iterations=15), starts)
    best = jnp.argmax(correlations)
    return jax.tree.map(lambda leaf: leaf[best], motions)


def _spread(wide: np.ndarray, points: int) -> np.ndarray:
    """Pick voxels where the smoothed volume is not dark, scattered the same way every time."""
    places = np.flatnonzero(wide > RIM * wide.max())
    chosen = np.random.default_rng(0).permutation(places)[:points]
    return np.stack(np.unravel_index(chosen, wide.shape))


def _matrix(motion: Motion, centre: np.ndarray) -> np.ndarray:
    # single precision leaves the rotation a little off: the nearest one
    left, _, right = np.linalg.svd(np.asarray(motion.rotation, np.float64))
    matrix = np.eye(4)
    matrix[:3, :3] = left @ right
    matrix[:3, 3] = centre + np.asarray(motion.shift, np.float64) - matrix[:3, :3] @ centre
    return matrix


def _one_volume(name: str, volume: ArrayLike) -> Array:
    array = as_volume(name, volume)
    if array.ndim != 3:
        raise ValueError(f"{name} must have the axes x y z, got shape {array.shape}")
    return array


def register_magnitudes(
    moving: ArrayLike,
    fixed: ArrayLike,
    moving_affine: ArrayLike,
    fixed_affine: ArrayLike,
    *,
    evening: float = 5.0,
    smoothing: tuple[float, ...] = (8.0, 4.0, 2.0),
    points: int = 60_000,
    iterations: int = 20,
) -> Registration:
    """Register magnitudes of one head by normalised correlation, the coils' shading divided out first.

    Args:
      moving: x y z.
      fixed: x y z, on any grid of its own.
      moving_affine: voxel index to world [mm].
      fixed_affine: voxel index to world [mm].
      evening: standard deviation of the Gaussian of `even_out` [mm]; zero to leave the shading.
      smoothing: as `register_rigid` takes it.
      points: alike.
      iterations: alike.

    Returns:
      What `register_rigid` returns.

    Raises:
      ValueError: as that does, or if an option is out of its range.
    """
    check_option("evening", evening, zero=True)
    check_option("smoothing", smoothing)
    check_option("points", points)
    check_option("iterations", iterations)
    affines = [np.asarray(affine, np.float64) for affine in (moving_affine, fixed_affine)]
    if evening:
        sizes = (np.linalg.norm(affine[:3, :3], axis=0) for affine in affines)
        moving, fixed = (even_out(volume, size, scale=evening) for volume, size in zip((moving, fixed), sizes))
    return register_rigid(moving, fixed, *affines, smoothing=smoothing, points=points, iterations=iterations)


def even_out(volume: ArrayLike, voxel_size: VectorLike, *, scale: float = 5.0) -> Volume:
    """Divide a magnitude by its mean around each voxel.

    The coils' shading stays in the scanner while the head turns: registered as it is, it draws the head after it.

        volume / (S + 0.1 max S),    S = mean of the volume where it is above zero, weighted by a Gaussian

    Args:
      volume: magnitude, x y z.
      voxel_size: edges of a voxel [mm].
      scale: standard deviation of the Gaussian [mm].
    """
    image = _one_volume("volume", volume)
    width = scale / as_vector("voxel_size", voxel_size)
    inside = (image > 0).astype(jnp.float32)
    around = gaussian_smooth(image, width) / jnp.maximum(gaussian_smooth(inside, width), 1e-3)
    # the part of the largest keeps the air's noise from being as bright as tissue
    limit = around + 0.1 * jnp.max(around)
    return jnp.where((image > 0) & (limit > 0), image / jnp.where(limit > 0, limit, 1), 0)
