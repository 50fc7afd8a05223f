"""From a label map to a head: tissue classes, texture, nuclei, veins and lesions, on no grid yet.

    chi(r) = chi[class(r)] + texture[class(r)] · t(r),    t of unit variance

Everything is a function of the place in world coordinates [mm], so that one head can be scanned on any grid: `scan`
samples it finer than the voxels. On the host in NumPy; random numbers come from a JAX key nonetheless.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Array, Bool, Float, Key, UInt8

from qsmjax.simulate.lesions import Lesion, place_lesions
from qsmjax.simulate.tissue import FREESURFER, IRON, OUTSIDE, TISSUES, Tissue
from qsmjax.simulate.veins import Balls, grow_veins

ADULT = 45.0
"""Age [years] to which the tissue table belongs."""
ALIKE = 0.3
"""Least part of labelled voxels whose neighbour has their label: 0.85 at 1 mm, 0.5 at 5 mm; an image has a tenth."""
NUCLEI = {
    "red_nucleus": ((-4.0, -4.5, 1.5), (3.2, 3.4, 4.2), "diencephalon"),
    "substantia_nigra": ((0.0, -2.0, -3.5), (5.0, 4.0, 2.0), "diencephalon"),
    "dentate": ((-3.0, 3.0, 1.0), (5.0, 6.5, 3.5), "cerebellar_white"),
}
"""Nuclei that label maps lack: centre relative to the centroid of a tissue on each side (away from the midline,
anterior, superior) and half axes [mm]."""


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """A head.

    Attributes:
      classes: number of the tissue on the label map's grid.
      names: tissue of each number.
      tissues: what each is made of, in this subject.
      affine: of the label map: voxel index to world [mm].
      brain: the brain's mask, without the CSF around it but for that in the folds.
      texture: unit variance, on the same grid.
      balls: veins and then lesions, painted over the tissue in this order.
    """

    classes: UInt8[np.ndarray, "x y z"]
    names: tuple[str, ...]
    tissues: tuple[Tissue, ...]
    affine: Float[np.ndarray, "4 4"]
    brain: Bool[np.ndarray, "x y z"]
    texture: Float[np.ndarray, "x y z"]
    balls: Balls


def anatomy(
    key: Key[Array, ""],
    labels: np.ndarray,
    affine: np.ndarray,
    *,
    table: Mapping[str, Sequence[int]] = FREESURFER,
    age: float | None = None,
    veins: int = 110,
    lesions: Sequence[Lesion] = (),
) -> Anatomy:
    """Make a head of a label map.

    Args:
      key: random key; the same key gives the same head.
      labels: integers, x y z.
      affine: 4x4, voxel index to world [mm].
      table: numbers of each tissue, named as in `simulate.tissue`; a number in no row counts as muscle.
      age: [years], which sets the iron of the basal ganglia; None to draw it from 20 to 75.
      veins: how many trees of veins.
      lesions: what else to place.

    Raises:
      ValueError: if the labels are not three-dimensional integers, or hold no brain, or a tissue of the table is in
        neither `TISSUES` nor `OUTSIDE`.
    """
    labels, affine = np.asarray(labels), np.asarray(affine, np.float64)
    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers with the axes x, y, z, got {labels.dtype} of shape {labels.shape}")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    known = (*TISSUES, *OUTSIDE)
    if unknown := [name for name in table if name not in known]:
        raise ValueError(f"table must name tissues of simulate.tissue, got {unknown[0]!r}: use {', '.join(known)}")
    # all of them: what is in no row is placed, or filled, or found around the head
    names = (*table, *(name for name in known if name not in table))
    classes = _classes(labels, table, names)
    _place_nuclei(rng, classes, names, affine)
    brain = _brain_mask(classes, names, np.linalg.norm(affine[:3, :3], axis=0))
    tissues = tuple(_subject(rng, name, rng.uniform(20, 75) if age is None else age) for name in names)
    tissue = brain & ~np.isin(classes, [names.index(name) for name in ("csf", "ventricle") if name in names])
    strength = TISSUES["vein"].chi + TISSUES["vein"].spread * float(np.clip(rng.normal(), -2, 2))
    trees = grow_veins(rng, tissue, affine, count=veins, chi=strength)
    balls = Balls(*(np.concatenate(parts) for parts in zip(trees, place_lesions(rng, lesions, classes, names, affine))))
    return Anatomy(classes, names, tissues, affine, brain, _texture(rng, labels.shape, brain), balls)


def _classes(labels: np.ndarray, table: Mapping[str, Sequence[int]], names: Sequence[str]) -> np.ndarray:
    if labels.min() < 0:
        raise ValueError(f"labels must not be negative, got {int(labels.min())}: is it a label map?")
    alike = (labels[1:] == labels[:-1])[labels[1:] > 0]
    if alike.size and alike.mean() < ALIKE:
        raise ValueError(
            f"labels must be like their neighbours in most voxels, got {alike.mean():.0%} of them: is it a label map?"
        )
    largest = max([int(labels.max()), *(number for row in table.values() for number in row)])
    lookup = np.full(largest + 1, names.index("muscle"), np.uint8)
    for name, numbers in table.items():
        lookup[list(numbers)] = names.index(name)
    return lookup[labels]


def _place_nuclei(rng: np.random.Generator, classes: np.ndarray, names: Sequence[str], affine: np.ndarray) -> None:
    """Write those nuclei into the classes that the label map lacks, one on each side of the midline."""
    homes = {name: np.argwhere(classes == names.index(name)) for name in ("diencephalon", "cerebellar_white")}
    allowed = np.isin(classes, [names.index(n) for n in ("diencephalon", "brainstem", "cerebellar_white", "white")])
    for name, (offset, radii, home) in NUCLEI.items():
        world = homes[home] @ affine[:3, :3].T + affine[:3, 3]
        if not len(world) or (classes == names.index(name)).any():
            continue
        midline = np.median(world[:, 0])
        for side in (-1, 1):
            own = world[side * (world[:, 0] - midline) > 0]
            if not len(own):
                continue
            centre = own.mean(0) + np.asarray(offset) * (side, 1, 1) + 0.4 * rng.normal(size=3)
            cells, inside = _near(classes.shape, affine, centre, np.asarray(radii))
            where = inside & allowed[cells]
            classes[cells][where] = names.index(name)


def _near(shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray, radii: np.ndarray):
    """Return the box of cells about an ellipsoid, and which of them lie inside."""
    inverse = np.linalg.inv(affine)
    middle = inverse[:3, :3] @ centre + inverse[:3, 3]
    reach = radii.max() / np.linalg.norm(affine[:3, :3], axis=0)
    box = tuple(
        slice(int(max(np.floor(m - r), 0)), int(max(min(np.ceil(m + r) + 1, n), 0)))
        for m, r, n in zip(middle, reach, shape)
    )
    index = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1)
    away = (index @ affine[:3, :3].T + affine[:3, 3] - centre) / radii
    return box, (away**2).sum(-1) <= 1


def _brain_mask(classes: np.ndarray, names: Sequence[str], voxel: np.ndarray) -> np.ndarray:
    """Close the tissue of the brain by 3 mm, fill what it encloses, and make CSF of specks that are no brain's."""
    vessels = {"csf", "vein", "artery", "optic"}
    core = [i for i, name in enumerate(names) if name in TISSUES and name not in vessels]
    tissue = np.isin(classes, core)
    if not tissue.any():
        raise ValueError("labels must hold brain tissue, got none: give the table of their numbers")
    box = scipy.ndimage.find_objects(tissue.astype(np.uint8))[0]
    padded = np.pad(tissue[box], 8)
    reach = 3.0
    grown = scipy.ndimage.distance_transform_edt(~padded, voxel) <= reach
    closed = scipy.ndimage.distance_transform_edt(grown, voxel) > reach
    mask = np.zeros_like(tissue)
    mask[box] = scipy.ndimage.binary_fill_holes(closed | padded)[8:-8, 8:-8, 8:-8]
    mask &= np.isin(classes, [i for i, name in enumerate(names) if name in TISSUES and name != "optic"])
    # specks of bone or skin amid the brain are a labelling's noise, and would be strong sources there
    specks = scipy.ndimage.binary_fill_holes(mask) & ~mask
    classes[specks] = names.index("csf")
    return mask | specks


