"""Heads made from nothing: susceptibility maps for training, drawn inside the compiled step.

A brain is a warped ellipsoid in millimetres, its cortex folded along the zero set of a random field, its nuclei and
ventricles ellipsoids painted over one another, its veins the lines on which a complex random field vanishes. Sources
are painted with edges one voxel wide and the map is cut to the band that a scanner keeps, so that the discrete dipole
holds exactly for it. Only arrays and `jax.random`: everything here can be jitted and vmapped.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from qsmjax.numerics.arrays import Shape, Vector, VectorLike, Volume, as_vector
from qsmjax.numerics.kspace import frequencies
from qsmjax.numerics.resample import band_limit
from qsmjax.simulate.tissue import TISSUES

Points = Float[Array, "3 x y z"]

BRAIN = (66.0, 84.0, 60.0)
"""Half axes of an adult's brain: right, anterior, superior [mm]."""

# both sides at once where the first number is 1: centre (|x|, y, z) and half axes [mm], tissue
STRUCTURES = (
    (1, (22, -52, -36), (27, 27, 18), "cerebellar_cortex"),
    (1, (17, -52, -34), (16, 17, 9), "cerebellar_white"),
    (0, (0, -26, -38), (12, 12, 26), "brainstem"),
    (0, (0, 0, 27), (24, 40, 4), "callosum"),
    (1, (31, -42, 4), (4, 28, 7), "callosum"),
    (1, (10, 0, 19), (5, 32, 5), "csf"),
    (1, (24, -38, 7), (5, 17, 6), "csf"),
    (0, (0, -4, 3), (2, 13, 10), "csf"),
    (0, (0, -42, -28), (6, 5, 9), "csf"),
    (1, (11, -9, 6), (8, 14, 9), "thalamus"),
    (1, (13, 18, 7), (5, 9, 9), "caudate"),
    (1, (17, -3, 20), (3, 17, 4), "caudate"),
    (1, (26, 5, 1), (5.5, 15, 10), "putamen"),
    (1, (19, 0, -1), (4, 9, 6), "pallidum"),
    (1, (27, -19, -14), (6, 18, 5), "hippocampus"),
    (1, (23, -3, -18), (7, 7, 7), "amygdala"),
    (1, (5, -17, -9), (3.3, 3.6, 4.5), "red_nucleus"),
    (1, (9.5, -13, -13), (5.5, 5, 2.4), "substantia_nigra"),
    (1, (15, -54, -34), (6, 8, 4.5), "dentate"),
)

# chance of presence relative to the option, radius [mm], susceptibility [ppm]
LESIONS = (
    (1.0, (0.8, 2.5), (0.3, 1.5)),  # microbleeds
    (1.0, (0.8, 2.5), (0.3, 1.5)),
    (1.0, (1.0, 5.0), (-2.0, -0.2)),  # calcification
    (0.6, (4.0, 13.0), (0.2, 1.4)),  # haemorrhage
    (0.8, (2.0, 8.0), (0.02, 0.10)),  # demyelinated plaques
    (0.8, (2.0, 8.0), (0.02, 0.10)),
)


def random_chi(
    key: Key[Array, ""], shape: Shape, voxel_size: VectorLike = (1.0, 1.0, 1.0), *, lesions: ArrayLike = 0.35
) -> tuple[Float[Array, "x y z"], Bool[Array, "x y z"]]:
    """Draw a susceptibility map and its brain mask.

    Where the box is smaller than a brain, the map shows anything between a whole, shrunken brain and a part of one at
    its true size. In the latter case the brain ends at the box: a field made from the map holds all its sources.

    Args:
      key: random key; fold in the index of the sample.
      shape: voxels along x, y, z; static.
      voxel_size: edges of a voxel [mm]; may be traced.
      lesions: chance of each lesion that it is present, 0 for healthy brains; may be traced.

    Returns:
      chi [ppm], with mean zero over the mask and (but for the band's ringing) zero outside; and the mask.
    """
    size = as_vector("voxel_size", voxel_size)
    keys = jax.random.split(key, 8)
    points, scale = _place(keys[0], shape, size)
    edge = jnp.max(size) / scale
    half = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
    fold, vein, twin, amount = _enlarge(
        _random_fields(keys[1], half, 2 * size / scale, jnp.asarray([17.0, 26.0, 26.0, 60.0], jnp.float32)), shape
    )
    texture = _texture(keys[2], shape, size / scale)

    depth = _depth(points) + 1.5 * texture
    inside = _step(depth, edge) * _box_window(shape)
    chi = _paint_cortex(keys[3], depth, fold, edge)
    chi = _paint_rows(chi, points, texture, edge, *_structures(keys[4]))
    # grain in every tissue, the more the more iron it holds
    chi = chi + (0.006 + 0.15 * jnp.abs(chi)) * texture
    chi = _paint_veins(keys[5], chi, vein, twin, amount, edge)
    chi = _paint_rows(chi, points, texture, edge, *_lesions(keys[6], points, lesions))
    mask = inside > 0.5
    chi = inside * (chi - jnp.sum(chi * inside * mask) / jnp.maximum(jnp.sum(inside * mask), 1))
    chi = band_limit(chi)
    count = jnp.maximum(jnp.sum(mask), 1)
    # once more: the cut moves a little of chi across the mask's edge
    return chi - mask * jnp.sum(chi * mask) / count, mask


