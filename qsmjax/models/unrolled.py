"""The learned inversion: total variation begins, the physics looks at what it left, a network corrects it.

    x₀ = start(weigh(f)),    x ← x + correctionₖ(look(x), geometry),  k = 0, 1, ...

`look` works on the whole volume with the exact dipole of the scan at hand, so the network, which is local, needs to
know no kernel: voxel size, B0's direction and the noise come to it as numbers. One set of weights serves every grid,
without resampling or turning.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from qsmjax.inversion import data_terms
from qsmjax.inversion.frame import inversion_kernel
from qsmjax.inversion.measured import measured
from qsmjax.inversion.variation import Splits, minimise_variation, nothing
from qsmjax.inversion.weighting import LEAST_NOISE, auto_weight, noise_level
from qsmjax.numerics.arrays import Kernel, Mask, Vector, Volume
from qsmjax.numerics.kspace import multiply_k
from qsmjax.numerics.operators import centred, difference, masked_mean
from qsmjax.numerics.solvers import cg_steps
from qsmjax.physics.geometry import Geometry

UNIT = 0.05
"""Susceptibility that the network counts as one [ppm]."""
FEATURES = 8
ABOUT = 10
OFFSET = 4.0
"""Added to the noise's logarithm within the mask."""
ROUND, ROUNDS = 10, (4, 2)
"""Iterations of a round, and rounds of the start: with even weights, and with weights that spare the edges found."""
STRUCTURE, EDGE = 0.75, 2.5
"""Slope at which an edge's weight is half, over the mean slope: of the signal's logarithm, and of the map found."""
FLAT = 1e-3
"""Slope of the signal's logarithm that is none [1/mm]: rounding must not make edges of a flat noise map."""
BOOST = 1.15
"""Factor on the weight once the map's own edges are spared (all three chosen on heads 11 and 12: docs/learned.md)."""
REFINEMENTS, TRUST_REGION = 5, 0.02
"""Steps of the refinement, and how strongly it holds to where it began."""
USUAL, RISE, LEAST_PART, FOREIGN = 0.95, 0.18, 0.03, 1.2
"""What a start leaves of a field over its noise, where all of it comes from the mask: 0.95 part^0.18, part the noise
over the field, 0.03 at least; from how many times as much on there must be sources elsewhere (docs/learned.md)."""
CONE = 0.1
"""|D| below which a frequency counts as lost in the cone."""


class Start(NamedTuple):
    """Two maps of total variation: the signal's edges spared, and then those of the map itself too [ppm]."""

    plain: Volume
    sharp: Volume


class Scan(NamedTuple):
    """A field in its frame, and what is known of it: weighed once, for all that looks at it.

    Attributes:
      field: [ppm], zero outside the mask.
      mask: where chi may differ from zero.
      geometry: of the frame.
      dipole: of that, in k-space.
      trust: of each voxel's field, of mean one.
      free: whether the field holds a constant.
      level: standard deviation of the noise [ppm]: no less than a part of the field.
      weight: of the total variation [ppm mm].
      edges: weights of the differences along each axis, of mean one: a difference costs less where the signal has one.
    """

    field: Volume
    mask: Mask
    geometry: Geometry
    dipole: Kernel
    trust: Volume
    free: Bool[Array, ""]
    level: Float[Array, ""]
    weight: Float[Array, ""]
    edges: Float[Array, "3 x y z"]


def weigh(field: Volume, mask: Mask, geometry: Geometry, noise: Volume | None, magnitude: Volume | None) -> Scan:
    """Weigh a field by its noise or magnitude, where one is known.

    m, whose edges are spared, is one over the noise, or the magnitude where no noise map or a flat one is given:
    anatomy has its edges in both.
    """
    field, trust, level, _ = measured(field, mask, geometry, noise, magnitude, weight=1.0)
    size = jnp.sqrt(masked_mean(centred(field, mask) ** 2, mask))
    level = jnp.maximum(level, jnp.maximum(LEAST_NOISE * size, 1e-6))
    weight = jnp.asarray(auto_weight(level, field, mask, geometry))
    signal = _signal(mask, noise, magnitude)
    edges = jnp.ones((3, *field.shape)) if signal is None else _spared(signal, mask, geometry, STRUCTURE, FLAT)
    free = data_terms.holds_constant(field, trust)
    return Scan(field, mask, geometry, inversion_kernel(geometry), trust, free, level, weight, _over_mean(edges, mask))


