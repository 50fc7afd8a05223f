"""From phase and magnitude files to the total field: what the scanner stored, scaled by rule, on one grid."""

import argparse
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, as_magnitude, grid_of, on_grid, read_mask, read_noise, single_volume, without_nan
from qsmjax.cli.stages import Stage
from qsmjax.cli.told import check_units, echo_times, field_strength
from qsmjax.io.nifti import NiftiVolume, load_volume, number_order, stem
from qsmjax.io.sidecar import ScanParameters, load_json, load_parameters
from qsmjax.phase.echoes import echoes_from_phase
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.scaling import ScaledPhase, phase_to_radians, undo_alternation
from qsmjax.physics.axes import nearest_axes
from qsmjax.physics.geometry import Geometry

USUALLY_LOST = 0.1
"""Part of the mask that the fit may leave out without a word of warning: 0.1 to 0.3 % of simulated heads; 13 % where
two of four echoes were swapped, 40 to 50 % in other orders and of a readout to and fro."""


def read_echoes(args: argparse.Namespace, stage: Stage) -> Scan:
    """Load phase, magnitude and mask as the arguments of `infer --input phase` say, and make the total field.

    Echo times and field strength come from the flags, else, as the manufacturer, from params.json, else the JSON
    sidecars that stand beside the phase files (BIDS: EchoTime, ImagingFrequency before MagneticFieldStrength,
    Manufacturer). A noise that is given stands for the one that the echoes tell.

    Args:
      args: those of `infer`.
      stage: the "field" stage, with its options.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    parameters = load_parameters(args.params) if args.params else ScanParameters()
    given = tuple(args.te or parameters.te or ())
    phases, magnitudes = (in_order(paths or ()) for paths in (args.field, args.magnitude))
    volumes = [load_volume(path) for path in phases]
    stored = _echoes_of(volumes)
    first = volumes[0]
    sidecars = [load_json(path) if (path := sidecar_path(phase)).is_file() else {} for phase in phases]
    te = _times(given, sidecars, len(stored))
    b0, b0_from = _strength(args, parameters, sidecars[0])
    check_units(te, b0, b0_from)
    grid, b0_source, notes = grid_of(args, first, parameters)
    notes.append(f"field strength {b0:.4g} T from {b0_from}")
    if phases != [*map(Path, args.field)]:
        notes.append("echoes were taken in the order of the numbers in their files' names")
    magnitude = _magnitude(magnitudes, first, stored.shape)
    if args.mask:
        mask, more = read_mask(load_volume(args.mask), first)
        notes += more
    elif magnitude is not None:
        mask = np.asarray(magnitude_mask(magnitude))
        notes.append("mask found from the magnitude: it holds all that gives signal; give a brain mask with --mask")
    else:
        raise UserError("--mask must be given where there is no --magnitude to find the head from")
    stored, mask, lost = without_nan(stored, mask, first.path, to_mask=args.nan_to_mask)
    maker = parameters.manufacturer or sidecars[0].get("Manufacturer")
    scaled = scaled_phase(stored, first, args, maker if isinstance(maker, str) else None)
    notes += [*lost, f"phase scaled as {scaled.rule}"]
    signal = echoes_from_phase(scaled.phase, magnitude)
    scan = scan_of_echoes(stage, signal, te, b0, mask, grid, volume=first, b0_source=b0_source, notes=notes)
    if not args.noise:
        return scan
    noise = read_noise(args.noise, first, np.asarray(scan.field_map.mask))
    field_map = dataclasses.replace(scan.field_map, noise=jnp.asarray(noise, jnp.float32))
    return dataclasses.replace(scan, field_map=field_map)


def in_order(paths: Sequence[str]) -> list[Path]:
    """Return files of echoes in the order of the numbers in their names, where the shell put echo 10 before echo 2.

    Any other order is the user's own.
    """
    named = [Path(path) for path in paths]
    return sorted(named, key=number_order) if named == sorted(named) else named


def _times(given: Sequence[float], sidecars: Sequence[Mapping[str, Any]], echoes: int) -> tuple[float, ...]:
    """Return the echo times [s]: those that were given, else the sidecars', which must not contradict them."""
    told = tuple(t for sidecar in sidecars for t in echo_times(sidecar))
    te = given or told
    if len(te) != echoes:
        raise UserError(
            f"--te must give one echo time for each of {echoes} echoes, got {len(te)}: so may params.json, or EchoTime "
            "in the JSON files beside the phase"
        )
    if any(a >= b for a, b in itertools.pairwise(given)):
        raise UserError(f"--te must rise from echo to echo, got {', '.join(f'{t:g}' for t in given)}")
    if len(told) == echoes and max(told) < 1 and not np.allclose(te, told, rtol=0.01):
        lists = [", ".join(f"{t:g}" for t in times) for times in (te, told)]
        raise UserError(
            f"--te must be the EchoTime beside the phase files, got {lists[0]} where those say {lists[1]}: give the "
            "files in that order, or leave --te out"
        )
    return tuple(float(t) for t in te)


