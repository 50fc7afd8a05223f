"""Scans of simulated heads for a network that holds the physics: any grid, any direction of B0, any noise.

Each subject is a label map that is bent, stretched, mirrored, and given tissues, texture, veins and lesions of its own.
It is scanned as a whole head and in boxes of finer voxels, the brain's mask cut to the box, so that every field is made
by what lies inside and the dipole holds between field and truth. On the host, by a process a core; a scan is a small
file, so that a bank is made once.
"""

import dataclasses
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float

from qsmjax.background.sharp import remove_v_sharp
from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import load_volume
from qsmjax.numerics.resample import resample_k
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.geometry import Geometry, geometry, geometry_from_affine
from qsmjax.simulate.anatomy import Anatomy, anatomy
from qsmjax.simulate.lesions import Kind, Lesion
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import Grid, grid_around, refine
from qsmjax.simulate.warp import warp_labels

BOXES = 4
BOX = 80
"""Boxes of each subject, and their edge [voxels]."""
FINER = 2
"""Voxels along each edge of a scan's voxel that it is sampled by; the label maps hold no finer detail."""
NOISE = (1.5e-4, 4e-3)
"""Standard deviation of the field's noise, drawn evenly in its logarithm [ppm]."""
MAGNITUDE_NOISE = 15.0
"""Relative noise of the magnitude for each ppm of the field's: that of 3 T and an echo of 19 ms. A noise map is made of
magnitudes, and shares it."""
RESIDUE, FILTERED = 0.4, 0.2
"""Parts of the scans with a residue of background, and with a field that V-SHARP made of a total one."""
RIM = 12
"""Voxels about a scan in which what makes the background may lie."""
WIDEST = (6, 12)
"""Widest balls of V-SHARP, the one or the other [mm]."""
UNTOLD = 4
"""One scan in so many comes without its noise map, as a field alone does."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Example(NamedTuple):
    """A scan and its truth.

    Attributes:
      field: noisy local field [ppm], zero outside the mask.
      chi: truth [ppm], zero outside the mask.
      mask: the brain's, within the box.
      noise: standard deviation of the field's noise [ppm]; zero all over where it is not told.
      voxel_size: [mm].
      b0_dir: in voxel axes.
    """

    field: Float[np.ndarray, "x y z"]
    chi: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    noise: Float[np.ndarray, "x y z"]
    voxel_size: Float[np.ndarray, "3"]
    b0_dir: Float[np.ndarray, "3"]


def draw_subject(rng: np.random.Generator, path: str | Path) -> Anatomy:
    """Make a subject of a label map: bent, stretched by up to a tenth, mirrored by chance, every tissue drawn anew."""
    volume = load_volume(path)
    stretch = np.diag([*(rng.uniform(0.9, 1.1, 3) * [rng.choice([-1, 1]), 1, 1]), 1])
    lesions = [Lesion(kind) for kind in KINDS for _ in range(rng.poisson(0.6))]
    key = jax.random.key(int(rng.integers(2**31)))
    labels = warp_labels(jax.random.fold_in(key, 0), np.rint(volume.data).astype(np.int32), volume.affine)
    head = anatomy(key, labels, stretch @ volume.affine, veins=int(rng.integers(40, 170)), lesions=lesions)
    # one subject in four looks like no head: what the network knows must not hang on the usual contrasts alone
    strange = rng.uniform() < 0.25
    contrast, grain = rng.uniform(0.7, 1.4), np.exp(0.5 * rng.normal())
    tissues = []
    for tissue in head.tissues:
        chi = 0.06 * rng.normal() if strange else contrast * (tissue.chi + tissue.spread * rng.normal())
        texture = tissue.texture * grain * np.exp(0.4 * rng.normal())
        tissues.append(tissue._replace(chi=float(chi), texture=float(texture)))
    return dataclasses.replace(head, tissues=tuple(tissues))


def draw_scans(rng: np.random.Generator, head: Anatomy) -> Iterator[Example]:
    """Scan a subject as a whole, in voxels of 1.3 to 2 mm, and then in boxes of voxels of 0.5 to 1.4 mm."""
    yield scan_grid(
        rng, head, grid_around(head, _voxel_size(rng, 1.3, 2.0), tilt=_tilt(rng), about=list(rng.normal(size=3)))
    )
    inside = np.argwhere(head.brain)
    for _ in range(BOXES):
        size = _voxel_size(rng, 0.5, 1.4)
        turned = grid_around(head, size, tilt=_tilt(rng), about=list(rng.normal(size=3))).affine
        middle = head.affine[:3, :3] @ inside[rng.integers(len(inside))] + head.affine[:3, 3]
        affine = np.array(turned)
        affine[:3, 3] = middle - turned[:3, :3] @ np.full(3, (BOX - 1) / 2)
        yield scan_grid(rng, head, Grid((BOX, BOX, BOX), affine))


def scan_grid(rng: np.random.Generator, head: Anatomy, grid: Grid) -> Example:
    """Scan a subject on a grid: noise, a rim that was eroded, and what a background's removal leaves."""
    where = geometry_from_affine(grid.affine, grid.shape)
    size = np.asarray(where.voxel_size, np.float32)
    fine = refine(grid, [FINER] * 3)
    parts = sample(head, fine.shape, fine.affine, everything=False)
    # zero in the outermost voxels: a box that cuts through the head must not ring
    window = np.pad(np.ones([n - 8 for n in fine.shape], np.float32), 4)
    brain = scipy.ndimage.binary_erosion(parts.brain & (window > 0), iterations=2 * int(rng.integers(0, 3)) or 1)
    cut = lambda volume: np.asarray(_cut(volume, grid.shape))
    source = parts.chi * brain
    clean = cut(_field(source, geometry_from_affine(fine.affine, fine.shape)))
    mask = cut(brain.astype(np.float32)) > 0.5
    m0 = cut(parts.m0 * np.exp(-0.012 * parts.r2s) * brain)
    noise = _noise(rng, mask, m0)
    field = clean + noise * rng.standard_normal(grid.shape, np.float32)
    chance = rng.uniform()
    if chance < RESIDUE:
        strength = float(rng.uniform(0.02, 0.25) * clean[mask].std())
        field += _background(rng, mask, where, strength)
    elif chance < RESIDUE + FILTERED:
        strength = float(np.exp(rng.uniform(*np.log((2, 30)))) * clean[mask].std())
        field, mask = _filtered(rng, field + _background(rng, mask, where, strength), mask, where)
    return Example(
        np.where(mask, field, 0).astype(np.float32),
        np.where(mask, cut(source), 0).astype(np.float32),
        mask,
        np.where(mask, told_noise(rng, noise), 0).astype(np.float32),
        size,
        np.asarray(where.b0_dir, np.float32),
    )