def start(scan: Scan, *, call: Callable[..., Any] = lambda function, *args: function(*args)) -> Start:
    """Invert by total variation that spares the edges of the signal, and then those of what it found.

        weight of a difference = s / (|∂ log m| + s) · e / (|∂chi| + e),    s, e in proportion to the means

    over its mean, so that the whole weighs the same. The second factor comes in when there is a chi. Rounds are
    compiled here, where else only callers compile, so that all of them are one; `call` may have them compiled ahead.

    References:
      Liu et al., NeuroImage 59:2560 (2012), doi:10.1016/j.neuroimage.2011.08.082 (edges of the magnitude).
      Candès, Wakin & Boyd, J. Fourier Anal. Appl. 14:877 (2008), doi:10.1007/s00041-008-9045-x (reweighted l1).
    """
    state = call(_nothing, scan.field)
    for _ in range(ROUNDS[0]):
        state = call(_round, scan, state)
    plain, scan = state.chi, call(_sparing, scan, state.chi)
    for _ in range(ROUNDS[1]):
        state = call(_round, scan, state)
    return call(_begun, scan.mask, plain, state.chi)


_nothing = jax.jit(nothing)


@jax.jit
def _begun(mask: Mask, plain: Volume, sharp: Volume) -> Start:
    return Start(jnp.where(mask, plain, 0), jnp.where(mask, sharp, 0))


@jax.jit
def _sparing(scan: Scan, chi: Volume) -> Scan:
    """Spare the edges of a map too."""
    edges = scan.edges * _spared(chi, scan.mask, scan.geometry, EDGE, 1e-9)
    return scan._replace(weight=BOOST * scan.weight, edges=_over_mean(edges, scan.mask))


def _over_mean(edges: Float[Array, "3 x y z"], mask: Mask) -> Float[Array, "3 x y z"]:
    return edges / masked_mean(edges.mean(0), mask)


@jax.jit
def _round(scan: Scan, begun: Splits) -> Splits:
    x, y, z = scan.edges
    return minimise_variation(
        data_terms.linear_up_to_constant(scan.field, scan.trust, free=scan.free),
        scan.field,
        scan.mask,
        scan.geometry,
        weight=scan.weight,
        max_iterations=ROUND,
        tolerance=None,
        edges=(x, y, z),
        dipole=scan.dipole,
        start=begun,
    ).state


def _left(scan: Scan, made: Volume) -> Volume:
    """Return what is left of the field, trusted, where a map makes so much of it and it may hold a constant."""
    return _up_to_constant(scan, scan.field - made)


def _up_to_constant(scan: Scan, rest: Volume) -> Volume:
    """Take off what is left of a field the constant that it holds, and trust it; zero where nothing is trusted."""
    heard = scan.trust**2
    constant = jnp.sum(heard * rest) / jnp.maximum(jnp.sum(heard), 1e-30)
    return scan.trust * jnp.where(scan.trust > 0, rest - jnp.where(scan.free, constant, 0), 0)


def _signal(mask: Mask, noise: Volume | None, magnitude: Volume | None) -> Volume | None:
    """Return the signal's logarithm less its mean: of one over the noise, or the magnitude if that is flat."""
    if noise is None and magnitude is None:
        return None
    # no noise: not measured there, and nothing is known of the signal
    known = mask if noise is None else mask & (noise > 0)
    signal = jnp.asarray(magnitude) if noise is None else jnp.where(known, 1 / jnp.where(known, noise, 1), 0)
    if noise is not None and magnitude is not None:
        largest, least = jnp.max(jnp.where(known, noise, 0)), jnp.min(jnp.where(known, noise, jnp.inf))
        signal = jnp.where(largest > 1.001 * least, signal, magnitude)
    logarithm = jnp.log(jnp.maximum(signal, 1e-6 * jnp.max(jnp.where(mask, signal, 0))))
    return jnp.where(mask, logarithm - masked_mean(logarithm, mask), 0)


def _spared(volume: Volume, mask: Mask, geometry: Geometry, level: float, least: float) -> Float[Array, "3 x y z"]:
    """Weigh each difference by how flat the volume is there, over its mean slope; slopes below the least are none."""
    steep = jnp.stack([jnp.abs(difference(volume, axis)) / geometry.voxel_size[axis] for axis in range(3)])
    half = level * masked_mean(steep.mean(0), mask) + least
    return half / (steep + half)


