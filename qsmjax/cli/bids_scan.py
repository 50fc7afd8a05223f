"""From a run of a BIDS dataset to its total field: phase, or real and imaginary parts, with what the sidecars say."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Complex

from qsmjax.cli.echoes import scaled_phase, scan_of_echoes
from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, as_magnitude, grid_of, on_grid, read_mask, single_volume, without_nan
from qsmjax.cli.stages import Stage
from qsmjax.cli.told import check_units, echo_times, field_strength
from qsmjax.io.bids import Run, sidecar_of
from qsmjax.io.nifti import NiftiVolume, load_volume
from qsmjax.io.sidecar import ScanParameters
from qsmjax.phase.echoes import echoes_from_phase
from qsmjax.phase.mask import magnitude_mask
from qsmjax.phase.scaling import complex_from_parts


@dataclasses.dataclass(frozen=True)
class Told:
    """What the sidecars say: echo times [s] in the files' order, field strength [T] and its source, manufacturer."""

    te: tuple[float, ...]
    b0: float
    b0_from: str
    manufacturer: str | None


def read_run(run: Run, root: Path, stage: Stage, args: argparse.Namespace, mask: Path | None) -> Scan:
    """Load a run and make its total field.

    Args:
      run: whose files.
      root: the dataset, above which no sidecar is looked for.
      stage: the "field" stage, with its options.
      args: those of `infer`; `phase_units`, `b0_dir` and `nan_to_mask` count.
      mask: a file that is not zero in the head; None to find it from the magnitude.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    whole = "phase" not in run.parts
    main = run.parts["real" if whole else "phase"]
    told = told_of([sidecar_of(root, path) for path in main])
    first = load_volume(main[0])
    main_part = _stack(first, main)
    if len(told.te) != len(main_part):
        raise UserError(f"{main[0].name} must have an EchoTime for each of {len(main_part)} echoes, got {len(told.te)}")
    notes = [f"field strength {told.b0:.4g} T from {told.b0_from}"]
    grid, b0_source, more = grid_of(args, first, ScanParameters())
    stored = main_part + 1j * _part(run, "imag", first, main_part) if whole else main_part
    magnitude = np.abs(stored) if whole else _part(run, "mag", first, main_part) if "mag" in run.parts else None
    if magnitude is not None:
        magnitude = as_magnitude(magnitude)
    if mask is not None:
        inside, fractions = read_mask(load_volume(mask), first)
        notes += [f"mask from {mask.name}", *fractions]
    elif magnitude is not None:
        inside = np.asarray(magnitude_mask(magnitude))
        notes.append("mask found from the magnitude: it holds all that gives signal; give brain masks by --derivatives")
    else:
        raise UserError("a mask must be in --derivatives where a scan has no magnitude, got none")
    stored, inside, lost = without_nan(stored, inside, main[0], to_mask=args.nan_to_mask)
    signal: Complex[Array, "echo x y z"]
    if whole:
        signal = complex_from_parts(stored.real, stored.imag, manufacturer=told.manufacturer)
        notes.append("echoes from real and imaginary parts")
    else:
        scaled = scaled_phase(stored, first, args, told.manufacturer)
        notes.append(f"phase scaled as {scaled.rule}")
        signal = echoes_from_phase(scaled.phase, magnitude)
    notes += [*more, *lost]
    return scan_of_echoes(stage, signal, told.te, told.b0, inside, grid, volume=first, b0_source=b0_source, notes=notes)


def told_of(sidecars: Sequence[dict[str, Any]]) -> Told:
    """Take from the sidecars what a map needs; the centre frequency stands before the nominal field strength.

    Raises:
      UserError: if something is missing or cannot be.
    """
    te: list[float] = []
    for sidecar in sidecars:
        times = echo_times(sidecar)
        if not times:
            got = str(sidecar.get("EchoTime"))[:40]
            raise UserError(f"EchoTime must be in the sidecars, above zero, in seconds, got {got}")
        te += times
    if len(set(te)) != len(te):
        raise UserError(f"EchoTime must differ from echo to echo, got {', '.join(f'{t:g}' for t in te)}")
    strength, maker = field_strength(sidecars[0]), sidecars[0].get("Manufacturer")
    if strength is None:
        raise UserError("ImagingFrequency or MagneticFieldStrength must be in the sidecars, got neither")
    check_units(tuple(te), *strength)
    return Told(tuple(te), *strength, maker if isinstance(maker, str) else None)


def _stack(first: NiftiVolume, paths: Sequence[Path]) -> np.ndarray:
    """Stack one file an echo, or one file with the echoes on its fourth axis, to (echo, x, y, z)."""
    if len(paths) == 1:
        return np.moveaxis(first.data.reshape(*first.shape[:3], -1), -1, 0)
    rest = [load_volume(path) for path in paths[1:]]
    if any(v.slope != first.slope or v.intercept != first.intercept for v in rest) and "part-phase" in first.path.name:
        raise UserError("the phase files must share one scale factor, got several: convert them together")
    return np.stack([single_volume(first), *(on_grid(v, first, v.path.name) for v in rest)])


def _part(run: Run, part: str, first: NiftiVolume, like: np.ndarray) -> np.ndarray:
    paths = run.parts[part]
    other = load_volume(paths[0])
    found = _stack(other, paths)
    if found.shape != like.shape:
        raise UserError(f"{part} must have the {like.shape[0]} echoes of {like.shape[1:]}, got {found.shape}")
    # the rest were held against their first
    on_grid(dataclasses.replace(other, data=found[0]), first, part)
    return found
