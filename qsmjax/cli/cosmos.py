"""Combine several orientations of one head into one susceptibility map (COSMOS).

  qsmjax cosmos DIR -o OUT

DIR has one folder an orientation, each with a field or phase, and what is known of it:

  localfield.nii.gz | totalfield.nii.gz | phase*.nii.gz | real*.nii.gz with imag*.nii.gz | kspace.npy
                                                              the scan, [ppm] if a field
  mask.nii.gz  magnitude*.nii.gz  noise.nii.gz  params.json   each optional, as for `qsmjax infer`
  to_reference.mat                                            optional: FLIRT's matrix, else magnitudes are registered

OUT gets the map in the reference orientation, cosmos_Chimap.nii.gz, with its sidecar and picture, and in OUT/labels for
each orientation the map turned back to it, with its mask and local field: what `qsmjax train --data OUT/labels` takes.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np

from qsmjax.cli import infer
from qsmjax.cli.errors import UserError
from qsmjax.cli.outputs import described_stage, software
from qsmjax.cli.progress import iterations
from qsmjax.cli.scan import Scan
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.stages import INPUTS, PRESETS, Stage, choose_stages
from qsmjax.inversion import cosmos
from qsmjax.inversion.solution import Solution
from qsmjax.io.nifti import file_hash, is_volume, number_order, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.phase.scaling import PhaseUnits
from qsmjax.physics.field_map import FieldMap
from qsmjax.pipeline import reference
from qsmjax.registration.field import bring_field
from qsmjax.registration.flirt import from_flirt, read_flirt, to_flirt, write_flirt
from qsmjax.registration.resample import resample_mask, resample_within
from qsmjax.registration.rigid import even_out, register_rigid
from qsmjax.report.figures import three_plane
from qsmjax.report.paragraph import methods_paragraph

AMPLIFIES = 10.0
"""Condition number of the orientations above which COSMOS amplifies noise: 5 where two turns of 25 degrees join the
upright head, 9 where they are of 15, and hundreds for two orientations alone."""
DOUBTFUL = 0.9
"""Correlation below which a registration is: 0.96 and more where heads of a signal-to-noise ratio of 5 came back to a
degree, 0.1 to 0.3 of what is no head, and 0.8 of a piece of one that came back wrong."""
BEFORE = ("recon", "field", "background")
"""The stages before COSMOS: k-space goes through all, a local field through none."""
MATRIX = "to_reference.mat"
REAL, IMAGINARY = "real", "imag"
"""What the names of files of these parts begin with."""
LABELS = ("localfield.nii.gz", "mask.nii.gz", "chi.nii.gz", MATRIX)
"""What is saved of each orientation in OUT/labels, after its name."""


@dataclasses.dataclass(frozen=True)
class Orientation:
    """One orientation of the head.

    Attributes:
      name: of its folder.
      scan: its input.
      local: its local field, on its own grid.
      kind: what its files are: "localfield", "totalfield", "phase" or "kspace".
      files: these.
      stages: what made the local field of them, in their slots.
      transform: 4x4, the reference's world to its own [mm].
      correlation: that the registration reached; None where it was given or not needed.
    """

    name: str
    scan: Scan
    local: FieldMap
    kind: str
    files: tuple[Path, ...]
    stages: Mapping[str, Stage]
    transform: np.ndarray
    correlation: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cosmos`."""
    add = parser.add_argument
    add("folder", metavar="DIR", help="one folder an orientation")
    add("-o", "--output", metavar="OUT", required=True, help="folder of the results; made if it is not there")
    add("--orientation", metavar="NAME", help="folder of the reference orientation; default: the first by name")
    add("--preset", choices=PRESETS, default="default", help="methods of the stages before COSMOS")
    add("--set", action="append", default=[], metavar="[STAGE.]KEY=VALUE", help="an option of COSMOS or of a stage")
    add("--phase-units", choices=get_args(PhaseUnits), default="auto", help="of stored phase; default: by rule")
    add("--nan-to-mask", action="store_true", help="take voxels of NaN or infinity out of the masks")
    add("--no-register", action="store_true", help="the orientations share one world already: go by their affines")
    add("--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run `cosmos`.

    Returns:
      The exit status.
    """
    folders = orientation_folders(Path(args.folder), args.orientation)
    own = _own_settings(args.set, folders)
    options = parse_settings(own, options_of(cosmos), "cosmos")
    output = Path(args.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"-o must be a folder, got a file of that name: {output}")
    output.mkdir(parents=True, exist_ok=True)
    words = ["--phase-units", args.phase_units, *(["--nan-to-mask"] if args.nan_to_mask else [])]
    how = {"settings": args.set, "preset": args.preset, "words": words}
    how |= {"register": not args.no_register, "quiet": args.quiet}
    first = read_orientation(folders[0], None, **how)
    orientations = [first, *(read_orientation(folder, first, **how) for folder in folders[1:])]
    on_reference = [bring_to(first, orientation) for orientation in orientations]
    with iterations(cosmos, options, quiet=args.quiet) as reporting:
        solution = cosmos(on_reference, **options, **reporting)
    support = jnp.any(jnp.stack([f.mask for f in on_reference]), axis=0)
    mapped = reference(solution.chi, support, support)
    chi = np.asarray(mapped.chi)
    warnings = _doubts(solution, orientations)
    own_stage = described_stage(Stage("cosmos", cosmos, options))
    stages = {slot: described_stage(stage) for o in reversed(orientations) for slot, stage in o.stages.items()}
    if any(o.correlation is not None for o in orientations):
        stages["registration"] = described_stage(Stage("register_rigid", register_rigid, {}))
    grid = first.local.geometry
    described = {
        "Units": "ppm",
        **own_stage,
        "Stages": stages | {"inversion": own_stage},
        "InputKind": first.kind,
        "Reference": "mean",
        "ReferenceOffset": float(mapped.offset),
        "ReferenceOrientation": first.name,
        "Orientations": [_described(o, f) for o, f in zip(orientations, on_reference)],
        "B0Direction": [float(b) for b in grid.b0_dir],
        "MagneticFieldStrength": first.scan.b0,
        "EchoTime": list(first.scan.te),
        "VoxelSize": [float(d) for d in grid.voxel_size],
        "ConditionNumber": None if solution.condition is None else float(solution.condition),
        "Iterations": int(solution.iterations),
        "Residual": float(solution.residual),
        "Converged": bool(solution.converged),
        "Warnings": warnings,
        "GeneratedBy": software(),
    }
    described["MethodsParagraph"] = methods_paragraph(described)
    three_plane(chi, output / "cosmos_Chimap.png", affine=first.scan.volume.affine, mask=support, title="cosmos")
    save_labels(output / "labels", chi, np.asarray(support), first, orientations)
    save_json(output / "cosmos_Chimap.json", described)
    save_volume(output / "cosmos_Chimap.nii.gz", chi, first.scan.volume)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not args.quiet:
        print(f"condition number {described['ConditionNumber']:.2f}; chi in {output / 'cosmos_Chimap.nii.gz'}")
    return 0


def bring_to(first: Orientation, other: Orientation) -> FieldMap:
    """Bring an orientation's local field to the reference's grid, with the direction that B0 has there."""
    if other is first:
        return first.local
    source, target = other.scan.volume.affine, first.scan.volume.affine
    return bring_field(other.local, source, first.local.geometry, target, other.transform)


def save_labels(
    folder: Path, chi: np.ndarray, support: np.ndarray, first: Orientation, orientations: list[Orientation]
) -> None:
    """Turn the map back to every orientation, and save it with the mask in which it is known, the field and the matrix.

    Labels of orientations that are no longer there go: a training would take them for this map's.
    """
    folder.mkdir(exist_ok=True)
    before, written = {path for kind in LABELS for path in folder.glob(f"*_{kind}")}, set()
    for o in orientations:
        source, target, shape = first.scan.volume.affine, o.scan.volume.affine, o.local.geometry.shape
        grids = (source, target, shape, np.linalg.inv(o.transform))
        turned, mask = chi, np.array(o.local.mask)
        if o is not first:
            turned = np.asarray(resample_within(chi, support, *grids))
            mask &= np.asarray(resample_mask(support, *grids))
        field, known, truth, matrix = (folder / f"{o.name}_{kind}" for kind in LABELS)
        save_volume(field, np.asarray(o.local.field), o.scan.volume)
        save_volume(known, mask, o.scan.volume)
        save_volume(truth, np.where(mask, turned, 0), o.scan.volume)
        write_flirt(matrix, to_flirt(o.transform, target, shape, source, chi.shape))
        written |= {field, known, truth, matrix}
    for path in before - written:
        path.unlink()


def _doubts(solution: Solution, orientations: Sequence[Orientation]) -> list[str]:
    """Say what speaks against the map."""
    found = [] if bool(solution.converged) else [f"not converged: residual {float(solution.residual):.2g}"]
    if solution.condition is not None and (condition := float(solution.condition)) > AMPLIFIES:
        found.append(
            f"the orientations amplify noise, by a condition number of {condition:.0f} (usual: under {AMPLIFIES:.0f}): "
            "turn the head further, or add one"
        )
    found += [
        f"orientation {o.name} was registered with a correlation of {o.correlation:.2f} (usual: above {DOUBTFUL}): "
        f"look whether the two lie on each other, and give its matrix in {MATRIX} if not"
        for o in orientations
        if o.correlation is not None and o.correlation < DOUBTFUL
    ]
    return found + [f"orientation {o.name}: {line}" for o in orientations for line in o.scan.unlikely]


def orientation_folders(folder: Path, reference: str | None = None, *, least: int = 2) -> list[Path]:
    """Return the folders of a head's orientations, by name, the reference first.

    Args:
      folder: holds them.
      reference: name of the reference orientation's; None for the first.
      least: how many there must be.

    Raises:
      UserError: if there are fewer, or no such reference.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} must be a folder with one folder an orientation, got none there")
    found = sorted(path for path in folder.iterdir() if path.is_dir() and _scan_files(path))
    if len(found) < least:
        number = "two folders" if least == 2 else f"{least} folder(s)"
        raise UserError(
            f"{folder} must hold at least {number} with localfield, totalfield, phase, real and imaginary, or kspace "
            f"files, got {len(found)}"
        )
    if reference is None:
        return found
    named = [path for path in found if path.name == reference]
    if not named:
        raise UserError(f"--orientation must be one of {', '.join(p.name for p in found)}, got {reference!r}")
    return named + [path for path in found if path not in named]


