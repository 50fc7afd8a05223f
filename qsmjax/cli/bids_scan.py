"""From a run of a BIDS dataset to its total field: phase, or real and imaginary parts, with what the sidecars say."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.cli.echoes import scan_of_echoes
from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, grid_of
from qsmjax.cli.stages import Stage
from qsmjax.cli.stored import complex_echoes, head_of, read_stored
from qsmjax.cli.told import acquisition, check_units, echo_times, field_strength
from qsmjax.io.bids import Run, sidecar_of
from qsmjax.io.sidecar import ScanParameters


@dataclasses.dataclass(frozen=True)
class Told:
    """What the sidecars say: echo times [s] in the files' order, field strength [T] and its source, manufacturer."""

    te: tuple[float, ...]
    b0: float
    b0_from: str
    manufacturer: str | None


def read_run(run: Run, root: Path, stages: Mapping[str, Stage], args: argparse.Namespace) -> Scan:
    """Load a run and make its total field.

    Args:
      run: whose files.
      root: the dataset, above which no sidecar is looked for.
      stages: the methods in their slots, "field" among them.
      args: those of `infer`; `mask`, `phase_units`, `b0_dir` and `nan_to_mask` count.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers, alike.
    """
    phase = run.parts.get("phase", ())
    main = phase or run.parts["real"]
    told = told_of([sidecar_of(root, path) for path in main])
    stored = read_stored(main, () if phase else run.parts["imag"], run.parts.get("mag", ()) if phase else ())
    if len(told.te) != (count := len(stored.values)):
        raise UserError(f"{main[0].name} must have an EchoTime for each of {count} echoes, got {len(told.te)}")
    grid, b0_source, notes = grid_of(args, stored.first, ScanParameters())
    given, found = head_of(stored, args.mask, "by --derivatives", stages)
    echoes, inside, made = complex_echoes(stored, given, args, told.manufacturer)
    named = [f"mask from {Path(args.mask).name}"] if args.mask else []
    notes = [f"field strength {told.b0:.4g} T from {told.b0_from}", *notes, *named, *found, *made]
    scanned = (stages["field"], echoes.combined(), told.te, told.b0, inside, grid)
    made_scan = scan_of_echoes(*scanned, volume=stored.first, b0_source=b0_source, notes=notes)
    removed = given & ~np.asarray(made_scan.field_map.mask)
    return dataclasses.replace(made_scan, removed=removed, acquisition=acquisition(sidecar_of(root, main[0])))


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