def look(begun: Start, scan: Scan) -> Float[Array, "x y z f"]:
    """Return what the physics knows of a map, in `FEATURES` volumes of order one.

    The sharp map; the plain one, and a few steps towards the data, as differences to it; the part of map and steps that
    lies in the cone; the residual over the noise, and brought back by the dipole; the logarithm of the noise's mean in
    the mask. The noise map itself is not shown: it is made of the signal, whose grain a network would take for chi's.
    """
    mask, trust, level, chi = scan.mask, scan.trust, scan.level, begun.sharp
    makes = lambda x: multiply_k(x, scan.dipole)
    residual = _left(scan, makes(chi))
    back = jnp.where(mask, makes(trust * residual), 0)
    step = _refine(back, trust, mask, makes)
    cone = jnp.exp(-((scan.dipole / CONE) ** 2))
    lost = multiply_k(jnp.stack([chi, step]), cone)
    volumes = (
        jnp.arcsinh(chi / UNIT),
        (begun.plain - chi) / UNIT,
        step / UNIT,
        jnp.where(mask, lost[0], 0) / UNIT,
        jnp.where(mask, lost[1], 0) / UNIT,
        jnp.clip(residual / level, -5, 5) / 2,
        back / level,
        # shifted off zero, so that the mask needs no volume of its own
        jnp.where(mask, jnp.log(level / 1e-3) + OFFSET, 0),
    )
    return jnp.stack(volumes, -1)


def share(begun: Start, change: Volume, scan: Scan) -> Float[Array, ""]:
    """Return the part of a change that the data allow, from 0 to 1: the network may not leave them.

        the largest t with ‖W (D (chi + t change) - f)‖ ≤ ‖W (D chi - f)‖ + noise

    On heads it is one. On what is like nothing that the network has seen, the map that it began with is left.
    """
    makes = lambda x: multiply_k(jnp.where(scan.mask, x, 0), scan.dipole)
    rest, moved = _left(scan, makes(begun.sharp)), _up_to_constant(scan, makes(change))
    level, mean = scan.level, lambda a, b: masked_mean(a * b, scan.mask)
    square, along, before = jnp.maximum(mean(moved, moved), 1e-30), mean(rest, moved), mean(rest, rest)
    room = level**2 + 2 * level * jnp.sqrt(before)
    return jnp.minimum((along + jnp.sqrt(along**2 + square * room)) / square, 1)


def unexplained(begun: Start, scan: Scan) -> Float[Array, ""]:
    """Return what a start leaves of the field over the noise, as a multiple of what is usual.

    No source in the mask makes the field of one outside: a residue of background is left over, or makes streaks. The
    noise is the larger of what is told and what is seen, as a noise map may be too sure. Zero where next to no noise is
    seen: such a field is no scan's, and what is left of it is the start's own doing; or it is a total one.
    """
    seen = noise_level(scan.field, scan.mask, scan.geometry, None)
    level = jnp.maximum(scan.level, seen)
    rest = _left(scan, multiply_k(begun.plain, scan.dipole))
    size, left = (jnp.sqrt(masked_mean(volume**2, scan.mask)) for volume in (centred(scan.field, scan.mask), rest))
    part = jnp.maximum(level / jnp.maximum(size, 1e-30), LEAST_PART)
    # the least noise that is ever seen is a part of the field
    return jnp.where(seen > 1.01 * LEAST_NOISE * size, left / (level * USUAL * part**RISE), 0)


def corrected(features: Float[Array, "x y z f"], change: Volume) -> Start:
    """Read out of the volumes the maps that were looked at, the sharp one with a stage's change: the next start."""
    sharp = UNIT * jnp.sinh(features[..., 0])
    return Start(sharp + UNIT * features[..., 1], sharp + change)


def _refine(right: Volume, trust: Volume, mask: Mask, makes) -> Volume:
    """Take a few conjugate-gradient steps of (DᵀW²D + λ) step = right, within the mask."""

    def operate(x):
        return jnp.where(mask, makes(trust**2 * makes(x)), 0) + TRUST_REGION * x

    return cg_steps(operate, right, max_iterations=REFINEMENTS).state


def about(voxel_size: Vector, b0_dir: Vector) -> Float[Array, "10"]:
    """Return the geometry in numbers of order one: logarithms of the edges, and the products of B0's components."""
    b = b0_dir / jnp.linalg.norm(b0_dir)
    products = jnp.stack([b[0] * b[0], b[1] * b[1], b[2] * b[2], b[0] * b[1], b[0] * b[2], b[1] * b[2]])
    size = jnp.log(voxel_size)
    return jnp.concatenate([size, 2 * products, jnp.mean(size, keepdims=True)])
