"""From files of echoes to the total field: what the scanner stored, scaled by rule, on one grid."""

import argparse
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex

from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, grid_of, read_noise
from qsmjax.cli.stages import Stage
from qsmjax.cli.stored import Echoes, Stored, complex_echoes, head_of, read_stored
from qsmjax.cli.told import acquisition, check_units, echo_times, field_strength
from qsmjax.io.nifti import NiftiVolume, number_order, stem
from qsmjax.io.sidecar import ScanParameters, load_json, load_parameters
from qsmjax.phase.scaling import alternating_axes, negate_alternate, undo_alternation
from qsmjax.physics.axes import nearest_axes
from qsmjax.physics.geometry import Geometry

PART = re.compile(r"(^|[_-])(real|imag)(inary)?(?![a-z])")
"""What names of real and imaginary parts hold: dcm2niix' and BIDS'."""

USUALLY_LOST = 0.1
"""Part of the mask that the fit may leave out without a word of warning: 0.1 to 0.3 % of simulated heads; 13 % where
two of four echoes were swapped, 40 to 50 % in other orders and of a readout to and fro."""


def read_echoes(args: argparse.Namespace, stages: Mapping[str, Stage]) -> Scan:
    """Load phase, magnitude and mask as the arguments of `infer --input phase` say, and make the total field.

    With --imaginary FIELD are the real parts.

    Echo times and field strength come from the flags, else, as the manufacturer, from params.json, else the JSON
    sidecars that stand beside these files (BIDS: EchoTime, ImagingFrequency before MagneticFieldStrength,
    Manufacturer). A noise that is given stands for the one that the echoes tell.

    Args:
      args: those of `infer`.
      stages: the methods in their slots, "field" among them.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    parameters = load_parameters(args.params) if args.params else ScanParameters()
    given = tuple(args.te or parameters.te or ())
    if args.imaginary and args.magnitude:
        raise UserError("--magnitude must be left out with --imaginary, got both: real and imaginary parts tell it")
    files, imaginary, magnitudes = (in_order(paths or ()) for paths in (args.field, args.imaginary, args.magnitude))
    _check_names(files, imaginary)
    stored = read_stored(files, imaginary, magnitudes, coils=args.coils)
    first = stored.first
    sidecars = _sidecars(files)
    te = _times(given, sidecars, len(stored.values), _layout(stored, len(files)))
    for flag, others in (("--magnitude", magnitudes), ("--imaginary", imaginary)):
        _check_paired(flag, te, _sidecars(others))
    b0, b0_from = _strength(args, parameters, sidecars[0])
    check_units(te, b0, b0_from)
    grid, b0_source, notes = grid_of(args, first, parameters)
    notes.append(f"field strength {b0:.4g} T from {b0_from}")
    if files != [*map(Path, args.field)]:
        notes.append("echoes were taken in the order of the numbers in their files' names")
    whole, found = head_of(stored, args.mask, "with --mask", stages)
    maker = parameters.manufacturer or sidecars[0].get("Manufacturer")
    echoes, mask, made = complex_echoes(stored, whole, args, maker if isinstance(maker, str) else None)
    notes += [*found, *made]
    if not stored.coils:
        signal = echoes.combined()
    else:
        signal, alternating = _combined(stages, echoes, te, mask, grid)
        notes += [f"{stored.values.shape[1]} coil(s) were combined", *alternating]
    scan = scan_of_echoes(stages["field"], signal, te, b0, mask, grid, volume=first, b0_source=b0_source, notes=notes)
    removed = whole & ~np.asarray(scan.field_map.mask)
    scan = dataclasses.replace(scan, removed=removed, acquisition=acquisition(sidecars[0]))
    if not args.noise:
        return scan
    noise = read_noise(args.noise, first, np.asarray(scan.field_map.mask))
    field_map = dataclasses.replace(scan.field_map, noise=jnp.asarray(noise, jnp.float32))
    return dataclasses.replace(scan, field_map=field_map)


def _combined(
    stages: Mapping[str, Stage], echoes: Echoes, te: tuple[float, ...], mask: np.ndarray, grid: Geometry
) -> tuple[Complex[Array, "echo x y z"], list[str]]:
    """Combine the coils by the "coils" stage; echoes stay in the order of `te`."""
    order, stage = np.argsort(te), stages["coils"]
    # a sign that alternates from slice to slice would be taken for an offset, and smoothed away
    axes = alternating_axes(echoes[order[0]], mask)
    rising = Echoes(lambda n: negate_alternate(echoes[order[n]], axes), len(te))
    times, to_and_fro = [te[n] for n in order], bool(stages["field"].parameters["bipolar"])
    combined = stage.run(rising, times, mask, grid.voxel_size, to_and_fro, **stage.options)
    return combined[np.argsort(order)], _negated(axes)


def _negated(axes: Sequence[int]) -> list[str]:
    return [f"every other slice along {'xyz'[a]} was negated, since their signs alternated" for a in axes]


def in_order(paths: Sequence[str]) -> list[Path]:
    """Return files of echoes in the order of the numbers in their names, where the shell put echo 10 before echo 2.

    Any other order is the user's own.
    """
    named = [Path(path) for path in paths]
    return sorted(named, key=number_order) if named == sorted(named) else named


def _layout(stored: Stored, files: int) -> str:
    """Say what the axes of files were taken for, where another number of echoes may have been meant."""
    if stored.coils:
        return " (with --coils the fourth axis is taken for coils, the fifth for echoes)"
    return " (the fourth axis is taken for echoes; of coils say --coils)" if files == 1 < len(stored.values) else ""


def _times(
    given: Sequence[float], sidecars: Sequence[Mapping[str, Any]], echoes: int, layout: str = ""
) -> tuple[float, ...]:
    """Return the echo times [s]: those that were given, else the sidecars', which must not contradict them."""
    told = tuple(t for sidecar in sidecars for t in echo_times(sidecar))
    te = given or told
    if len(te) != echoes:
        raise UserError(
            f"--te must give one echo time for each of {echoes} echoes, got {len(te)}{layout}: so may params.json, or "
            "EchoTime in the JSON files beside the phase"
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


def _check_names(files: Sequence[Path], imaginary: Sequence[Path]) -> None:
    """Refuse parts under another's flag, by their names: real parts would pass for phase, and make a map."""
    for path in files:
        told = PART.search(stem(path).lower())
        if told and not (imaginary and told[2] == "real"):
            wanted = "real parts" if imaginary else "phase"
            raise UserError(
                f"{path} must hold {wanted}, got the name of {told[2]} ones: give the real parts first, and the "
                "imaginary ones with --imaginary"
            )


def _sidecars(files: Sequence[Path]) -> list[dict[str, Any]]:
    return [load_json(path) if (path := sidecar_path(file)).is_file() else {} for file in files]


def _check_paired(flag: str, te: Sequence[float], sidecars: Sequence[Mapping[str, Any]]) -> None:
    """Refuse other files whose sidecars tell other echoes, or these in another order."""
    told = tuple(t for sidecar in sidecars for t in echo_times(sidecar))
    if len(told) == len(te) and max(told) < 1 and not np.allclose(te, told, rtol=0.01):
        lists = [", ".join(f"{t:g}" for t in times) for times in (te, told)]
        raise UserError(
            f"{flag} must be of FIELD's echoes, in their order, got EchoTime {lists[1]} beside them where FIELD has "
            f"{lists[0]}: give the files in that order"
        )


def _strength(args: argparse.Namespace, parameters: ScanParameters, sidecar: Mapping[str, Any]) -> tuple[float, str]:
    """Return the field strength [T], and what said so."""
    if args.b0 or parameters.b0:
        return (args.b0, "--b0") if args.b0 else (float(parameters.b0 or 0), "params")
    told = field_strength(sidecar)
    if told is None:
        raise UserError("--b0 must give the field strength in tesla for --input phase (or params.json, or a sidecar)")
    return told


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
    notes = [*notes, *_negated(axes)]
    # as every stage: what rounds otherwise for other axes is more than rounding after the background's removal
    turned = nearest_axes(volume.affine)
    total = stage.run(turned.turn(signal), te, b0, turned.turn(mask), turned.turn_grid(grid), **stage.options)
    back, rim = turned.inverse, int(total.rim.sum())
    lost = int(total.removed.sum()) - rim
    told = [f"{rim} voxels of the mask's rim were taken out, as asked"] if rim else []
    told += [f"{lost} voxels were taken out of the mask, whose echoes the fit does not explain"] if lost else []
    unlikely: tuple[str, ...] = ()
    if (part := lost / (int(np.count_nonzero(mask)) - rim)) > USUALLY_LOST:
        unlikely = (
            f"{part:.0%} of the mask was taken out, since the fit does not explain its echoes (usual: below "
            f"{USUALLY_LOST:.0%}): look at the order of the echoes and at their times, at --phase-units, at whether "
            "the magnitudes of all echoes are of one scale, and, if they were read to and fro, at --set "
            "field.bipolar=true",
        )
    removed = np.asarray(back.turn(total.removed))
    return Scan(back.turn_field(total.field_map), volume, b0_source, b0, te, (*notes, *told), unlikely, removed)


def sidecar_path(path: str | Path) -> Path:
    """Return where the JSON of an image stands."""
    path = Path(path)
    return path.with_name(f"{stem(path)}.json")
