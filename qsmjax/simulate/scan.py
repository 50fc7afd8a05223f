"""An anatomy in the scanner: sampled finer than the voxels, its field and echoes made there, and cut to their band.

Truth, field and signal lose the same part of k-space (`numerics.resample`), so that the discrete dipole of the voxels'
grid holds between truth and field. What lies around the brain is smooth in it and is read at the voxels' centres: air,
whose field would ring through the brain if it were cut, gives no signal. The world is the scanner's, B0 along its z; an
oblique scan is an oblique grid.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Key

from qsmjax.numerics.arrays import Shape
from qsmjax.numerics.resample import resample_k
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import Geometry, geometry_from_affine
from qsmjax.physics.signal import gradient_echo, r2s_at
from qsmjax.physics.tensor import tensor_field
from qsmjax.physics.units import radians_per_ppm
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.background import at_centres, background_field, coil_phase
from qsmjax.simulate.fibres import fibre_magnetisation
from qsmjax.simulate.posture import turn_about
from qsmjax.simulate.sample import Parts, sample

FINE = 0.55
"""Largest edge of the voxels that the scan is simulated on [mm]; they are at most half of the scan's."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A scan's voxels: their number, and the affine to world [mm]."""

    shape: Shape
    affine: Float[np.ndarray, "4 4"]


@dataclasses.dataclass(frozen=True)
class Scan:
    """A scan and its truth.

    Attributes:
      grid: its voxels.
      geometry: their size, and B0 in their axes.
      chi: truth [ppm relative to CSF], zero outside the mask.
      source: truth before the mask cut it: the dipole holds between this and `clean`, whose rim it holds too.
      mask: the brain's.
      local: the noisy local field, its noise map, the first echo's magnitude.
      clean: the local field without noise [ppm], zero outside the mask.
      total: the total field without noise [ppm]; the local one where no background was asked for.
      signal: noisy complex echoes.
      echoes: the same without noise.
      sigma: standard deviation of the noise in the real and in the imaginary part.
      te: echo times [s].
      b0: field strength [T].
      classes: tissue of each voxel, as in the anatomy.
    """

    grid: Grid
    geometry: Geometry
    chi: Float[np.ndarray, "x y z"]
    source: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    local: FieldMap
    clean: Float[np.ndarray, "x y z"]
    total: Float[np.ndarray, "x y z"]
    signal: Complex[np.ndarray, "echo x y z"]
    echoes: Complex[np.ndarray, "echo x y z"]
    sigma: float
    te: tuple[float, ...]
    b0: float
    classes: np.ndarray


def grid_around(
    head: Anatomy,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    tilt: float = 0.0,
    about: Sequence[float] = (1.0, 0.0, 0.0),
    margin: float = 5.0,
) -> Grid:
    """Lay a grid around the brain of a head.

    Args:
      head: whose brain.
      voxel_size: [mm].
      tilt: angle by which the grid is turned in the scanner [rad].
      about: axis of that turn.
      margin: room on all sides of the brain [mm].
    """
    turn = turn_about(about, tilt)
    world = np.argwhere(head.brain)[::7] @ head.affine[:3, :3].T + head.affine[:3, 3]
    own = world @ turn
    low, high = own.min(0) - margin, own.max(0) + margin
    size = np.asarray(voxel_size, float)
    count = np.ceil((high - low) / size / 2).astype(int) * 2
    affine = np.eye(4)
    affine[:3, :3] = turn * size
    affine[:3, 3] = turn @ ((low + high) / 2 - size * (count - 1) / 2)
    return Grid((int(count[0]), int(count[1]), int(count[2])), affine)


def scan(
    key: Key[Array, ""],
    head: Anatomy,
    grid: Grid,
    *,
    b0: float = 3.0,
    te: Sequence[float] = (0.006, 0.012, 0.018, 0.024),
    snr: float = 90.0,
    background: bool = False,
    shim: float = 0.02,
    dephasing: bool = False,
    anisotropy: float = 0.0,
    fine_voxel: float = FINE,
) -> Scan:
    """Scan a head by a gradient echo.

    The local field has the noise of a weighted line through the echoes' phases. With `dephasing` it is that line's
    slope itself, as a perfect unwrapping would give it: near veins and lesions, where the phase turns within a voxel,
    it then strays from the field's mean by far more than the noise.

    Args:
      key: of the noise, the shim and the coils.
      head: what is scanned.
      grid: on which voxels.
      b0: field strength [T].
      te: echo times [s]; at least two.
      snr: of white matter at the first echo.
      background: whether air, bone and neck make their field, with a shim's residue and a coil's phase.
      shim: residue of the shim [ppm].
      dephasing: whether the local field suffers from it; the echoes do in any case.
      anisotropy: how much more white matter's fibres are magnetised along than across [ppm] (`simulate.fibres`); the
        truth stays the mean over directions.
      fine_voxel: largest edge of the voxels that the scan is simulated on [mm]; coarser is faster, veins get cruder.

    Raises:
      ValueError: if there is but one echo.
    """
    if len(te) < 2:
        raise ValueError(f"te must hold at least two echoes to tell the field from the phase at zero, got {len(te)}")
    noise_key, shim_key = jax.random.split(key)
    where = geometry_from_affine(grid.affine, grid.shape)
    factor = [max(2, int(np.ceil(float(d) / fine_voxel))) for d in where.voxel_size]
    fine = refine(grid, factor)
    parts = sample(head, fine.shape, fine.affine, everything=background)
    cut = partial(_cut, shape=grid.shape)
    mask = np.asarray(cut(parts.brain.astype(np.float32))) > 0.5
    source = parts.chi * parts.brain
    field = _brain_field(head, fine, parts, source, anisotropy)
    clean, chi = np.asarray(cut(field)), np.asarray(cut(source))
    around = _surroundings(shim_key, head, fine, factor, parts.brain, shim) if background else _NOTHING
    sigma = _reference(head, float(te[0]), b0) / snr
    echoes = _echoes(field + around.fine_field, parts, around.fine_phase, te, b0, grid.shape)
    noise = np.asarray(jax.random.normal(noise_key, (2, *echoes.shape))) * sigma
    noisy = echoes + (noise[0] + 1j * noise[1]).astype(np.complex64)
    total = clean + around.field
    measured, std = _fit(noisy * np.exp(-1j * around.phase), total, te, b0, sigma)
    if not dephasing:
        measured = total + std * np.asarray(jax.random.normal(jax.random.fold_in(noise_key, 1), std.shape))
    local = field_map(
        measured - around.field,
        mask,
        where,
        noise=std,
        magnitude=np.abs(noisy[0]),
        radians_per_ppm=radians_per_ppm(b0, float(np.mean(te))),
    )
    return Scan(
        grid=grid,
        geometry=where,
        chi=np.where(mask, chi, 0),
        source=chi,
        mask=mask,
        local=local,
        clean=clean * mask,
        total=total,
        signal=noisy,
        echoes=echoes,
        sigma=sigma,
        te=tuple(te),
        b0=b0,
        classes=parts.classes[tuple(slice(f // 2, None, f) for f in factor)],
    )


_cut = jax.jit(resample_k, static_argnames="shape")


# volumes are arguments: what a compiled function closes over stays in memory with it
@partial(jax.jit, static_argnums=6)
def _echo(field, m0, r2s, phase0, te, b0, shape):
    return resample_k(gradient_echo(field, m0, r2s, te=te, b0=b0, phase0=phase0), shape)


def _echoes(field: Array, parts: Parts, phase0: Any, te: Sequence[float], b0: float, shape: Shape) -> np.ndarray:
    r2s = r2s_at(parts.r2s, b0)
    return np.stack([np.asarray(_echo(field, parts.m0, r2s, phase0, t, b0, shape)) for t in te])


def refine(grid: Grid, factor: Sequence[int]) -> Grid:
    """Divide the voxels of a grid, keeping its edges."""
    affine = np.array(grid.affine)
    affine[:3, :3] = grid.affine[:3, :3] / np.asarray(factor)
    affine[:3, 3] += grid.affine[:3, :3] @ ((1 / np.asarray(factor) - 1) / 2)
    x, y, z = (n * f for n, f in zip(grid.shape, factor))
    return Grid((x, y, z), affine)


class _Surroundings(NamedTuple):
    """The field [ppm] of what lies around the brain and the phase [rad] of a coil, both fine and at voxels' centres."""

    fine_field: Any
    fine_phase: Any
    field: Any
    phase: Any


