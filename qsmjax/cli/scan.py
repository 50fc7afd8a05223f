"""From files to a `FieldMap`: every check that a map depends on, each with one line when it fails."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from qsmjax.cli.errors import UserError
from qsmjax.cli.told import check_units
from qsmjax.io.nifti import NiftiVolume, forms_apart, load_volume
from qsmjax.io.sidecar import ScanParameters, load_parameters
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import Geometry, geometry_from_affine
from qsmjax.physics.units import radians_per_ppm, to_ppm

FIELD_LIMIT = 50.0
"""No field inside a head reaches this [ppm]: air against tissue makes about 9."""

LOCAL_STD_LIMIT = 0.1
"""The local field of a brain has 0.008 to 0.015 ppm; ten times that is another unit, or no local field [ppm]."""

FORMS_APART = 1.0
"""Angle between what a header's two forms take for the scanner's axis that goes unsaid [degrees]."""

PARAMS_APART = 3.0
"""Angle between the B0 of params and that of the affine from which it is warned of [degrees]."""

HALF, PLATEAU = 0.5, 0.2
"""Part of a voxel from which it is the head's, in a mask of fractions; and the part of its voxels that are whole."""

GRID_TOLERANCE = 1e-2
"""Largest difference between two affines of one grid [mm]: headers round theirs."""


@dataclasses.dataclass(frozen=True)
class Scan:
    """A field map and where it came from.

    Attributes:
      field_map: in ppm, on its grid.
      volume: the field's file, whose geometry the output takes.
      b0_source: what said where B0 points: "--b0-dir", "params", "affine", or "assumption" where none did.
      b0: field strength [T], where known.
      te: echo times [s], where known.
      notes: what was done to the input that a user should know.
      unlikely: what speaks against the input's being what it was taken for, in lines.
      removed: what was taken from the mask that was given or found, where something was.
      acquisition: what the JSON beside the files says of how the scan was made (`cli.told.acquisition`).
    """

    field_map: FieldMap
    volume: NiftiVolume
    b0_source: str
    b0: float | None
    te: tuple[float, ...]
    notes: tuple[str, ...]
    unlikely: tuple[str, ...] = ()
    removed: np.ndarray | None = None
    acquisition: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> np.ndarray:
        """The mask as it was given or found, before anything was taken from it."""
        mask = np.asarray(self.field_map.mask)
        return mask if self.removed is None else mask | self.removed


