"""Turn a field map, or the phase of a scan, into a susceptibility map [ppm].

  python infer.py field.nii                               total variation, corrected by a network
  python infer.py field.nii --method tv                   without the network
  python infer.py field.nii --method tkd --set threshold=0.2
  python infer.py field.nii --workdir W                   the network that train.py left in W
  python infer.py total.nii --input totalfield            background field removed first
  python infer.py phase*.nii --input phase --magnitude mag*.nii --params params.json
  python infer.py real*.nii --input phase --imaginary imag*.nii --params params.json
  python infer.py phase*.nii --input phase --coils --magnitude mag*.nii --params params.json    single coils, uncombined
  python infer.py kspace.npy --input kspace --params params.json     GRAPPA and ESPIRiT first

The map goes to field_Chimap.nii.gz with the field's own affine; beside it its standard deviation where the method knows
one, a JSON sidecar and a picture of three planes.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from qsmjax.cli import methods
from qsmjax.cli.echoes import read_echoes, sidecar_path
from qsmjax.cli.errors import UserError
from qsmjax.cli.kspace import scan_of_kspace
from qsmjax.cli.outputs import Result, earlier, paths, write_result
from qsmjax.cli.progress import iterations
from qsmjax.cli.scan import Scan, contradictions, on_grid, read_scan
from qsmjax.cli.stages import INPUTS, METHODS, PRESETS, Stage, choose_stages, with_residue_removed
from qsmjax.inversion import taken
from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import is_volume, load_volume, stem
from qsmjax.io.sidecar import load_parameters
from qsmjax.phase.scaling import PhaseUnits
from qsmjax.physics.field_map import FieldMap
from qsmjax.pipeline import in_world_axes, local_field_to_chi
from qsmjax.report.checks import map_warnings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infer`."""
    add = parser.add_argument
    add(
        "field",
        nargs="*",
        metavar="FIELD",
        help="the field, or phase: one 4-D file, or a file an echo (.nii, .nii.gz); or k-space (.npy)",
    )
    add("-o", "--output", metavar="OUT", help="file (or folder) of the map; default: FIELD's name with _Chimap.nii.gz")
    add("--input", choices=INPUTS, default="localfield", help="what FIELD is")
    add("--mask", help="not zero inside the head; default: where FIELD is not zero, or from the magnitude")
    add(
        "--params",
        metavar="JSON",
        help='{"TE": [s], "B0": T, "B0_dir": [x, y, z], "voxel_size": [mm], "affine": 4x4, "Manufacturer": "GE"}, each '
        "optional",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--method", metavar="NAME", help="the inversion: see --list-methods; default: learned")
    choice.add_argument("--workdir", help="use the network trained there")
    add("--preset", choices=PRESETS, default="default", help="methods of all stages")
    add("--set", action="append", default=[], metavar="[STAGE.]KEY=VALUE", help="an option of a stage; repeatable")
    add("--units", choices=("ppm", "hz", "rad"), default="ppm", help="of FIELD and the noise map; default: ppm")
    add(
        "--phase-units",
        choices=get_args(PhaseUnits),
        default="auto",
        help="of stored phase; default: by rule, else refused",
    )
    add("--b0", type=positive, metavar="T", help="field strength [tesla]")
    add("--te", type=positive, nargs="+", metavar="S", help="echo time, or times [seconds]")
    add("--b0-dir", type=float, nargs=3, metavar=("X", "Y", "Z"), help="direction of B0 in voxel axes; default: affine")
    add(
        "--noise",
        metavar="STD",
        help="standard deviation of the field's noise, in its units, of phase [ppm]: a map, or a number",
    )
    add(
        "--magnitude",
        nargs="+",
        metavar="MAG",
        help="magnitude, for the weights and the mask: as FIELD, 4-D or several",
    )
    add(
        "--imaginary",
        nargs="+",
        metavar="IMAG",
        help="imaginary parts: FIELD are the real ones, with --input phase, and the two tell the magnitude",
    )
    add("--calibration", metavar="CAL", help="k-space of a calibration scan measured apart, x y z coil (.npy)")
    add("--coil-noise", metavar="NOISE", help="the coils' noise, sample coil (.npy): k-space is whitened by it")
    add("--coils", action="store_true", help="images of single coils: x y z coil, a file an echo, or x y z coil echo")
    add(
        "--reference", default="mean", metavar="mean|none|MASK", help="what counts as zero; default: mean over the mask"
    )
    add("--nan-to-mask", action="store_true", help="take voxels of NaN or infinity out of the mask")
    add("--save-stages", action="store_true", help="keep total field, local field, noise and masks beside the map")
    add("--report", action="store_true", help="write a page beside the map: figures, viewer, checks, every parameter")
    add("--labels", metavar="SEG", help="segmentation in FreeSurfer's numbers, for the report's regions")
    add("--no-figure", action="store_true", help="draw no picture")
    add("--quiet", action="store_true", help="say nothing but errors")
    add("--list-methods", action="store_true", help="list the methods of all stages with their options and references")


def run(args: argparse.Namespace) -> int:
    """Run `infer`.

    Returns:
      The exit status.
    """
    if args.list_methods:
        methods.print_methods(METHODS)
        return 0
    if not args.field:
        raise UserError("FIELD must be given: the field to invert, or phase with --input phase (.nii or .nii.gz)")
    if args.labels and not args.report:
        raise UserError("--labels must come with --report, which shows the regions, got it alone: add --report")
    if args.noise and args.input == "kspace":
        raise UserError("--noise must go with a field or phase, got --input kspace: its echoes tell their own noise")
    if args.nan_to_mask and args.input == "kspace":
        raise UserError("--nan-to-mask must go with a field or phase, got --input kspace: mend the file")
    if args.imaginary and args.input != "phase":
        raise UserError(f"--imaginary must go with --input phase, whose FIELD are the real parts, got {args.input}")
    if args.imaginary and args.phase_units != "auto":
        raise UserError(f"--phase-units must go with phase, got {args.phase_units} with --imaginary: leave it out")
    if args.coils and args.input != "phase":
        raise UserError(f"--coils must go with --input phase, got {args.input}")
    for flag, given in (("--calibration", args.calibration), ("--coil-noise", args.coil_noise)):
        if given and args.input != "kspace":
            raise UserError(f"{flag} must go with --input kspace, got {args.input}: leave it out")
    started = time.perf_counter()
    target = output_path(args)
    result = reconstruct(args)
    before = earlier(target)
    # all files at once: a disk that is full by the map leaves the old map with its own sidecar
    with write_aside(target) as temporary:
        written = {path.name for path in write_result(temporary, result, args, time.perf_counter() - started)}
    for path in before:
        # what an earlier map left here does not belong to this one
        if path.name not in written:
            path.unlink(missing_ok=True)
    for line in result.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not args.quiet:
        page = f", {target.name.removesuffix('.gz').removesuffix('.nii')}.html" if args.report else ""
        print(f"chi in {target}{page} ({time.perf_counter() - started:.1f} s)")
    return 0


def output_path(args: argparse.Namespace) -> Path:
    """Return where the map goes, after checking that it can be written there and is no input.

    Raises:
      UserError: if it can't, or is one.
    """
    field = Path(args.field[0])
    default = stem(field).removesuffix(".npy") + "_Chimap.nii.gz"
    target = field.with_name(default) if args.output is None else Path(args.output)
    if target.is_dir():
        target = target / default
    if not is_volume(target):
        raise UserError(f"-o must end in .nii or .nii.gz, got {target}")
    if not target.parent.is_dir():
        raise UserError(f"-o must lie in a folder that exists, got {target.parent}: make it first")
    inputs = (
        *args.field,
        *map(sidecar_path, args.field),
        args.mask,
        args.noise,
        *(args.magnitude or ()),
        *(args.imaginary or ()),
        args.calibration,
        args.coil_noise,
        args.reference,
        args.params,
        args.labels,
    )
    for made in paths(target, stages=args.save_stages, figure=not args.no_figure, report=args.report):
        if any(name and Path(name).exists() and made.exists() and made.samefile(name) for name in inputs):
            raise UserError(f"-o must not write over an input, got {made}: choose another name")
    # found out before the work, not after it
    with contextlib.suppress(_Tried), write_aside(target):
        raise _Tried
    return target


def positive(text: str) -> float:
    """Read a number above zero, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above zero, got {text}")
    return value


class _Tried(Exception):
    """Leaves `write_aside` without writing."""


def reconstruct(args: argparse.Namespace) -> Result:
    """Go through the stages that the input needs.

    Raises:
      UserError: if the input or an option does not fit.
    """
    stages = choose_stages(args)
    return to_map(args, stages, *to_local_field(args, stages))


def to_map(args: argparse.Namespace, stages: Mapping[str, Stage], scan: Scan, local: FieldMap) -> Result:
    """Invert a scan's local field and reference the map.

    Args:
      args: those of `infer`; `quiet` and `reference` count.
      stages: the methods in their slots.
      scan: as it was read.
      local: its local field.

    Raises:
      UserError: if the reference region does not fit.
    """
    invert = stages["inversion"]
    # the scan's own were said when it was read
    described = invert.describe(local)
    if not args.quiet:
        for note in described:
            print(f"note: {note}")
    region = _region(args, scan, local)
    labels = on_grid(load_volume(args.labels), scan.volume, "labels") if args.labels else None
    with iterations(invert.run, invert.options, quiet=args.quiet) as reporting:
        how = {"region": region, "affine": scan.volume.affine, **invert.options, **reporting}
        solution, mapped = local_field_to_chi(local, invert.run, **how)
    found = []
    if solution.local is not None:
        found = [_found(local, solution.local)]
        stages, local = with_residue_removed(stages), solution.local
    # the map as the inversion gave it: what is taken for zero changes nothing of it
    doubts = map_warnings(
        local,
        solution.chi,
        total=scan.field_map if "background" in stages else None,
        labels=labels,
        one_step=taken(invert.run) == "totalfield",
    )
    unlikely = (*_contradictions(args, scan), *scan.unlikely, *found, *doubts)
    return Result(scan, stages, local, solution, mapped, (*scan.notes, *described), labels, unlikely)


def _contradictions(args: argparse.Namespace, scan: Scan) -> list[str]:
    """Say where --params contradict the file's header; k-space has none."""
    if not args.params or args.input == "kspace" or args.b0_dir:
        return []
    return contradictions(scan.volume, load_parameters(args.params))


def _found(given: FieldMap, inverted: FieldMap) -> str:
    """Say what was taken out of a local field."""
    mask = np.asarray(given.mask)
    part = float(np.asarray(given.field - inverted.field)[mask].std() / np.asarray(inverted.field)[mask].std())
    return (
        f"background field was left in the local field, {part:.0%} of the tissue's own, and has been taken out by tfi "
        "(--set residue=false keeps it): look at B0's direction and the voxel size too, which if wrong look alike"
    )


def to_local_field(args: argparse.Namespace, stages: Mapping[str, Stage]) -> tuple[Scan, FieldMap]:
    """Read the input and go through the stages that stand before the inversion.

    Returns:
      The scan as it was read (its field total, where the input was), and its local field.
    """
    if args.input == "kspace":
        scan = scan_of_kspace(args, stages)
    else:
        scan = read_echoes(args, stages) if args.input == "phase" else read_scan(args)
    if not args.quiet:
        _announce(scan, stages)
    return scan, local_field(stages, scan, quiet=args.quiet)


def local_field(stages: Mapping[str, Stage], scan: Scan, *, quiet: bool = True) -> FieldMap:
    """Remove a scan's background field, if there is a stage for it: one-step methods take the total field as it is."""
    if "background" not in stages:
        return scan.field_map
    remove = stages["background"]
    with iterations(remove.run, remove.options, quiet=quiet, stage="background") as reporting:
        return in_world_axes(remove.run, scan.field_map, scan.volume.affine, **remove.options, **reporting)


def _region(args: argparse.Namespace, scan: Scan, local: FieldMap) -> np.ndarray | Literal["mean"] | None:
    if args.reference == "mean":
        return "mean"
    if args.reference == "none":
        return None
    region = on_grid(load_volume(args.reference), scan.volume, "reference") != 0
    if not (region & np.asarray(local.mask)).any():
        raise UserError(f"{args.reference} must share voxels with the mask, got none")
    return region


def _announce(scan: Scan, stages: Mapping[str, Stage]) -> None:
    grid = scan.field_map.geometry
    size = " x ".join(f"{float(d):.3g}" for d in grid.voxel_size)
    direction = ", ".join(f"{float(b):+.3f}" for b in grid.b0_dir)
    chain = ", ".join(stage.name for stage in stages.values())
    print(
        f"{chain}: {' x '.join(map(str, grid.shape))} voxels of {size} mm, B0 along ({direction}) from {scan.b0_source}"
    )
    for note in scan.notes:
        print(f"note: {note}")