def _strength(args: argparse.Namespace, parameters: ScanParameters, sidecar: Mapping[str, Any]) -> tuple[float, str]:
    """Return the field strength [T], and what said so."""
    if args.b0 or parameters.b0:
        return (args.b0, "--b0") if args.b0 else (float(parameters.b0 or 0), "params")
    told = field_strength(sidecar)
    if told is None:
        raise UserError("--b0 must give the field strength in tesla for --input phase (or params.json, or a sidecar)")
    return told


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
      te: echo times [s], in any order.
      b0: field strength [T].
      mask: where the head is.
      grid: where the voxels stand.
      volume: the first file, whose geometry the output takes.
      b0_source: what said where B0 points.
      notes: what was done so far.
    """
    order = np.argsort(te)
    te = tuple(te[i] for i in order)
    signal, axes = undo_alternation(jnp.asarray(signal)[order], mask)
    notes = [*notes, *(f"every other slice along {'xyz'[a]} was negated, since their signs alternated" for a in axes)]
    # as every stage: what rounds otherwise for other axes is more than rounding after the background's removal
    turned = nearest_axes(volume.affine)
    total = stage.run(turned.turn(signal), te, b0, turned.turn(mask), turned.turn_grid(grid), **stage.options)
    back, lost = turned.inverse, int(total.removed.sum())
    told = [f"{lost} voxels were taken out of the mask, whose echoes the fit does not explain"] if lost else []
    unlikely: tuple[str, ...] = ()
    if (part := lost / int(np.count_nonzero(mask))) > USUALLY_LOST:
        unlikely = (
            f"{part:.0%} of the mask was taken out, since the fit does not explain its echoes (usual: below "
            f"{USUALLY_LOST:.0%}): look at the order of the echoes and at their times, at --phase-units, at whether "
            "the magnitudes of all echoes are of one scale, and, if they were read to and fro, at --set "
            "field.bipolar=true",
        )
    removed = np.asarray(back.turn(total.removed))
    return Scan(back.turn_field(total.field_map), volume, b0_source, b0, te, (*notes, *told), unlikely, removed)


def _echoes_of(volumes: Sequence[NiftiVolume], name: str = "phase") -> np.ndarray:
    """Stack one file an echo, or one file with the echoes on its fourth axis, to (echo, x, y, z)."""
    first = volumes[0]
    if len(volumes) == 1 and len(first.shape) == 4:
        return np.moveaxis(first.data, -1, 0)
    if any(v.slope != first.slope or v.intercept != first.intercept for v in volumes):
        raise UserError("the phase files must share one scale factor, got several: convert them together")
    return np.stack([single_volume(first), *(on_grid(v, first, name) for v in volumes[1:])])


def _magnitude(paths: Sequence[Path], first: NiftiVolume, shape: tuple[int, ...]) -> np.ndarray | None:
    if not paths:
        return None
    volumes = [dataclasses.replace(load_volume(path), slope=1, intercept=0) for path in paths]
    magnitude = _echoes_of(volumes, "magnitude")
    if magnitude.shape != shape:
        raise UserError(f"--magnitude must have the phase's {shape[0]} echoes of {shape[1:]}, got {magnitude.shape}")
    # the others were held against their first
    on_grid(dataclasses.replace(volumes[0], data=magnitude[0]), first, "magnitude")
    return as_magnitude(magnitude)


def sidecar_path(path: str | Path) -> Path:
    """Return where the JSON of an image stands."""
    path = Path(path)
    return path.with_name(f"{stem(path)}.json")
