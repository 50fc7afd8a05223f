"""Maps from label maps: whole heads of real anatomy, given the susceptibility that the simulator draws for them.

A label map gives as many heads as the config's variants: the first as it is, the others bent and every other one
mirrored, each with tissues, texture and veins of its own. Each is sampled finer than the network's voxels and cut to
their band, as a scan is (`simulate.scan`). Fields are not made here: the step makes them.
"""

from pathlib import Path

import jax
import numpy as np

from qsmjax.io.nifti import load_volume, volume_files
from qsmjax.numerics.resample import resample_k
from qsmjax.simulate.anatomy import anatomy
from qsmjax.simulate.sample import sample
from qsmjax.simulate.scan import FINE, grid_around, refine
from qsmjax.simulate.warp import warp_labels
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Maps


def load_labels(folder: str | Path, config: TrainConfig) -> list[Maps]:
    """Make maps of every label map in a folder: FreeSurfer's numbers, the same maps for the same seed.

    Args:
      folder: holds .nii or .nii.gz files of integers, or is one of them.
      config: of the run: its voxel size, variants and seed.

    Raises:
      FileNotFoundError: if there is no label map.
      ValueError: if one has no brain.
    """
    variants = range(config.variants)
    return [
        _draw(path, number, variant, config) for number, path in enumerate(volume_files(folder)) for variant in variants
    ]


def _draw(path: Path, number: int, variant: int, config: TrainConfig) -> Maps:
    volume = load_volume(path)
    labels = np.rint(volume.data).astype(np.int32)
    if not np.array_equal(labels, volume.data):
        raise ValueError(f"{path} must hold whole numbers, got others: is it a label map?")
    key, affine = jax.random.fold_in(jax.random.key(config.seed), number), volume.affine
    if variant:
        key, bending = jax.random.split(jax.random.fold_in(key, variant))
        labels = warp_labels(bending, labels, affine)
        affine = np.diag([(-1) ** variant, 1, 1, 1]) @ affine
    head = anatomy(key, labels, affine)
    grid = grid_around(head, config.voxel_size)
    fine = refine(grid, [max(2, int(np.ceil(d / FINE))) for d in config.voxel_size])
    parts = sample(head, fine.shape, fine.affine, everything=False)
    cut = lambda part: np.asarray(resample_k(part, grid.shape))
    mask = cut(parts.brain.astype(np.float32)) > 0.5
    chi = cut(parts.chi * parts.brain)
    # a field tells nothing of chi's mean, and a network can't learn it
    name = f"{path.name} ({variant})" if variant else path.name
    return Maps(name, np.where(mask, chi - chi[mask].mean(), 0).astype(np.float32), mask, head=str(path))