def _place(key: Key[Array, ""], shape: Shape, size: Vector) -> tuple[Points, Float[Array, ""]]:
    """Return each voxel's place in the brain [mm of an adult's], and the size of this brain relative to that."""
    draws, bend = jax.random.split(key)
    uniform = jax.random.uniform(draws, (3, 4), jnp.float32)
    box = size * jnp.asarray(shape) / 2
    brain = jnp.asarray(BRAIN, jnp.float32) * (0.9 + 0.2 * uniform[:, 0])
    fits = jnp.minimum(jnp.min(0.94 * box / brain), 1.0)
    scale = fits ** uniform[0, 1]
    slack = jnp.where(brain * scale > box, brain * scale - 0.6 * box, box - brain * scale)
    # within the ellipsoid, so that no box lies beyond the brain's corner
    offset = slack * (2 * uniform[:, 2] - 1) / jnp.sqrt(3.0)
    axes = [(jnp.arange(n) - (n - 1) / 2) * d - o for n, d, o in zip(shape, size, offset)]
    signs = jnp.where(uniform[:, 3] > 0.5, 1.0, -1.0)
    stretch = signs * jnp.asarray(BRAIN, jnp.float32) / (brain * scale)
    places = jnp.stack(jnp.meshgrid(*[a * s for a, s in zip(axes, stretch)], indexing="ij"))
    return places + _enlarge(4.0 * jax.random.normal(bend, (3, 6, 6, 6), jnp.float32), shape), scale


def _depth(points: Points) -> Volume:
    """Return the depth below the brain's surface [mm]."""
    return -_ellipsoid(points, jnp.zeros(3, jnp.float32), jnp.asarray(BRAIN, jnp.float32))


def _ellipsoid(points: Points | Sequence[Volume], centre: Vector, radii: Vector) -> Volume:
    """Return the distance from an ellipsoid's surface [mm], negative inside: exact there to first order."""
    # axis by axis: XLA does not vectorise sums over the stacked axes, nor what it fuses with them
    x, y, z = ((points[i] - centre[i]) / radii[i] for i in range(3))
    near = jnp.sqrt(x**2 + y**2 + z**2 + 1e-6)
    steep = jnp.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 + 1e-9)
    return near * (near - 1) / steep


def _step(distance: Volume, edge: Float[Array, ""]) -> Volume:
    """Rise from 0 to 1 about distance 0, over one voxel."""
    return jnp.clip(0.5 + distance / edge, 0, 1)


def _paint_cortex(key: Key[Array, ""], depth: Volume, fold: Volume, edge: Float[Array, ""]) -> Volume:
    """Paint CSF, the folded ribbon of cortex and white matter, by the distance from the surface and its sulci."""
    draws, subject = jax.random.split(key)
    uniform = jax.random.uniform(draws, (3,), jnp.float32)
    normal = jnp.clip(jax.random.normal(subject, (2,), jnp.float32), -2, 2)
    sulcus = 3.2 * jnp.abs(fold) + jnp.maximum(depth - (10 + 12 * uniform[0]), 0)
    outer = jnp.minimum(depth, sulcus)
    csf = 0.3 + 0.9 * uniform[1]
    ribbon = csf + 1.8 + 1.4 * uniform[2]
    grey, white = (t.chi + 1.5 * t.spread * n for t, n in zip((TISSUES["cortex"], TISSUES["white"]), normal))
    chi = grey * _step(outer - csf, edge)
    return chi + (white - chi) * _step(outer - ribbon, edge)


def _structures(key: Key[Array, ""]) -> tuple[Array, Array, Array, Array]:
    """Return mirror flags, centres, half axes and susceptibilities of nuclei and ventricles, shaken."""
    count = len(STRUCTURES)
    mirror = jnp.asarray([m for m, *_ in STRUCTURES], jnp.float32)
    centres = jnp.asarray([c for _, c, _, _ in STRUCTURES], jnp.float32)
    radii = jnp.asarray([r for _, _, r, _ in STRUCTURES], jnp.float32)
    tissues = [TISSUES[name] for *_, name in STRUCTURES]
    shaken = jnp.clip(jax.random.normal(key, (count + 1, 7), jnp.float32), -2, 2)
    # iron grows with age in all nuclei together
    iron = 1 + 0.2 * shaken[count, 0]
    means = jnp.asarray([t.chi for t in tissues], jnp.float32)
    spread = jnp.asarray([t.spread for t in tissues], jnp.float32)
    chi = means * jnp.where(means > 0.03, iron, 1) + 1.2 * spread * shaken[:count, 0]
    return mirror, centres + shaken[:count, 1:4], radii * jnp.exp(0.15 * shaken[:count, 4:]), chi