def _subject(rng: np.random.Generator, name: str, age: float) -> Tissue:
    """Draw one subject's tissue: its mean spreads, and iron follows age."""
    tissue = {**TISSUES, **OUTSIDE}[name]
    factor = 1.0
    if name in IRON:
        plateau, rate, start = IRON[name]
        level = lambda years: plateau * (1 - np.exp(-rate * years)) + start
        factor = level(age) / level(ADULT)
    chi = factor * tissue.chi + tissue.spread * float(np.clip(rng.normal(), -2, 2))
    return tissue._replace(chi=chi, r2s=tissue.r2s * (1 + 0.6 * (factor - 1)) * rng.uniform(0.95, 1.05))


def _texture(rng: np.random.Generator, shape: tuple[int, ...], brain: np.ndarray) -> np.ndarray:
    """Draw grain at scales from one voxel to sixteen, of unit variance, where the brain is."""
    box = scipy.ndimage.find_objects(brain.astype(np.uint8))[0]
    size = [s.stop - s.start for s in box]
    total = np.zeros(size, np.float32)
    for scale, weight in ((0.7, 0.5), (1.5, 0.6), (4.0, 0.6), (10.0, 0.5)):
        noise = scipy.ndimage.gaussian_filter(rng.standard_normal(size, np.float32), scale, mode="wrap")
        # in a small map the widest scale is hardly more than a constant
        total += weight * (noise - noise.mean()) / noise.std()
    texture = np.zeros(shape, np.float32)
    texture[box] = total / total.std()
    return texture
