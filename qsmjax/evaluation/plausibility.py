"""Is the map as expected? Figures that tell the usual mistakes, from the field, the map and nothing else.

- `field_residual`: what the map's own field leaves of the measured one
- `border_contact`: how much of the mask ends where the volume ends
- `rim_excess`: whether background field is left at the mask's edge
- `harmonic_part`: how much of a field could come from outside the mask
- `low_frequencies`: whether a field still has the low frequencies that high-pass filters take
- `tail_balance`: whether the strongest voxels are paramagnetic, as veins and iron are

What is unusual is said by the constants, which were chosen on heads 11 and 12 (`benchmarks/plausibility.py`).
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from qsmjax.numerics.box import bounding_box
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import Geometry

BORDER_LIMIT = 0.02
"""Part of the mask's rim that may lie on the volume's border."""
RIM_LIMIT = 1.75
"""How much stronger a local field may be at the mask's rim than deep inside: 0.8 without background field, 0.8 to 1.5
after joint, iSMV and V-SHARP, above 2 where LBV and PDF leave some."""
HARMONIC_LIMIT = 0.35
"""Part of a local field's variance that may be harmonic: 0.01 to 0.06 in heads, 0.2 in small phantoms."""
HARMONIC_FLOOR = 0.25
"""Part of a total field's variance that is harmonic at least: 0.33 and 0.48; at most 0.2 after high-pass filters."""
LOW_FLOOR = 10.0
"""Least of `low_frequencies` in a total field: 18 and 22, within the brain and within all that gives signal; 2.4 to 5
after filters of 20 and 30 mm. Where the mask is more than the brain, less of the field comes from outside (0.2)."""
LOW_LIMIT = 0.5
"""Least of `low_frequencies` in a local field: 0.6 to 10; below 0.4 after filters of 20 mm, 0.3 and 0.8 after those of
30 mm."""
TAIL_LIMIT = -0.1
"""Least of `tail_balance`: 0.2 to 0.5 in heads, about zero where noise rules."""
MOST_SAMPLES = 40_000
"""Voxels that a fit of smooth functions needs: more change no digit that is looked at."""


class Residual(NamedTuple):
    """What a map leaves of the field.

    Attributes:
      volume: field - D chi [ppm], zero outside the mask.
      rms: its root mean square over the mask [ppm].
      field_rms: of the field less its mean [ppm].
      explained: part of the field's variance that the map explains.
      over_noise: rms of the residual over the noise map's; None without one.
      outliers: part of the mask where the residual exceeds five times its robust standard deviation.
    """

    volume: NDArray
    rms: float
    field_rms: float
    explained: float
    over_noise: float | None
    outliers: float


def field_residual(local: FieldMap, chi: ArrayLike) -> Residual:
    """Subtract the field of a map from the local field.

    The map must be the inversion's own, before a reference was subtracted: a constant in a mask has a field too. Both
    fields are compared less their means, which an inversion cannot know.

    Args:
      local: local field.
      chi: [ppm], zero outside the mask.
    """
    mask, field = np.asarray(local.mask), np.asarray(local.field, np.float64)
    made = np.asarray(_forward(np.asarray(chi, np.float32), local.geometry), np.float64)
    rest = np.where(mask, field - made, 0)
    values = rest[mask] - rest[mask].mean()
    rest[mask] = values
    power, rms = float(field[mask].var()), float(values.std())
    robust = 1.4826 * float(np.median(np.abs(values)))
    noise = None if local.noise is None else float(np.sqrt(np.mean(np.asarray(local.noise, np.float64)[mask] ** 2)))
    return Residual(
        volume=rest.astype(np.float32),
        rms=rms,
        field_rms=float(np.sqrt(power)),
        explained=1 - rms**2 / power if power else 0.0,
        over_noise=rms / noise if noise else None,
        outliers=float(np.mean(np.abs(values) > 5 * robust)) if robust else 0.0,
    )


_forward = jax.jit(forward_field)


def border_contact(mask: ArrayLike) -> float:
    """Return the part of the mask's rim that lies on the border of the volume: there the field beyond is unknown."""
    inside = np.asarray(mask) != 0
    rim = int((inside & ~binary_erosion(inside, border_value=0)).sum())
    faces = np.zeros(inside.shape, bool)
    for axis in range(3):
        for end in (0, -1):
            np.moveaxis(faces, axis, 0)[end] = True
    return float((inside & faces).sum()) / max(rim, 1)


def rim_excess(field: ArrayLike, mask: ArrayLike, geometry: Geometry, *, rim: float = 4.0, deep: float = 10.0) -> float:
    """Return the standard deviation of a field at the mask's rim over that deep inside; NaN where nothing is deep.

    What a background method leaves falls off steeply from the edge, beside sinus and bone.

    Args:
      field: [ppm].
      mask: where it is known.
      geometry: its grid.
      rim: depth that counts as the rim [mm].
      deep: depth beyond which is deep [mm].
    """
    inside, values, depth = np.asarray(mask) != 0, np.asarray(field, np.float64), _depth(mask, geometry)
    # a rim thinner than a voxel would hold none
    outer, inner = values[inside & (depth <= max(rim, float(np.max(geometry.voxel_size))))], values[depth > deep]
    return float(outer.std() / inner.std()) if outer.size and inner.size and inner.std() > 0 else float("nan")


