"""Turn a local field map into a susceptibility map [ppm].

  python infer.py field.nii                         total variation, weighted by the noise
  python infer.py field.nii --method tkd --set threshold=0.2
  python infer.py field.nii --workdir W             the network that train.py left in W

The map goes to field_Chimap.nii.gz with the field's own affine; beside it a JSON sidecar and a picture of three planes.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.cli import methods
from qsmjax.cli.errors import UserError
from qsmjax.cli.progress import iterations
from qsmjax.cli.scan import Scan, load_region, read_scan
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.inversion import METHODS
from qsmjax.inversion.solution import Solution
from qsmjax.io.aside import write_aside
from qsmjax.io.nifti import SUFFIXES, file_hash, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.pipeline import Referenced, local_field_to_chi

DEFAULT_METHOD = "tv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infer`."""
    add = parser.add_argument
    add("field", nargs="?", metavar="FIELD", help="local field, .nii or .nii.gz")
    add("-o", "--output", metavar="OUT", help="file (or folder) of the map; default: FIELD's name with _Chimap.nii.gz")
    add("--mask", help="not zero inside the head; default: where FIELD is not zero")
    add("--params", metavar="JSON", help='{"TE": [s], "B0": T, "B0_dir": [x, y, z], "voxel_size": [mm]}, each optional')
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--method", metavar="NAME", help=f"see --list-methods; default: {DEFAULT_METHOD}")
    choice.add_argument("--workdir", help="use the network trained there")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the method; repeatable")
    add("--units", choices=("ppm", "hz", "rad"), default="ppm", help="of FIELD and the noise map; default: ppm")
    add("--b0", type=positive, metavar="T", help="field strength [tesla]")
    add("--te", type=positive, metavar="S", help="echo time [seconds]")
    add("--b0-dir", type=float, nargs=3, metavar=("X", "Y", "Z"), help="direction of B0 in voxel axes; default: affine")
    add("--noise", metavar="STD", help="standard deviation of the field's noise, in the same units")
    add("--magnitude", metavar="MAG", help="magnitude image, for the weights")
    add(
        "--reference", default="mean", metavar="mean|none|MASK", help="what counts as zero; default: mean over the mask"
    )
    add("--nan-to-mask", action="store_true", help="take voxels of NaN or infinity out of the mask")
    add("--no-figure", action="store_true", help="draw no picture")
    add("--quiet", action="store_true", help="say nothing but errors")
    add("--list-methods", action="store_true", help="list the methods with their options and references")


def run(args: argparse.Namespace) -> int:
    """Run `infer`.

    Returns:
      The exit status.
    """
    if args.list_methods:
        methods.print_methods(METHODS)
        return 0
    if args.field is None:
        raise UserError("FIELD must be given: the local field to invert, a .nii or .nii.gz file")
    started = time.perf_counter()
    target = output_path(args)
    name, invert, options, describe = _method(args)
    scan = read_scan(args)
    scan = dataclasses.replace(scan, notes=(*scan.notes, *describe(scan.field_map)))
    region = _region(args, scan)
    if not args.quiet:
        _announce(name, scan)
    with iterations(invert, options, quiet=args.quiet) as reporting:
        solution, mapped = local_field_to_chi(scan.field_map, invert, region=region, **options, **reporting)
    chi = np.asarray(mapped.chi)
    warnings = _warnings(solution)
    sidecar = _sidecar(args, scan, name, invert, options, solution, mapped, warnings, time.perf_counter() - started)
    _write(target, chi, solution, scan, sidecar, draw=not args.no_figure)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not args.quiet:
        print(f"chi in {target} ({time.perf_counter() - started:.1f} s)")
    return 0


def output_path(args: argparse.Namespace) -> Path:
    """Return where the map goes, after checking that it can be written there and is no input.

    Raises:
      UserError: if it can't, or is one.
    """
    field = Path(args.field)
    default = field.name.removesuffix(".gz").removesuffix(".nii") + "_Chimap.nii.gz"
    target = field.with_name(default) if args.output is None else Path(args.output)
    if target.is_dir():
        target = target / default
    if not target.name.endswith(SUFFIXES):
        raise UserError(f"-o must end in .nii or .nii.gz, got {target}")
    if not target.parent.is_dir():
        raise UserError(f"-o must lie in a folder that exists, got {target.parent}: make it first")
    inputs = (args.field, args.mask, args.noise, args.magnitude, args.reference)
    if any(name and Path(name).exists() and target.exists() and target.samefile(name) for name in inputs):
        raise UserError(f"-o must not be an input, got {target}: choose another name")
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


