"""An anatomy sampled on any grid: which tissue is where, and what it is made of.

The class of a place is the one whose indicator, smoothed by about a voxel of the label map and interpolated, is
largest. So boundaries are smooth below the label map's voxels, on oblique grids too.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, UInt8

from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.tissue import TISSUES

SMOOTH = 0.7
"""Standard deviation by which the indicators of the classes are smoothed [voxels of the label map]."""


MARGIN = 4
"""Voxels of the label map about a grid that its classes are smoothed with: they reach three."""


class Parts(NamedTuple):
    """What fills the voxels: susceptibility [ppm], signal at TE = 0, R2* at 3 T [1/s], the brain, the class."""

    chi: Float[np.ndarray, "x y z"]
    m0: Float[np.ndarray, "x y z"]
    r2s: Float[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    classes: UInt8[np.ndarray, "x y z"]


def sample(head: Anatomy, shape: tuple[int, ...], affine: np.ndarray, *, everything: bool = True) -> Parts:
    """Sample a head on a grid.

    Args:
      head: the anatomy.
      shape: voxels along x, y, z.
      affine: voxel index to world [mm].
      everything: whether what lies outside the brain is sampled too; if not it counts as nothing.
    """
    to_labels = np.linalg.inv(head.affine) @ affine
    head, to_labels = _within_reach(head, to_labels, shape)
    kept = [i for i, name in enumerate(head.names) if everything or name in TISSUES]
    best, classes = np.full(shape, 0.2, np.float32), np.full(shape, head.names.index("air"), np.uint8)
    indicators = [(i, head.classes == i) for i in kept] + [(-1, head.brain)]
    brain = np.zeros(shape, bool)
    # two at a time: the interpolation leaves Python free, and more would not fit the memory
    with ThreadPoolExecutor(2) as pool:
        for number, found in pool.map(lambda item: (item[0], _smooth(item[1], to_labels, shape)), indicators):
            if found is None:
                continue
            box, value = found
            if number < 0:
                brain[box] = value > 0.5
                continue
            better = value > best[box]
            best[box][better], classes[box][better] = value[better], number
    # where the mask's smooth edge reaches into bone, or no class is likely: CSF, as within the folds
    others = [i for i, name in enumerate(head.names) if name not in TISSUES]
    classes[brain & np.isin(classes, others)] = head.names.index("csf")
    texture = interpolate(head.texture, to_labels[:3, :3], to_labels[:3, 3], shape)
    columns = np.asarray([(t.chi, t.texture, t.m0, t.r2s) for t in head.tissues], np.float32)
    chi = columns[classes, 0] + columns[classes, 1] * texture
    m0 = columns[classes, 2] * (1 + 0.03 * texture)
    r2s = columns[classes, 3] * (1 + 0.06 * texture)
    if not everything:
        m0 *= brain
    _paint(head, affine, (chi, m0, r2s))
    return Parts(chi, m0, r2s, brain, classes)


def _within_reach(head: Anatomy, to_labels: np.ndarray, shape: tuple[int, ...]) -> tuple[Anatomy, np.ndarray]:
    """Cut from a head what a grid does not reach: most of it, where the grid is a small box."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    reach = corners @ to_labels[:3, :3].T + to_labels[:3, 3]
    # at least a voxel, where the grid lies beyond the head
    first = np.clip(np.floor(reach.min(0)) - MARGIN, 0, np.asarray(head.classes.shape) - 1).astype(int)
    last = np.clip(np.ceil(reach.max(0)) + 1 + MARGIN, first + 1, head.classes.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(first, last))
    moved = to_labels.copy()
    moved[:3, 3] -= first
    parts = {name: getattr(head, name)[box] for name in ("classes", "brain", "texture")}
    return dataclasses.replace(head, **parts), moved


def _smooth(indicator: np.ndarray, to_labels: np.ndarray, shape: tuple[int, ...]):
    """Return the box of the grid that a class reaches, and its smoothed indicator there; None where it is nowhere."""
    boxes = scipy.ndimage.find_objects(indicator.astype(np.uint8))
    if not boxes:
        return None
    low = np.asarray([max(s.start - 3, 0) for s in boxes[0]])
    high = np.asarray([min(s.stop + 3, n) for s, n in zip(boxes[0], indicator.shape)])
    part = indicator[tuple(slice(a, b) for a, b in zip(low, high))].astype(np.float32)
    part = scipy.ndimage.gaussian_filter(part, SMOOTH, mode="nearest")
    corners = np.stack(np.meshgrid(*zip(low, high - 1), indexing="ij"), -1).reshape(-1, 3)
    own = np.linalg.inv(to_labels)
    reach = corners @ own[:3, :3].T + own[:3, 3]
    first = np.clip(np.floor(reach.min(0)), 0, shape).astype(int)
    last = np.clip(np.ceil(reach.max(0)) + 1, 0, shape).astype(int)
    if (last <= first).any():
        return None
    offset = to_labels[:3, :3] @ first + to_labels[:3, 3] - low
    size = tuple(int(n) for n in last - first)
    value = interpolate(part, to_labels[:3, :3], offset, size)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last)), value


def interpolate(
    volume: np.ndarray, matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, ...], *, order: int = 1
) -> Float[np.ndarray, "x y z"]:
    """Sample a volume at matrix · index + offset; what lies beyond it goes on as its edge."""
    # a diagonal matrix takes a much faster way through SciPy
    straight = np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-9
    return scipy.ndimage.affine_transform(
        volume, np.diag(matrix) if straight else matrix, offset, shape, np.float32, order=order, mode="nearest"
    )


def _paint(head: Anatomy, affine: np.ndarray, volumes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Paint veins and lesions ball after ball, their edges one voxel wide."""
    chi, m0, r2s = volumes
    blood = TISSUES["vein"]
    size = np.linalg.norm(affine[:3, :3], axis=0)
    edge = float(size.mean())
    # the grid's axes are orthogonal, so distances can be taken along them
    middles = (head.balls.centre - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    for middle, radius, value in zip(middles, head.balls.radius, head.balls.chi):
        reach = (radius + edge) / size
        first = np.maximum(np.ceil(middle - reach), 0).astype(int)
        last = np.minimum(np.floor(middle + reach) + 1, chi.shape).astype(int)
        if (last <= first).any():
            continue
        axes = [((np.arange(a, b) - m) * d) ** 2 for a, b, m, d in zip(first, last, middle, size)]
        distance = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2])
        inside = np.clip(0.5 + (radius - distance) / edge, 0, 1).astype(np.float32)
        box = tuple(slice(a, b) for a, b in zip(first, last))
        chi[box] += inside * (np.float32(value) - chi[box])
        # bleeds and calcifications lose their signal with the strength of their susceptibility
        strong = np.float32(min(abs(value) / 0.4, 4.0))
        r2s[box] += inside * (blood.r2s * max(strong, np.float32(0.5)) - r2s[box])
        m0[box] += inside * (blood.m0 / (1 + 0.3 * strong) - m0[box])