_cut = jax.jit(resample_k, static_argnums=1)
_field = jax.jit(partial(forward_field, padding=0.2))


def _noise(rng: np.random.Generator, mask: np.ndarray, m0: np.ndarray) -> np.ndarray:
    """Draw a noise map: a level, as one over the signal, and a coil's slow fall."""
    level = np.exp(rng.uniform(*np.log(NOISE)))
    pattern = np.clip(np.median(m0[mask]) / np.maximum(m0, 1e-3), 0.5, 12)
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in mask.shape], indexing="ij", sparse=True)
    slow = np.exp(sum(c * a for c, a in zip(0.3 * rng.normal(size=3), axes)))
    return (level * pattern * slow).astype(np.float32)


def told_noise(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Make the noise map that a scanner's magnitudes would tell, without drawing on the stream itself."""
    grain = rng.spawn(1)[0].standard_normal(noise.shape, np.float32)
    return noise * np.exp(MAGNITUDE_NOISE * noise * grain)


def _background(rng: np.random.Generator, mask: np.ndarray, where: Geometry, strength: float) -> np.ndarray:
    """Make the field of sources just outside the mask, of a standard deviation within it [ppm]."""
    mask, wide = np.pad(mask, RIM), _widened(where)
    shell = scipy.ndimage.binary_dilation(mask, iterations=6) & ~scipy.ndimage.binary_dilation(mask, iterations=2)
    rough = scipy.ndimage.gaussian_filter(rng.standard_normal(mask.shape, np.float32), rng.uniform(1.5, 6)) * shell
    field = np.asarray(_field(rough, wide))
    return _narrowed(strength / max(float(field[mask].std()), 1e-12) * field).astype(np.float32)


def _filtered(
    rng: np.random.Generator, field: np.ndarray, mask: np.ndarray, where: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Take the background out of a total field by V-SHARP: what is left of it, and the mask that is left."""
    local, kept = _v_sharp(np.pad(field, RIM), np.pad(mask, RIM), _widened(where), int(rng.choice(WIDEST)))
    return _narrowed(np.asarray(local)), _narrowed(np.asarray(kept))


@partial(jax.jit, static_argnums=3)
def _v_sharp(field, mask, where, widest):
    return remove_v_sharp(field, mask, where, radii=tuple(float(r) for r in range(widest, 1, -2)), threshold=0.05)


def _widened(where: Geometry) -> Geometry:
    x, y, z = (n + 2 * RIM for n in where.shape)
    return geometry((x, y, z), where.voxel_size, where.b0_dir)


def _narrowed(volume: np.ndarray) -> np.ndarray:
    return volume[RIM:-RIM, RIM:-RIM, RIM:-RIM]


def _voxel_size(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draw edges: half of all grids cubes, of the others one edge up to twice as long."""
    size = np.full(3, np.exp(rng.uniform(np.log(low), np.log(high))))
    if rng.uniform() < 0.5:
        size[rng.choice(3, p=(0.2, 0.2, 0.6))] *= rng.uniform(1.1, 2.0)
    return float(size[0]), float(size[1]), float(size[2])


def _tilt(rng: np.random.Generator) -> float:
    """Draw an angle between the grid and B0 [rad]: a third of all scans are upright, some lie at any angle."""
    kind = rng.uniform()
    return 0.0 if kind < 0.33 else float(np.radians(rng.uniform(0, 40 if kind < 0.85 else 90)))


def untold(example: Example) -> Example:
    """Keep the noise map from whoever sees the scan."""
    return example._replace(noise=np.zeros_like(example.noise))


def save_example(path: Path, example: Example) -> None:
    """Write a scan, whole or not at all: half precision, fields and noise in ppb."""
    parts = example._asdict()
    for name in ("field", "chi", "noise"):
        parts[name] = (1000 * parts[name]).astype(np.float16)
    with write_aside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **parts)


def load_example(path: Path) -> Example:
    """Read what `save_example` wrote."""
    with np.load(path, allow_pickle=False) as file:
        parts = dict(file)
    for name in ("field", "chi", "noise"):
        parts[name] = parts[name].astype(np.float32) / 1000
    return Example(**parts)


def make_bank(
    folder: Path,
    labels: list[Path],
    *,
    subjects: int,
    seed: int = 0,
    workers: int = 1,
    tell: Callable[[int], None] = lambda left: None,
) -> int:
    """Make the scans of a bank that are not there yet.

    Args:
      folder: takes one file a scan.
      labels: label maps, which the subjects take in turns.
      subjects: how many.
      seed: of everything.
      workers: processes to share them; what they make does not depend on it.
      tell: is called after each subject with how many are left.

    Returns:
      How many subjects were made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in range(subjects) if not all(name.exists() for name in _names(folder, number))]
    make = partial(_make_subject, folder, labels, seed)
    if workers == 1 or len(missing) < 2:
        for left, number in reversed(list(enumerate(reversed(missing)))):
            make(number)
            tell(left)
        return len(missing)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), spawn, initializer=_begin_worker) as pool:
        made = [pool.submit(make, number) for number in missing]
        for count, each in enumerate(as_completed(made), 1):
            each.result()
            tell(len(missing) - count)
    return len(missing)


def _names(folder: Path, number: int) -> list[Path]:
    return [folder / f"{number:04d}_{i}.npz" for i in range(1 + BOXES)]


def _make_subject(folder: Path, labels: list[Path], seed: int, number: int) -> None:
    rng = np.random.default_rng((seed, number))
    head = draw_subject(rng, labels[number % len(labels)])
    for i, (name, example) in enumerate(zip(_names(folder, number), draw_scans(rng, head))):
        save_example(name, untold(example) if (number + i) % UNTOLD == 0 else example)


def _begin_worker() -> None:
    """Keep a worker to one core: the accelerator is the training's, and there is a worker for every core."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})