_NOTHING = _Surroundings(*[np.zeros((1, 1, 1), np.float32)] * 4)


def _surroundings(
    key: Key[Array, ""], head: Anatomy, fine: Grid, factor: Sequence[int], brain: np.ndarray, shim: float
) -> _Surroundings:
    outside = background_field(key, head, fine.affine, fine.shape, brain, shim=shim)
    x, y, z = (n // f for n, f in zip(fine.shape, factor))
    # the shim keeps the key itself, by which the fields of published figures were drawn
    coil = partial(coil_phase, jax.random.fold_in(key, 1))
    return _Surroundings(outside, coil(fine.shape), at_centres(outside, factor), coil((x, y, z)))


_forward = jax.jit(partial(forward_field, padding=0.2))


def _brain_field(head: Anatomy, fine: Grid, parts: Parts, source: np.ndarray, anisotropy: float) -> Array:
    where = geometry_from_affine(fine.affine, fine.shape)
    field = _forward(source, where)
    if not anisotropy:
        return field
    added = fibre_magnetisation(head, fine.affine, parts.classes, anisotropy) * parts.brain
    return field + jax.jit(partial(tensor_field, padding=0.2))(added, where)


def _reference(head: Anatomy, te: float, b0: float) -> float:
    white = head.tissues[head.names.index("white")]
    return float(white.m0 * np.exp(-r2s_at(white.r2s, b0) * te))


def _fit(noisy: np.ndarray, field: np.ndarray, te: Sequence[float], b0: float, sigma: float):
    """Fit offset and field to the phases about a known field; return the field and its standard deviation [ppm]."""
    rate = float(radians_per_ppm(b0, 1.0))
    time = np.asarray(te, np.float32)[:, None, None, None]
    rest = np.angle(noisy * np.exp(-1j * rate * time * field))
    weight = np.abs(noisy) ** 2 + 1e-12
    total = weight.sum(0)
    middle = (weight * time).sum(0) / total
    spread = (weight * (time - middle) ** 2).sum(0)
    slope = (weight * (time - middle) * rest).sum(0) / spread
    # a voxel without signal knows no more than that its phase lies within a turn
    limit = np.pi / np.sqrt(3) / rate / float(np.ptp(time))
    return field + slope / rate, np.minimum(sigma / rate / np.sqrt(spread), limit)
