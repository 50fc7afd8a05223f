"""Scans of whole heads with air, bone and neck about them, whose background has been removed as the pipeline does it.

A removal errs where the background is steep, beside air and bone above all, and its errors are no noise: what a network
has seen of them it can tell from tissue. Each head is scanned once and gives two fields, the mean field that its voxels
hold and the one that is fitted to its echoes. Such a scan costs a minute, so it is kept as it is.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.background.edge import STEEPEST
from qsmjax.background.frame import MARGIN
from qsmjax.inversion.one_step import STRENGTH
from qsmjax.inversion.removal import part_by_tfi
from qsmjax.io.aside import write_aside
from qsmjax.numerics.box import bounding_box, enter, frame_shape, leave
from qsmjax.phase.echoes import fit_echoes
from qsmjax.phase.mask import CONSENSUS_RESIDUAL, reduce_mask
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.simulate.anatomy import Anatomy
from qsmjax.simulate.scan import Grid, Scan, scan
from qsmjax.training.bank import Holding, turned_grid, voxel_edges
from qsmjax.training.scans import Example, rounded

FINE = 1.1
"""Largest edge of the voxels that a head is simulated on [mm]; each is at most half of the scan's, which reach 4 mm."""
UNTOLD = 0.2
"""Part of the total fields that come without a noise map, half of these without a magnitude too."""
ECHOES = 4


def draw_totals(rng: np.random.Generator, head: Anatomy) -> Iterator[Example]:
    """Scan a head at 1.5 to 7 T, and remove the background of its field and of its echoes'.

    Voxels are cubes of 1.15 to 2 mm, and half of them have one edge up to twice as long.
    """
    made = _scanned(rng, head)
    eroded, told, seen = int(rng.integers(3)), rng.uniform() >= UNTOLD, rng.uniform() < 0.5
    mean = field_map(
        np.asarray(made.local.field) + made.total - made.clean,
        scipy.ndimage.binary_erosion(made.mask, iterations=eroded) if eroded else made.mask,
        made.geometry,
        noise=made.local.noise if told else None,
        magnitude=made.local.magnitude if told or seen else None,
    )
    yield _removed(made, mean)
    fit = fit_echoes(made.signal, made.te, made.b0, made.mask)
    kept = reduce_mask(made.mask, fit.relative_residual, threshold=CONSENSUS_RESIDUAL).mask
    yield _removed(made, field_map(fit.field, kept, made.geometry, noise=fit.noise, magnitude=fit.amplitude))


def _scanned(rng: np.random.Generator, head: Anatomy) -> Scan:
    grid = turned_grid(rng, head, voxel_edges(rng, 1.15, 2.0))
    b0 = float(rng.choice([1.5, 3.0, 3.0, 7.0]))
    spacing = float(rng.uniform(4e-3, 9e-3) * min(1, 3 / b0) ** 0.5)
    first = float(rng.uniform(0.5, 1.1)) * spacing
    return scan(
        jax.random.key(int(rng.integers(2**31))),
        head,
        _in_few_sizes(grid),
        b0=b0,
        te=[first + spacing * echo for echo in range(ECHOES)],
        snr=float(np.exp(rng.uniform(*np.log((25, 200))))),
        background=True,
        shim=float(rng.uniform(0, 0.05)),
        fine_voxel=FINE,
    )


def _in_few_sizes(grid: Grid) -> Grid:
    """Widen a grid on all sides to one of the sizes that are compiled for."""
    x, y, z = (rounded(n) for n in grid.shape)
    affine = np.array(grid.affine)
    affine[:3, 3] -= affine[:3, :3] @ ((np.asarray((x, y, z)) - grid.shape) / 2)
    return Grid((x, y, z), affine)


def _removed(made: Scan, field_map: FieldMap) -> Example:
    """Remove the background as the pipeline does by default."""
    mask = np.asarray(field_map.mask)
    box = bounding_box(mask)
    x, y, z = (rounded(n) for n in frame_shape(box, MARGIN))
    parts = field_map.field, field_map.mask, field_map.noise, field_map.magnitude
    field, inside, noise, magnitude = (enter(part, box, (x, y, z)) for part in parts)
    local = _remove(field, inside, dataclasses.replace(made.geometry, shape=(x, y, z)), noise, magnitude)
    back = lambda part: np.asarray(jnp.where(mask, leave(part, box, mask.shape), 0))
    size, b0_dir = np.asarray(made.geometry.voxel_size), np.asarray(made.geometry.b0_dir)
    return Example(back(local.field), np.where(mask, made.chi, 0), mask, back(local.noise), size, b0_dir)


_remove = jax.jit(
    partial(
        part_by_tfi,
        preconditioner=STRENGTH,
        edge_percentage=90.0,
        steepest=STEEPEST,
        start_iterations=30,
        max_iterations=60,
        report=None,
    )
)


def save_total(path: Path, example: Example) -> None:
    """Write a scan, whole or not at all, in half precision."""
    half = {name: getattr(example, name).astype(np.float16) for name in ("field", "chi", "noise")}
    with write_aside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **(example._asdict() | half))


def load_total(path: Path) -> Example:
    """Read what `save_total` wrote."""
    with np.load(path, allow_pickle=False) as file:
        parts = dict(file)
    return Example(**parts | {name: parts[name].astype(np.float32) for name in ("field", "chi", "noise")})


def _names() -> list[str]:
    # as scans of the first source, the whole head, are named
    return ["0_0", "0_1"]


TOTALS = Holding(_names, draw_totals, save_total)