def read_scan(args: argparse.Namespace) -> Scan:
    """Load a field, mask, noise and magnitude as the arguments of `infer` say.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    if len(args.field) != 1:
        raise UserError(
            f"--input {args.input} takes one FIELD, got {len(args.field)}: several are echoes (--input phase)"
        )
    volume = load_volume(args.field[0])
    data = single_volume(volume)
    parameters = load_parameters(args.params) if args.params else ScanParameters()
    grid, b0_source, notes = grid_of(args, volume, parameters)
    given, filled = read_mask(load_volume(args.mask), volume) if args.mask else _implied_mask(data, volume)
    data, mask, more = without_nan(data, given, volume.path, to_mask=args.nan_to_mask)
    b0 = args.b0 or parameters.b0
    times = args.te or parameters.te or ()
    if args.units == "rad" and len(times) > 1:
        raise UserError(f"--te must say the one echo of a field in rad, got {len(times)} echo times")
    check_units(tuple(times), b0 or 0.0, "--b0" if args.b0 else "params")
    te = times[0] if len(times) == 1 else None
    convert = lambda values: np.asarray(to_ppm(values, args.units, b0=b0, te=te))
    field = _checked(convert(data), mask, args)
    noise = convert(read_noise(args.noise, volume, mask)) if args.noise else None
    if args.magnitude and len(args.magnitude) != 1:
        raise UserError(f"--magnitude must be one image for a field, got {len(args.magnitude)}")
    magnitude = on_grid(load_volume(args.magnitude[0]), volume, "magnitude") if args.magnitude else None
    if magnitude is not None:
        magnitude = as_magnitude(magnitude)
    # of several echoes the last, as where their phase was fitted
    scale = radians_per_ppm(b0, max(times)) if b0 and times else None
    made = field_map(field, mask, grid, noise=noise, magnitude=magnitude, radians_per_ppm=scale)
    lost = given & ~mask
    told = (*notes, *filled, *more)
    return Scan(made, volume, b0_source, b0, tuple(times), told, removed=lost if lost.any() else None)


def read_noise(words: str, volume: NiftiVolume, mask: np.ndarray) -> np.ndarray:
    """Read a noise map, or fill one with the number that stands for it.

    Raises:
      UserError: if it is not above zero in the mask.
    """
    try:
        noise = np.full(volume.shape[:3], float(words), np.float32)
    except ValueError:
        noise = on_grid(load_volume(words), volume, "noise")
    if not (np.isfinite(noise[mask]).all() and noise[mask].min(initial=np.inf) > 0):
        raise UserError(f"{words} must be a standard deviation above zero inside the mask, got zeros or NaN there")
    return noise


def single_volume(volume: NiftiVolume) -> np.ndarray:
    """Return the voxels of a file that holds one volume; axes of length one at the end are dropped.

    Raises:
      UserError: if it holds more than one.
    """
    if any(n != 1 for n in volume.shape[3:]):
        raise UserError(
            f"{volume.path} must hold one volume (x, y, z), got shape {volume.shape}: split it, one file each"
        )
    return volume.data.reshape(volume.shape[:3])


def grid_of(
    args: argparse.Namespace, volume: NiftiVolume, parameters: ScanParameters
) -> tuple[Geometry, str, list[str]]:
    """Return the grid, what said where B0 points (flag, params, affine, in this order, or none), and notes."""
    notes = []
    source = "--b0-dir" if args.b0_dir else "params" if parameters.b0_dir else "affine"
    b0_dir = args.b0_dir or parameters.b0_dir
    if source == "affine" and not volume.oriented:
        notes.append("the header says nothing of orientation: B0 is taken along the third voxel axis (else --b0-dir)")
        source, b0_dir = "assumption", (0, 0, 1)
    grid = geometry_from_affine(volume.affine, volume.shape[:3], b0_dir=b0_dir)
    if source == "affine" and (apart := forms_apart(volume.header)) > FORMS_APART:
        notes.append(f"sform and qform stand {apart:.0f} degrees apart: B0 is taken from the sform (else --b0-dir)")
    if parameters.voxel_size is not None:
        grid = dataclasses.replace(grid, voxel_size=jnp.asarray(parameters.voxel_size, jnp.float32))
    return grid, source, notes


def contradictions(volume: NiftiVolume, parameters: ScanParameters) -> list[str]:
    """Say where params and the header's affine tell different grids: params are believed, and may be another scan's."""
    grid, told = geometry_from_affine(volume.affine, volume.shape[:3]), []
    if volume.oriented and parameters.b0_dir is not None:
        b0_dir = np.asarray(parameters.b0_dir) / np.linalg.norm(parameters.b0_dir)
        # a turn by 180 degrees makes the same field
        apart = np.degrees(np.arccos(min(abs(float(b0_dir @ np.asarray(grid.b0_dir))), 1.0)))
        if apart > PARAMS_APART:
            told.append(
                f"params tell a B0 that lies {apart:.0f} degrees from the affine's, and are believed: leave B0_dir out "
                "of them if they are of a scan with other axes"
            )
    if parameters.voxel_size is not None and not np.allclose(parameters.voxel_size, grid.voxel_size, rtol=0.02):
        found = [round(float(d), 4) for d in grid.voxel_size]
        told.append(
            f"params tell voxels of {list(parameters.voxel_size)} mm, the affine {found}, and params are believed: "
            "leave voxel_size out of them if they are of another scan"
        )
    return told


def _implied_mask(data: np.ndarray, volume: NiftiVolume) -> tuple[np.ndarray, list[str]]:
    """Take for the head what is not zero; of whole numbers what that encloses too, as they stay at zero on the way."""
    mask = np.nan_to_num(data) != 0
    if mask.all():
        raise UserError(f"{volume.path} must be zero outside the head, got no voxel of zero: give the head with --mask")
    if not mask.any():
        raise UserError(f"{volume.path} must hold a field, got zeros alone")
    whole = scipy.ndimage.binary_fill_holes(mask)
    if not (holes := int(whole.sum() - mask.sum())):
        return mask, []
    # in floating point it stays nowhere; what is zero there was taken out, unless the file was of whole numbers once
    known = data[mask & np.isfinite(data)]
    steps = known / np.abs(known).min(initial=np.inf)
    if volume.stored_as_float and np.abs(steps - np.rint(steps)).max(initial=0) > 0.01:
        return mask, [f"{holes} voxels of zero within the head are left out of the mask (else --mask)"]
    return whole, [f"{holes} voxels of zero within the head are taken for its field's (else --mask)"]


def as_magnitude(data: np.ndarray) -> np.ndarray:
    """Set to zero what no magnitude can be: NaN, infinity, and less than zero."""
    return np.nan_to_num(np.maximum(data, 0), copy=False, posinf=0)


def without_nan(
    data: np.ndarray, mask: np.ndarray, path: str | Path, *, to_mask: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Set what is not finite to zero, and take it out of the mask if that is wanted.

    Args:
      data: a volume, or one an echo along a first axis.
      mask: of one.
      path: where they are from, for the message.
      to_mask: whether --nan-to-mask was said.

    Returns:
      Data, mask, and notes.

    Raises:
      UserError: if some lies in the mask and is to stay there, or no mask is left.
    """
    wrong = ~np.isfinite(data)
    bad = wrong.any(0) if wrong.ndim > mask.ndim else wrong
    notes = []
    inside = int((bad & mask).sum())
    if inside and not to_mask:
        raise UserError(
            f"{path} must be finite inside the mask, got {inside} voxels of NaN or infinity: "
            "take them out of the mask with --nan-to-mask"
        )
    if inside:
        notes.append(f"{inside} voxels of NaN or infinity were taken out of the mask")
        mask = mask & ~bad
        if not mask.any():
            raise UserError(f"{path} must have finite voxels inside the mask, got none")
    outside = int(bad.sum()) - inside
    if outside:
        notes.append(f"{outside} voxels of NaN or infinity outside the mask were set to zero")
    return np.where(wrong, 0, data) if inside + outside else data, mask, notes


