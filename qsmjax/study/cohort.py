"""Subjects out of label maps: scans of one head in several orientations, written as a user would lay out their own.

    OUT/scans/SUBJECT/ORIENTATION/  localfield, noise | phase;  mask, magnitude, truth, segmentation (.nii.gz)
                                    params.json, to_reference.mat
    OUT/scans/SUBJECT/segmentation.json                         numbers of each tissue
    OUT/lesions/SUBJECT/                                        the same subject with lesions, once, with their masks

A folder appears whole or not at all, so that a study that was broken off goes on from there.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.registration.flirt import to_flirt, write_flirt
from qsmjax.simulate.anatomy import Anatomy, anatomy
from qsmjax.simulate.drawn_labels import drawn_labels
from qsmjax.simulate.lesions import PARTS, Lesion
from qsmjax.simulate.posture import moved, posture
from qsmjax.simulate.scan import FINE, Grid, Scan, grid_around, scan
from qsmjax.simulate.warp import warp_labels

LESIONS = (
    Lesion("haemorrhage"),
    Lesion("calcification"),
    *[Lesion("microbleed")] * 2,
    *[Lesion("plaque")] * 2,
)
"""Of each subject, in a scan of its own."""
KINDS = ("haemorrhage", "calcification", "microbleed", "plaque")
HEALTHY, ILL = 0, 1000
"""Streams of random numbers: the scans with lesions share the head, not the noise."""


@dataclasses.dataclass(frozen=True)
class Cohort:
    """How subjects are simulated.

    Attributes:
      labels: label maps, one a subject; where there are fewer they come again, bent; none to draw them.
      orientations: of each subject.
      tilt: the largest [degrees].
      voxel_size: [mm].
      b0: [T].
      te: echo times [s].
      snr: of white matter at the first echo.
      anisotropy: of white matter: along its fibres less across [ppm].
      phase: whether the scans are wrapped phases with background instead of local fields.
      fine_voxel: see `simulate.scan.scan`.
      seed: of all that is random.
    """

    labels: tuple[str, ...] = ()
    orientations: int = 5
    tilt: float = 30.0
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    b0: float = 3.0
    te: tuple[float, ...] = (0.006, 0.012, 0.018, 0.024)
    snr: float = 90.0
    anisotropy: float = 0.0
    phase: bool = False
    fine_voxel: float = FINE
    seed: int = 0


def subject_name(index: int) -> str:
    """Return the name of a simulated subject."""
    return f"sub-{index + 1:02d}"


def anatomy_name(cohort: Cohort, index: int) -> str:
    """Return the name of the first subject that is made of the same label map; a drawn subject's own."""
    labels = cohort.labels
    return subject_name(labels.index(labels[index % len(labels)]) if labels else index)


@functools.lru_cache(maxsize=1)
def draw_head(cohort: Cohort, index: int, *, ill: bool = False) -> Anatomy:
    """Make the head of a subject; the same anatomy and veins, healthy or with lesions."""
    key = jax.random.fold_in(jax.random.key(cohort.seed), index)
    if cohort.labels:
        volume = load_volume(cohort.labels[index % len(cohort.labels)])
        labels, affine = np.rint(volume.data).astype(np.int32), volume.affine
        if index >= len(cohort.labels):
            labels = warp_labels(jax.random.fold_in(key, 0), labels, affine)
    else:
        labels, affine = drawn_labels(key)
    return anatomy(key, labels, affine, lesions=LESIONS if ill else ())


def simulate_orientation(folder: Path, cohort: Cohort, index: int, orientation: int) -> None:
    """Scan a subject in one orientation and write what came of it, unless it is there.

    Args:
      folder: of all scans.
      cohort: how.
      index: of the subject.
      orientation: its number, from 0, the reference.
    """
    place = folder / subject_name(index) / f"orient-{orientation + 1}"
    if place.is_dir():
        return
    head = draw_head(cohort, index)
    motion = posture(head, orientation, np.radians(cohort.tilt))
    made = _scan(cohort, index, moved(head, motion), HEALTHY + orientation)
    first = grid_around(head, cohort.voxel_size)
    with _whole(place) as aside:
        _write(aside, made, cohort)
        matrix = to_flirt(motion, made.grid.affine, made.grid.shape, first.affine, first.shape)
        write_flirt(aside / "to_reference.mat", matrix)
    save_json(place.parent / "segmentation.json", {name: [number] for number, name in enumerate(head.names)})


def simulate_lesions(folder: Path, cohort: Cohort, index: int) -> None:
    """Scan a subject with lesions, upright, and write it with a map of the lesions, unless it is there."""
    place = folder / subject_name(index)
    if place.is_dir():
        return
    head = draw_head(cohort, index, ill=True)
    made = _scan(dataclasses.replace(cohort, phase=False), index, head, ILL)
    with _whole(place) as aside:
        _write(aside, made, dataclasses.replace(cohort, phase=False))
        _save(aside / "lesions.nii.gz", lesion_map(head, made.grid, made.mask), made)


def lesion_map(head: Anatomy, grid: Grid, mask: np.ndarray) -> np.ndarray:
    """Number the voxels of the lesions: 10 · kind + running number, kinds in the order of `KINDS`; 0 for none.

    A voxel belongs to a lesion if its centre lies in one of its balls.
    """
    parts = [PARTS[lesion.kind] for lesion in LESIONS]
    balls = [values[len(values) - sum(parts) :] for values in head.balls]
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    numbers = np.zeros(grid.shape, np.int32)
    owner = np.repeat(np.arange(len(LESIONS)), parts)
    seen: dict[str, int] = {}
    codes = []
    for lesion in LESIONS:
        seen[lesion.kind] = seen.get(lesion.kind, 0) + 1
        codes.append(10 * (KINDS.index(lesion.kind) + 1) + seen[lesion.kind])
    for centre, radius, which in zip(balls[0], balls[1], owner):
        numbers[np.linalg.norm(world - centre, axis=-1) <= radius] = codes[which]
    return np.where(mask, numbers, 0)


def _scan(cohort: Cohort, index: int, head: Anatomy, stream: int) -> Scan:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(cohort.seed), index), 1 + stream)
    return scan(
        key,
        head,
        grid_around(head, cohort.voxel_size),
        b0=cohort.b0,
        te=cohort.te,
        snr=cohort.snr,
        background=cohort.phase,
        anisotropy=cohort.anisotropy,
        fine_voxel=cohort.fine_voxel,
    )


def _write(folder: Path, made: Scan, cohort: Cohort) -> None:
    volumes = {"mask": made.mask, "truth": made.chi, "segmentation": made.classes}
    if cohort.phase:
        volumes["phase"] = np.moveaxis(np.angle(made.signal), 0, -1)
        volumes["magnitude"] = np.moveaxis(np.abs(made.signal), 0, -1)
    else:
        volumes["localfield"] = np.asarray(made.local.field)
        volumes["noise"] = np.asarray(made.local.noise)
        volumes["magnitude"] = np.asarray(made.local.magnitude)
    for name, data in volumes.items():
        _save(folder / f"{name}.nii.gz", data, made)
    te = list(cohort.te) if cohort.phase else [float(np.mean(cohort.te))]
    save_json(folder / "params.json", {"B0": cohort.b0, "TE": te})


def _save(path: Path, data: np.ndarray, made: Scan) -> None:
    save_volume(path, data, new_volume(np.asarray(data, np.float32), made.grid.affine, path))


@contextlib.contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """Give a folder beside the place, which becomes it if nothing was raised."""
    aside = place.with_name(f".{place.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    aside.rename(place)