def _lesions(key: Key[Array, ""], points: Points, chance: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """Return mirror flags, centres, half axes and susceptibilities of lesions; absent ones are far away."""
    count = len(LESIONS)
    low, high = (jnp.asarray([[r[i], c[i]] for _, r, c in LESIONS], jnp.float32) for i in (0, 1))
    uniform = jax.random.uniform(key, (count, 7), jnp.float32)
    drawn = low + (high - low) * uniform[:, :2]
    flat = points.reshape(3, -1)
    centres = flat[:, (uniform[:, 2] * flat.shape[1]).astype(jnp.int32)].T
    weight = jnp.asarray([w for w, _, _ in LESIONS], jnp.float32)
    centres = jnp.where((uniform[:, 3] < weight * jnp.asarray(chance))[:, None], centres, 1e4)
    return jnp.zeros(count, jnp.float32), centres, drawn[:, :1] * (0.75 + 0.5 * uniform[:, 4:]), drawn[:, 1]


def _paint_rows(
    chi: Volume, points: Points, texture: Volume, edge: Array, mirror: Array, centres, radii, values
) -> Volume:
    """Paint ellipsoids over a map one after another, their edges made uneven by the texture."""

    def paint(chi, row):
        mirror, centre, radii, value = row
        side = (jnp.where(mirror > 0, jnp.abs(points[0]), points[0]), points[1], points[2])
        uneven = jnp.minimum(0.6, 0.2 * jnp.min(radii)) * texture
        return chi + (value - chi) * _step(uneven - _ellipsoid(side, centre, radii), edge), None

    return jax.lax.scan(paint, chi, (mirror, centres, radii, values))[0]


def _paint_veins(key: Key[Array, ""], chi: Volume, vein: Volume, twin: Volume, amount: Volume, edge: Array) -> Volume:
    """Paint veins along the lines where two random fields vanish together, in places more than in others."""
    uniform = jax.random.uniform(key, (2,), jnp.float32)
    # 4.1 mm: the mean distance over which the field changes by its own standard deviation
    distance = 4.1 * jnp.sqrt(vein**2 + twin**2)
    radius = 0.3 + 0.8 * uniform[0] + 0.35 * amount
    value = 0.15 + 0.25 * uniform[1]
    return chi + (value - chi) * jnp.minimum(_step(radius - distance, edge), jnp.maximum(2 * radius / edge, 0))


def _texture(key: Key[Array, ""], shape: Shape, size: Vector) -> Volume:
    """Draw grain of several scales: unit variance, spectral power falling with the frequency."""
    k = frequencies(shape, size)
    power = (k[0] ** 2 + k[1] ** 2 + k[2] ** 2 + 1 / 30.0**2) ** -0.7
    return _unit(_filtered(key, shape, power))


def _random_fields(key: Key[Array, ""], shape: Shape, size: Vector, wavelengths: Float[Array, " n"]) -> Array:
    """Draw smooth fields of unit variance about the wavelengths [mm]."""
    k = frequencies(shape, size)
    radius = jnp.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    band = jnp.exp(-(((radius * wavelengths[:, None, None, None] - 1) / 0.4) ** 2))
    return _unit(_filtered(key, shape, band))


def _filtered(key: Key[Array, ""], shape: Shape, weights: Array) -> Array:
    # noise drawn in k-space would spare a transform, but takes XLA many times as long to compile
    noise = jax.random.normal(key, (*weights.shape[:-3], *shape), jnp.float32)
    return jnp.fft.irfftn(weights * jnp.fft.rfftn(noise, axes=(-3, -2, -1)), shape, axes=(-3, -2, -1))


def _unit(fields: Array) -> Array:
    """Divide each field, of mean zero, by its standard deviation."""
    power = jnp.mean(fields**2, axis=(-3, -2, -1), keepdims=True)
    return fields / jnp.sqrt(power + 1e-20)


def _enlarge(fields: Array, shape: Shape) -> Array:
    return jax.image.resize(fields, (*fields.shape[:-3], *shape), "cubic")


def _box_window(shape: Shape) -> Float[Array, "x y z"]:
    """Rise from 0 at the faces of the box to 1 within two voxels."""
    places = [jnp.arange(n, dtype=jnp.float32) for n in shape]
    rises = [jnp.clip(jnp.minimum(at, n - 1 - at) / 2, 0, 1) for at, n in zip(places, shape)]
    return rises[0][:, None, None] * rises[1][:, None] * rises[2]