def harmonic_part(field: ArrayLike, mask: ArrayLike, geometry: Geometry, *, degree: int = 4) -> float:
    """Return the part of a field's variance over the mask that solid harmonics up to a degree explain.

    What lies outside the mask makes a harmonic field inside (Laplace's equation). Sources inside make little of it.

    Args:
      field: [ppm].
      mask: where it is known.
      geometry: its grid.
      degree: of the polynomials.
    """
    inside = np.argwhere(np.asarray(mask) != 0)
    inside = inside[:: max(1, len(inside) // MOST_SAMPLES)]
    points = inside * np.asarray(geometry.voxel_size, np.float64)
    points = (points - points.mean(0)) / (np.abs(points - points.mean(0)).max() or 1)
    values = np.asarray(field, np.float64)[tuple(inside.T)]
    values = values - values.mean()
    basis = _solid_harmonics(points, degree)
    basis = basis - basis.mean(0)
    fitted = basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
    return float(fitted @ fitted / ((values @ values) or 1))


def low_frequencies(field: ArrayLike, mask: ArrayLike, geometry: Geometry) -> float:
    """Return the spectral density of a field below 1/80 mm over that between 1/40 and 1/20 mm.

    Sources of all sizes make a spectrum that falls. A high-pass filter, as scanners apply for susceptibility weighting,
    leaves a hole at its centre.

    Args:
      field: [ppm].
      mask: where it is known.
      geometry: its grid.
    """
    inside, size = np.asarray(mask) != 0, np.asarray(geometry.voxel_size, np.float64)
    values = np.where(inside, np.asarray(field, np.float64), 0)
    values[inside] -= values[inside].mean()
    # means over blocks of about 3 mm hold all frequencies that are looked at
    blocks = [max(1, int(3 / d)) for d in size]
    values, size = _block_means(values, blocks), size * blocks
    shape = [max(n, int(np.ceil(240 / d))) for n, d in zip(values.shape, size)]
    power = np.abs(np.fft.rfftn(values, shape, axes=(0, 1, 2))) ** 2
    k = [np.fft.fftfreq(n, d) for n, d in zip(shape[:2], size[:2])] + [np.fft.rfftfreq(shape[2], size[2])]
    radius = np.sqrt(k[0][:, None, None] ** 2 + k[1][:, None] ** 2 + k[2] ** 2)
    low, middle = (radius < 1 / 80), (radius > 1 / 40) & (radius < 1 / 20)
    return float(power[low].mean() / (power[middle].mean() or 1))


def tail_balance(chi: ArrayLike, mask: ArrayLike, geometry: Geometry, *, rim: float = 5.0) -> float:
    """Return how much further the map reaches up than down from its median, from -1 to 1.

    Veins and iron are paramagnetic and strong; myelin is diamagnetic and weak. So the upper tail of a healthy brain is
    the longer one, and a map with its sign turned has the longer lower tail. (up - down) / (up + down), up and down the
    distance of the 0.5 % of extreme voxels from the median.

    Args:
      chi: [ppm].
      mask: where it is known.
      geometry: its grid.
      rim: depth from the mask's edge that is left out, where errors are largest [mm].
    """
    deep = _depth(mask, geometry) > rim
    values = np.asarray(chi, np.float64)[deep if deep.any() else np.asarray(mask) != 0]
    low, middle, high = np.percentile(values, (0.5, 50, 99.5))
    return float((high + low - 2 * middle) / ((high - low) or 1))


def _depth(mask: ArrayLike, geometry: Geometry) -> NDArray:
    """Return how far each voxel lies inside a mask [mm]; zero outside."""
    inside, size = np.asarray(mask) != 0, np.asarray(geometry.voxel_size, np.float64)
    depth = np.zeros(inside.shape)
    if inside.any():
        box = bounding_box(inside)
        depth[box] = distance_transform_edt(np.pad(inside[box], 1), sampling=size)[1:-1, 1:-1, 1:-1]
    return depth


def _block_means(values: NDArray, blocks: Sequence[int]) -> NDArray:
    """Average over blocks, zeros added where the last one is not full."""
    padded = np.pad(values, [(0, -n % b) for n, b in zip(values.shape, blocks)])
    (a, b, c), (x, y, z) = blocks, (n // b for n, b in zip(padded.shape, blocks))
    return padded.reshape(x, a, y, b, z, c).mean((1, 3, 5))


def _solid_harmonics(points: NDArray, degree: int) -> NDArray:
    """Return a basis of the harmonic polynomials of degree 1 to `degree`, a column each.

    The polynomials whose Laplacian is zero are the null space of the Laplacian between monomials.
    """
    columns = []
    for n in range(1, degree + 1):
        powers = [p for p in product(range(n + 1), repeat=3) if sum(p) == n]
        lower = {p: i for i, p in enumerate(q for q in product(range(n), repeat=3) if sum(q) == n - 2)}
        laplacian = np.zeros((max(len(lower), 1), len(powers)))
        for column, power in enumerate(powers):
            for axis in range(3):
                if power[axis] >= 2:
                    rest = tuple(p - 2 * (a == axis) for a, p in enumerate(power))
                    laplacian[lower[rest], column] += power[axis] * (power[axis] - 1)
        free = np.linalg.svd(laplacian)[2][len(lower) :]
        monomials = np.stack([np.prod(points**power, axis=1) for power in np.array(powers)], 1)
        columns.append(monomials @ free.T)
    return np.concatenate(columns, 1)