def _scan_files(folder: Path) -> tuple[str, list[Path]] | None:
    for kind in INPUTS:
        files = named_files(folder, kind)
        if files:
            return kind, files
    parts = [named_files(folder, REAL), named_files(folder, IMAGINARY)]
    return ("phase", parts[0]) if all(parts) else None


def _stages_before(kind: str) -> tuple[str, ...]:
    return BEFORE[3 - INPUTS.index(kind) :]


def _own_settings(pairs: Sequence[str], folders: list[Path]) -> list[str]:
    """Return the settings of COSMOS' own, after checking that some orientation goes through the others' stages."""
    kinds = {found[0] for folder in folders if (found := _scan_files(folder))}
    reached = {stage for kind in kinds for stage in _stages_before(kind)}
    named = [(pair.partition("=")[0].partition(".")[0], pair) for pair in pairs]
    for stage, pair in named:
        if stage in BEFORE and stage not in reached:
            raise UserError(
                f"--set {pair.partition('=')[0]} must be of a stage that an orientation goes through, got "
                f"{' and '.join(sorted(kinds))}: leave it out"
            )
    return [pair for stage, pair in named if stage not in BEFORE]


def named_files(folder: Path, word: str) -> list[Path]:
    """Return the files of a folder whose names begin with a word, in the order of the numbers in them."""
    wanted = (lambda path: path.suffix == ".npy") if word == "kspace" else is_volume
    return sorted(filter(wanted, folder.glob(f"{word}*")), key=number_order)


