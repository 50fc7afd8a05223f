"""Maps from files: susceptibility with its mask and its field, by their names.

    NAME_chi.nii.gz or NAME_Chimap.nii.gz     susceptibility [ppm]
    NAME_mask.nii.gz                          optional: where it is known; by default where it is not zero
    NAME_field.nii.gz or NAME_localfield...   optional: the measured local field [ppm]

Folders are searched through.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.training.config import TrainConfig
from qsmjax.training.data import Maps
from qsmjax.training.samples import B0_DIR

CHI = ("_chi", "_Chimap", "_chimap")
MASK = ("_mask", "_desc-brain_mask")
FIELD = ("_localfield", "_field", "_fieldmap")
DEVIATION = "_desc-std"
MATRIX = "_to_reference.mat"
"""What `qsmjax cosmos` leaves beside each orientation of a head."""
SUFFIXES = (".nii.gz", ".nii")
SAME_SIZE = 0.05
"""Relative difference in voxel size that training takes for none."""
SAME_DIRECTION = np.cos(np.radians(5.0))
"""Cosine of the tilt of B0 that training takes for none, where fields are measured."""
SAME_GRID = 1e-2
"""Largest difference between two affines of one grid [mm]: headers round theirs."""
CHI_STD, FIELD_STD = 1.0, 0.1
"""Standard deviations inside a mask that are another unit's [ppm]: a brain's map has 0.02 to 0.05, a local field a
tenth of `FIELD_STD`, and a total one more."""


def load_maps(folder: str | Path, config: TrainConfig) -> list[Maps]:
    """Read all maps of a folder.

    Raises:
      FileNotFoundError: if the folder is not there.
      ValueError: if it holds no map, or a file does not fit the config or its mates.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} must be a folder of maps, got none there")
    named = {path.relative_to(folder) for end in CHI for suffix in SUFFIXES for path in folder.rglob(f"*{end}{suffix}")}
    # a map's deviation stands beside it, under a name that ends alike; what is hidden was never finished
    seen = [path for path in named if not any(part.startswith(".") for part in path.parts)]
    found = sorted(folder / path for path in seen if DEVIATION not in path.name)
    if not found:
        raise ValueError(f"{folder} must hold maps named NAME_chi.nii.gz or NAME_Chimap.nii.gz, got none of that name")
    return [_load(path, config) for path in found]


def _load(path: Path, config: TrainConfig) -> Maps:
    volume = load_volume(path)
    chi = _values(path, volume)
    place = geometry_from_affine(volume.affine, chi.shape)
    if not np.allclose(place.voxel_size, config.voxel_size, rtol=SAME_SIZE):
        size = ",".join(f"{d:.3g}" for d in np.asarray(place.voxel_size))
        wanted = ",".join(f"{d:g}" for d in config.voxel_size)
        raise ValueError(
            f"{path} must have the config's voxels of {wanted} mm, got {size}: resample it, or --set voxel_size={size}"
        )
    mask_path, field_path = _mate(path, MASK), _mate(path, FIELD)
    mask = chi != 0 if mask_path is None else _values_beside(volume, mask_path) != 0
    field = None if field_path is None else _values_beside(volume, field_path)
    _check_unit(path, chi[mask], CHI_STD, "a susceptibility map in ppm", "divide ppb by 1000")
    if field_path is not None and field is not None:
        cure = "divide ppb by 1000, Hz by 42.577 x B0, and take the background out of a total field"
        _check_unit(field_path, field[mask], FIELD_STD, "a local field in ppm", cure)
        # of either sense: the dipole is the same
        if abs(float(np.asarray(place.b0_dir) @ np.asarray(B0_DIR))) < SAME_DIRECTION:
            raise ValueError(
                f"{field_path} must have B0 along its third axis: turn it, or train on the map without its field"
            )
    keep = lambda array: np.where(mask, array, 0).astype(np.float32)
    return Maps(path.name, keep(chi), mask, None if field is None else keep(field), _head_of(path))


def _head_of(path: Path) -> str:
    """Tell whose a map is: the folder's, if it was registered to others there, a subject's by name, or its own."""
    if _mate(path, (MATRIX,), ("",)) is not None:
        return str(path.parent.resolve())
    subject = re.match(r"sub-[0-9A-Za-z]+", path.name)
    return subject.group() if subject else str(path.resolve())


def _values_beside(chi: NiftiVolume, path: Path) -> NDArray[np.float32]:
    """Read a map's mate, which must lie where the map lies."""
    mate = load_volume(path)
    if mate.shape != chi.shape:
        raise ValueError(f"{path} must be on the grid of {chi.path.name}, {chi.shape}, got {mate.shape}")
    apart = np.abs(mate.affine - chi.affine).max()
    if mate.oriented and chi.oriented and apart > SAME_GRID:
        raise ValueError(
            f"{path} must lie where {chi.path.name} lies, got an affine {apart:.3g} off: resample it to the map"
        )
    return _values(path, mate)


def _check_unit(path: Path, inside: NDArray[np.float32], limit: float, kind: str, cure: str) -> None:
    spread = float(inside.std()) if inside.size else 0.0
    if spread > limit:
        raise ValueError(
            f"{path} must be {kind}, whose standard deviation inside the mask stays under {limit:g}, got "
            f"{spread:.3g}: {cure}"
        )


def _values(path: Path, volume: NiftiVolume) -> NDArray[np.float32]:
    data = volume.data
    if data.ndim != 3:
        raise ValueError(f"{path} must hold one volume, got shape {data.shape}: split it")
    if not np.isfinite(data).all():
        raise ValueError(f"{path} must be finite, got NaN or infinity: set those voxels to zero and mask them")
    return data


def _mate(path: Path, ends: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> Path | None:
    stem = next(path.name.removesuffix(s) for s in SUFFIXES if path.name.endswith(s))
    stem = next(stem.removesuffix(end) for end in CHI if stem.endswith(end))
    candidates = [path.with_name(stem + end + suffix) for end in ends for suffix in suffixes]
    return next((c for c in candidates if c.is_file()), None)