def _method(args: argparse.Namespace) -> tuple[str, Callable, dict[str, Any], Callable]:
    if args.workdir:
        from qsmjax.inference.network import load_network  # networks' libraries are not paid for by the other methods

        network = load_network(args.workdir)
        name, invert, describe = network.name, network.invert, network.describe
    else:
        name = args.method or DEFAULT_METHOD
        invert, describe = methods.choose(name, METHODS), lambda _: []
    return name, invert, parse_settings(args.set, options_of(invert), name), describe


def _region(args: argparse.Namespace, scan: Scan) -> np.ndarray | None:
    if args.reference == "mean":
        return None
    if args.reference == "none":
        return np.zeros(scan.field_map.geometry.shape, bool)
    region = load_region(args.reference, scan.volume)
    if not (region & np.asarray(scan.field_map.mask)).any():
        raise UserError(f"{args.reference} must share voxels with the mask, got none")
    return region


def _announce(name: str, scan: Scan) -> None:
    grid = scan.field_map.geometry
    size = " x ".join(f"{float(d):.3g}" for d in grid.voxel_size)
    direction = ", ".join(f"{float(b):+.3f}" for b in grid.b0_dir)
    print(
        f"{name}: {' x '.join(map(str, grid.shape))} voxels of {size} mm, B0 along ({direction}) from {scan.b0_source}"
    )
    for note in scan.notes:
        print(f"note: {note}")


def _warnings(solution: Solution) -> list[str]:
    if bool(np.all(solution.converged)):
        return []
    return [
        f"not converged: the change was still {float(np.max(solution.residual)):.2g} after "
        f"{int(np.max(solution.iterations))} iterations: raise max_iterations with --set"
    ]


def _sidecar(args, scan, name, invert, options, solution: Solution, mapped: Referenced, warnings, seconds) -> dict:
    grid = scan.field_map.geometry
    chosen = {key: options.get(key, option.default) for key, option in options_of(invert).items()}
    if solution.weight is not None:
        chosen["weight"] = float(solution.weight)
    return {
        "Units": "ppm",
        "Method": name,
        "MethodDescription": methods.summary(invert),
        "Parameters": chosen,
        "References": methods.dois(invert),
        "Reference": args.reference,
        "ReferenceOffset": float(mapped.offset),
        "B0Direction": [float(b) for b in grid.b0_dir],
        "B0DirectionSource": scan.b0_source,
        "MagneticFieldStrength": scan.b0,
        "EchoTime": scan.te,
        "VoxelSize": [float(d) for d in grid.voxel_size],
        "FieldUnits": args.units,
        "MaskVoxels": int(np.asarray(scan.field_map.mask).sum()),
        "Iterations": int(np.max(solution.iterations)),
        "Residual": float(np.max(solution.residual)),
        "Converged": bool(np.all(solution.converged)),
        "Notes": list(scan.notes),
        "Warnings": warnings,
        "Input": Path(args.field).name,
        "InputSHA256": file_hash(args.field),
        "Seconds": round(seconds, 3),
        "GeneratedBy": {
            "Name": "qsmjax",
            "Version": importlib.metadata.version("qsmjax"),
            "jax": importlib.metadata.version("jax"),
            "Python": platform.python_version(),
        },
    }


def _write(target: Path, chi: np.ndarray, solution: Solution, scan: Scan, sidecar: dict, *, draw: bool) -> None:
    stem = target.name.removesuffix(".gz").removesuffix(".nii")
    if draw:
        from qsmjax.report.figures import three_plane  # matplotlib is paid for only where it draws

        mask = np.asarray(scan.field_map.mask)
        three_plane(chi, target.with_name(f"{stem}.png"), affine=scan.volume.affine, mask=mask, title=stem)
    if solution.std is not None:
        name = stem.removesuffix("_Chimap") + "_desc-std_Chimap"
        save_volume(target.with_name(f"{name}.nii.gz"), np.asarray(solution.std), scan.volume)
    save_json(target.with_name(f"{stem}.json"), sidecar)
    save_volume(target, chi, scan.volume)