def read_orientation(
    folder: Path,
    first: Orientation | None,
    *,
    settings: Sequence[str] = (),
    preset: str = "default",
    words: Sequence[str] = (),
    register: bool = True,
    quiet: bool = True,
) -> Orientation:
    """Read one orientation, go through the stages to its local field, and align it with the reference.

    Args:
      folder: its files.
      first: the reference; None if this is it.
      settings: STAGE.KEY=VALUE of the stages before the inversion.
      preset: their methods.
      words: further ones of `infer`.
      register: whether magnitudes are registered where no matrix is given.
      quiet: print nothing.

    Raises:
      UserError: if something is missing or does not fit; the orientation is named.
    """
    kind, files = _scan_files(folder) or ("", [])
    words = [*map(str, files), "--input", kind, "--preset", preset, "--quiet", *words]
    parts = named_files(folder, IMAGINARY) if files and files[0].name.startswith(REAL) else []
    words += ["--imaginary", *map(str, parts)] if parts else []
    flags = {"phase": ("mask",) if parts else ("mask", "magnitude"), "kspace": ("mask",)}
    for flag in flags.get(kind, ("mask", "magnitude", "noise")):
        found = named_files(folder, flag)
        if flag != "magnitude" and len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"orientation {folder.name} must have one {flag} file, got {names}: move the others away")
        words += [f"--{flag}", *(str(path) for path in found)] if found else []
    if (folder / "params.json").is_file():
        words += ["--params", str(folder / "params.json")]
    needed = _stages_before(kind)
    words += [word for pair in settings if pair.partition(".")[0] in needed for word in ("--set", pair)]
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    asked = parser.parse_args(words)
    try:
        stages = choose_stages(asked)
        scan, local = infer.to_local_field(asked, stages)
    except ValueError as error:
        raise UserError(f"orientation {folder.name}: {error}") from error
    transform, correlation = _transform(folder, scan, first, register)
    if not quiet:
        aligned = "" if correlation is None else f", registered with correlation {correlation:.3f}"
        print(f"{folder.name}: {kind}, {int(local.mask.sum())} voxels{aligned}")
    before = {slot: stage for slot, stage in stages.items() if slot in BEFORE}
    return Orientation(folder.name, scan, local, kind, (*files, *parts), before, transform, correlation)


