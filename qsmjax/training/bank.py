"""What a bank of simulated subjects holds: their sources, on grids of any voxel, whole and in boxes.

Each subject is a label map that is bent, stretched, mirrored, and given tissues, texture, veins and lesions of its own.
It is sampled as a whole head and in boxes of finer voxels, the brain's mask cut to the box, so that every field is made
by what lies inside and the dipole holds between field and truth. On the host, by a process a core; a source is a small
file, so that a bank is made once. `training.scans` draws scans of it. A bank may also hold scans themselves, where they
cost too much to be drawn anew (`training.totals`).
"""

import ctypes
import dataclasses
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float

from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import load_volume
from qsmjax.numerics.box import bounding_box
from qsmjax.numerics.resample import resample_k
from qsmjax.simulate.anatomy import Anatomy, anatomy
from qsmjax.simulate.lesions import Kind, Lesion
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import Grid, grid_around, refine
from qsmjax.simulate.warp import warp_labels

BOXES = 2
BOX = 80
"""Boxes of each subject, and their edge [voxels]."""
FINER = 2
"""Voxels along each edge of a grid's voxel that it is sampled by; the label maps hold no finer detail."""
BEYOND = 2
"""Voxels beyond the mask that a source goes on for: its band is limited, so that it rings there."""
BEHIND = 10
"""By how much the workers' priority is below the training's, which they feed."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Source(NamedTuple):
    """What lies in a brain, or in a part of one, on a grid.

    Attributes:
      chi: its susceptibility [ppm], within the band that the grid holds.
      mask: the brain's.
      signal: magnitude of an echo, relative.
      voxel_size: [mm].
    """

    chi: Float[np.ndarray, "x y z"]
    mask: Bool[np.ndarray, "x y z"]
    signal: Float[np.ndarray, "x y z"]
    voxel_size: Float[np.ndarray, "3"]


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


def draw_sources(rng: np.random.Generator, head: Anatomy) -> Iterator[Source]:
    """Sample a subject as a whole, in voxels of 1 to 2 mm, and then in boxes of voxels of 0.5 to 1.4 mm.

    These are cubes; half of them have one edge up to twice as long.
    """
    yield sample_grid(rng, head, turned_grid(rng, head, voxel_edges(rng, 1.0, 2.0)))
    inside = np.argwhere(head.brain)
    for _ in range(BOXES):
        turned = turned_grid(rng, head, voxel_edges(rng, 0.5, 1.4)).affine
        middle = head.affine[:3, :3] @ inside[rng.integers(len(inside))] + head.affine[:3, 3]
        affine = np.array(turned)
        affine[:3, 3] = middle - turned[:3, :3] @ np.full(3, (BOX - 1) / 2)
        yield sample_grid(rng, head, Grid((BOX, BOX, BOX), affine))


def sample_grid(rng: np.random.Generator, head: Anatomy, grid: Grid) -> Source:
    """Sample a subject on a grid: finer, and the same centre of k-space cut out of all; a rim is eroded by chance."""
    fine = refine(grid, [FINER] * 3)
    parts = sample(head, fine.shape, fine.affine, everything=False)
    # zero in the outermost voxels: a box that cuts through the head must not ring
    window = np.pad(np.ones([n - 8 for n in fine.shape], np.float32), 4)
    brain = scipy.ndimage.binary_erosion(parts.brain & (window > 0), iterations=2 * int(rng.integers(0, 3)) or 1)
    cut = lambda volume: np.asarray(_cut(volume, grid.shape))
    mask = cut(brain.astype(np.float32)) > 0.5
    near = scipy.ndimage.binary_dilation(mask, np.ones((3, 3, 3)), iterations=BEYOND)
    box = bounding_box(near)
    chi, signal = cut(parts.chi * brain), cut(parts.m0 * np.exp(-0.012 * parts.r2s) * brain)
    size = np.linalg.norm(grid.affine[:3, :3], axis=0).astype(np.float32)
    return Source(np.where(near, chi, 0)[box], mask[box], np.where(mask, signal, 0)[box], size)


_cut = jax.jit(resample_k, static_argnums=1)


def turned_grid(rng: np.random.Generator, head: Anatomy, size: tuple[float, float, float]) -> Grid:
    """Lay a grid around a head, turned by a drawn angle about a drawn axis."""
    return grid_around(head, size, tilt=draw_tilt(rng), about=list(rng.normal(size=3)))


def draw_tilt(rng: np.random.Generator) -> float:
    """Draw an angle [rad]: a third of all are upright, most others within 40 degrees, some of any."""
    kind = rng.uniform()
    return 0.0 if kind < 0.33 else float(np.radians(rng.uniform(0, 40 if kind < 0.85 else 90)))


def voxel_edges(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draw edges: half of all grids cubes, of the others one edge up to twice as long."""
    size = np.full(3, np.exp(rng.uniform(np.log(low), np.log(high))))
    if rng.uniform() < 0.5:
        size[rng.choice(3, p=(0.2, 0.2, 0.6))] *= rng.uniform(1.1, 2.0)
    return float(size[0]), float(size[1]), float(size[2])


