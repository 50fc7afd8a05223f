"""From phase and magnitude files to the total field: what the scanner stored, scaled by rule, on one grid."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, as_magnitude, grid_of, on_grid, read_mask, single_volume, without_nan
from qsmjax.cli.stages import Stage
from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.io.sidecar import ScanParameters, load_json, load_parameters
from qsmjax.phase.echoes import echoes_from_phase
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.scaling import ScaledPhase, phase_to_radians, undo_alternation
from qsmjax.physics.axes import nearest_axes
from qsmjax.physics.geometry import Geometry
from qsmjax.physics.units import GAMMA


def read_echoes(args: argparse.Namespace, stage: Stage) -> Scan:
    """Load phase, magnitude and mask as the arguments of `infer --input phase` say, and make the total field.

    Echo times, field strength and manufacturer come from the flags, else params.json, else the JSON sidecars that stand
    beside the phase files (BIDS: EchoTime, ImagingFrequency before MagneticFieldStrength, Manufacturer).

    Args:
      args: those of `infer`.
      stage: the "field" stage, with its options.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    volumes = [load_volume(path) for path in args.field]
    stored = _echoes_of(volumes)
    first = volumes[0]
    sidecars = [_sidecar_of(volume.path) for volume in volumes]
    parameters = load_parameters(args.params) if args.params else ScanParameters()
    te = args.te or parameters.te or tuple(s["EchoTime"] for s in sidecars if "EchoTime" in s)
    if len(te) != len(stored):
        raise UserError(f"--te must give one echo time for each of {len(stored)} echoes, got {len(te)}")
    b0 = args.b0 or parameters.b0 or _field_strength(sidecars[0])
    if b0 is None:
        raise UserError("--b0 must give the field strength in tesla for --input phase (or params.json, or a sidecar)")
    grid, b0_source, notes = grid_of(args, first, parameters)
    magnitude = _magnitude(args, first, stored.shape)
    if args.mask:
        mask = read_mask(load_volume(args.mask), first)
    elif magnitude is not None:
        mask = np.asarray(magnitude_mask(magnitude))
        notes.append("mask found from the magnitude: it holds all that gives signal; give a brain mask with --mask")
    else:
        raise UserError("--mask must be given where there is no --magnitude to find the head from")
    stored, mask, lost = without_nan(stored, mask, first.path, to_mask=args.nan_to_mask)
    scaled = scaled_phase(stored, first, args, sidecars[0].get("Manufacturer"))
    notes += [*lost, f"phase scaled as {scaled.rule}"]
    times = tuple(float(t) for t in te)
    signal = echoes_from_phase(scaled.phase, magnitude)
    return scan_of_echoes(stage, signal, times, float(b0), mask, grid, volume=first, b0_source=b0_source, notes=notes)


def scaled_phase(
    stored: np.ndarray, first: NiftiVolume, args: argparse.Namespace, manufacturer: str | None
) -> ScaledPhase:
    """Bring stored phase to radians by the rule that fits the file it is from, or by --phase-units."""
    return phase_to_radians(
        stored,
        units=args.phase_units,
        scl_slope=first.slope,
        scl_inter=first.intercept,
        stored_as_float=first.stored_as_float,
        manufacturer=manufacturer,
    )


def scan_of_echoes(
    stage: Stage,
    signal: ArrayLike,
    te: tuple[float, ...],
    b0: float,
    mask: np.ndarray,
    grid: Geometry,
    *,
    volume: NiftiVolume,
    b0_source: str,
    notes: Sequence[str],
) -> Scan:
    """Make the total field of complex echoes by the "field" stage.

    Args:
      stage: with its options.
      signal: complex, echo x y z.
      te: echo times [s].
      b0: field strength [T].
      mask: where the head is.
      grid: where the voxels stand.
      volume: the first file, whose geometry the output takes.
      b0_source: what said where B0 points.
      notes: what was done so far.
    """
    signal, axes = undo_alternation(signal, mask)
    notes = [*notes, *(f"every other slice along {'xyz'[a]} was negated, since their signs alternated" for a in axes)]
    # as every stage: what rounds otherwise for other axes is more than rounding after the background's removal
    turned = nearest_axes(volume.affine)
    total = stage.run(turned.turn(signal), te, b0, turned.turn(mask), turned.turn_grid(grid), **stage.options)
    back, lost = turned.inverse, int(total.removed.sum())
    told = [f"{lost} voxels were taken out of the mask, whose echoes the fit does not explain"] if lost else []
    removed = np.asarray(back.turn(total.removed))
    return Scan(back.turn_field(total.field_map), volume, b0_source, b0, te, (*notes, *told), removed)


def _echoes_of(volumes: list[NiftiVolume]) -> np.ndarray:
    """Stack one file an echo, or one file with the echoes on its fourth axis, to (echo, x, y, z)."""
    first = volumes[0]
    if len(volumes) == 1 and len(first.shape) == 4:
        return np.moveaxis(first.data, -1, 0)
    if any(v.slope != first.slope or v.intercept != first.intercept for v in volumes):
        raise UserError("the phase files must share one scale factor, got several: convert them together")
    return np.stack([single_volume(first), *(on_grid(v, first, "phase") for v in volumes[1:])])


def _magnitude(args: argparse.Namespace, first: NiftiVolume, shape: tuple[int, ...]) -> np.ndarray | None:
    if not args.magnitude:
        return None
    magnitude = _echoes_of([dataclasses.replace(load_volume(path), slope=1, intercept=0) for path in args.magnitude])
    if magnitude.shape != shape:
        raise UserError(f"--magnitude must have the phase's {shape[0]} echoes of {shape[1:]}, got {magnitude.shape}")
    return as_magnitude(magnitude)


def _sidecar_of(path: Path) -> dict[str, Any]:
    beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    found = load_json(beside) if beside.is_file() else {}
    numbers = ("EchoTime", "ImagingFrequency", "MagneticFieldStrength")
    return {
        key: value
        for key, value in found.items()
        if (key in numbers and isinstance(value, int | float) and value > 0)
        or (key == "Manufacturer" and isinstance(value, str))
    }


def _field_strength(sidecar: dict[str, Any]) -> float | None:
    # the centre frequency is what the scanner ran at; the strength is what it is sold as
    if "ImagingFrequency" in sidecar:
        return sidecar["ImagingFrequency"] * 1e6 / GAMMA
    return sidecar.get("MagneticFieldStrength")