def _checked(field: np.ndarray, mask: np.ndarray, args) -> np.ndarray:
    largest = float(np.abs(field[mask]).max())
    if largest > FIELD_LIMIT:
        raise UserError(
            f"{args.field[0]} must lie within {FIELD_LIMIT:g} ppm, got {largest:.4g} with --units {args.units}: "
            "say --units hz or rad, with --b0 and --te (ppb: divide by 1000)"
        )
    spread = float(field[mask].std())
    if args.input == "localfield" and spread > LOCAL_STD_LIMIT:
        raise UserError(
            f"{args.field[0]} must be a local field, whose standard deviation stays under {LOCAL_STD_LIMIT:g} ppm, got "
            f"{spread:.3g} with --units {args.units}: say --units hz or rad (ppb: divide by 1000), or --input "
            "totalfield"
        )
    return field


def read_mask(other: NiftiVolume, volume: NiftiVolume) -> tuple[np.ndarray, list[str]]:
    """Return where a file that must lie where a volume lies is a number other than zero, and notes.

    Of fractions up to one, as a tissue's probability has them or a mask that was resampled, a half is needed.

    Raises:
      UserError: if it lies elsewhere, or that is nowhere.
    """
    data = np.nan_to_num(on_grid(other, volume, "mask"))
    mask, notes = data != 0, []
    if not mask.any():
        raise UserError(f"{other.path} must have voxels other than zero, got none")
    inside = data[mask]
    if np.any(inside != np.rint(inside)) and np.mean(np.abs(inside - 1) < 0.02) > PLATEAU * np.mean(inside > 0.02):
        mask = data > HALF
        notes = [f"the mask holds fractions: the {mask.sum()} voxels above {HALF} are taken of {inside.size}"]
    elif (labels := len(np.unique(inside[:: max(inside.size // 100_000, 1)]))) > 2:
        notes = [f"the mask holds {labels} different numbers: all that is not zero is taken for the head"]
    return mask, notes


def on_grid(other: NiftiVolume, volume: NiftiVolume, name: str) -> np.ndarray:
    """Return the voxels of one volume that must lie where another lies.

    Raises:
      UserError: if it does not.
    """
    data = single_volume(other)
    if data.shape != volume.shape[:3]:
        raise UserError(
            f"{name} must be on the field's grid {volume.shape[:3]}, got {data.shape} in {other.path}: "
            "resample it to the field"
        )
    apart = np.abs(other.affine - volume.affine).max()
    if other.oriented and volume.oriented and apart > GRID_TOLERANCE:
        raise UserError(
            f"{name} must lie where the field lies, got an affine {apart:.3g} off in {other.path}: "
            "resample it to the field"
        )
    return data