def _transform(folder: Path, scan: Scan, first: Orientation | None, register: bool) -> tuple[np.ndarray, float | None]:
    if first is None:
        return np.eye(4), None
    fixed, moving = first.scan, scan
    matrix = folder / MATRIX
    if matrix.is_file():
        shapes = moving.volume.shape[:3], fixed.volume.shape[:3]
        return from_flirt(read_flirt(matrix), moving.volume.affine, shapes[0], fixed.volume.affine, shapes[1]), None
    if not register:
        return np.eye(4), None
    theirs, ours = moving.field_map.magnitude, fixed.field_map.magnitude
    if theirs is None or ours is None:
        raise UserError(
            f"orientation {folder.name} must have a magnitude to be registered by, got none here or in {first.name}: "
            f"add magnitude.nii.gz, or {MATRIX}, or say --no-register"
        )
    theirs, ours = (even_out(m, s.field_map.geometry.voxel_size) for m, s in ((theirs, moving), (ours, fixed)))
    try:
        found = register_rigid(theirs, ours, moving.volume.affine, fixed.volume.affine)
    except ValueError as error:
        raise UserError(f"orientation {folder.name}: {error}, as {MATRIX}") from error
    return found.transform, found.correlation


def _described(orientation: Orientation, on_reference: FieldMap) -> dict[str, Any]:
    return {
        "Name": orientation.name,
        "InputKind": orientation.kind,
        "Input": [path.name for path in orientation.files],
        "InputSHA256": [file_hash(path) for path in orientation.files],
        "B0Direction": [float(b) for b in on_reference.geometry.b0_dir],
        "Transform": np.asarray(orientation.transform).tolist(),
        "Correlation": orientation.correlation,
        "Notes": list(orientation.scan.notes),
    }