def save_source(path: Path, source: Source) -> None:
    """Write a source, whole or not at all: tenths of ppb, and hundredths of the largest signal."""
    top = max(float(source.signal.max()), 1e-6)
    parts = source._asdict() | {
        "chi": np.rint(1e4 * source.chi).clip(-32767, 32767).astype(np.int16),
        "signal": np.rint(200 * source.signal / top).clip(0, 255).astype(np.uint8),
    }
    with write_aside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **parts)


def load_source(path: Path) -> Source:
    """Read what `save_source` wrote."""
    with np.load(path, allow_pickle=False) as file:
        parts = dict(file)
    chi, signal = np.float32(1e-4) * parts["chi"], parts["signal"] / np.float32(200)
    return Source(chi, parts["mask"], signal, parts["voxel_size"])


class Holding(NamedTuple):
    """What a bank holds of each subject.

    Attributes:
      names: () -> the names of its parts; a file's is the subject's number, and one of these.
      draw: (generator, subject) -> the parts.
      save: (path, part) -> writes one, whole or not at all.
    """

    names: Callable[[], list[str]]
    draw: Callable[[np.random.Generator, Anatomy], Iterator[Any]]
    save: Callable[[Path, Any], None]


def _source_names() -> list[str]:
    return [str(i) for i in range(1 + BOXES)]


SOURCES = Holding(_source_names, draw_sources, save_source)


def make_bank(
    folder: Path,
    labels: list[Path],
    subjects: Sequence[int],
    *,
    holding: Holding = SOURCES,
    seed: int = 0,
    workers: int = 1,
) -> Generator[int]:
    """Make what is not there yet of a bank, and hand out its subjects in turn, each as soon as it is there.

    Args:
      folder: takes a file for each part.
      labels: label maps, which the subjects take in turns.
      subjects: their numbers, in the order that they are wanted in.
      holding: what it holds of each.
      seed: of everything.
      workers: processes to share them; what they make does not depend on it.

    Yields:
      The numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in subjects if not all(path.exists() for path in _files(folder, number, holding))]
    make = partial(_make_subject, folder, labels, seed, holding)
    if workers == 1 or not missing:
        for number in subjects:
            if number in missing:
                make(number)
            yield number
        return
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Value("i", 0)
    with ProcessPoolExecutor(min(workers, len(missing)), spawn, initializer=_begin_worker, initargs=(begun,)) as pool:
        made = {number: pool.submit(make, number) for number in missing}
        try:
            for number in subjects:
                if number in made:
                    made.pop(number).result()
                yield number
        finally:
            # whoever takes no more of them waits for those alone that are being made
            pool.shutdown(cancel_futures=True)


def _files(folder: Path, number: int, holding: Holding) -> list[Path]:
    return [folder / f"{number:04d}_{name}.npz" for name in holding.names()]


def _make_subject(folder: Path, labels: list[Path], seed: int, holding: Holding, number: int) -> None:
    rng = np.random.default_rng((seed, number))
    head = draw_subject(rng, labels[number % len(labels)])
    for path, part in zip(_files(folder, number, holding), holding.draw(rng, head)):
        holding.save(path, part)
    _give_back()


def _give_back() -> None:
    """Give freed memory back to the system: glibc keeps it, gigabytes of it after a few scans of many sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _begin_worker(begun: Any) -> None:
    """Keep a worker, one more of those begun, to a core of its own, behind the training, whose the accelerator is."""
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    if hasattr(os, "nice"):
        os.nice(BEHIND)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    """End a worker whose parent was killed: nobody would take what it makes."""
    if parent is not None:
        parent.join()
        os._exit(1)
