"""Combine several orientations of one head into one susceptibility map (COSMOS).

  qsmjax cosmos DIR -o OUT

DIR has one folder an orientation, each with a field or phase, and what is known of it:

  localfield.nii.gz | totalfield.nii.gz | phase*.nii.gz | real*.nii.gz with imag*.nii.gz | kspace.npy
                                                              the scan, [ppm] if a field
  mask.nii.gz  magnitude*.nii.gz  noise.nii.gz  params.json   each optional, as for `qsmjax infer`
  calibration.npy  coilnoise.npy                              optional, beside kspace.npy: measured apart
  to_reference.mat                                            optional: FLIRT's matrix, else magnitudes are registered

OUT gets the map in the reference orientation, cosmos_Chimap.nii.gz, with its sidecar and picture, and in OUT/labels for
each orientation the map turned back to it, with its mask and local field: what `qsmjax train --data OUT/labels` takes;
and what was taken from a mask that was given or found.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from qsmjax.cli.errors import UserError
from qsmjax.cli.orientations import (
    MATRIX,
    REGISTER,
    Orientation,
    named_files,
    orientation_folders,
    read_orientation,
    scan_files,
)
from qsmjax.cli.outputs import NOISE, REMOVED, TOTAL, described_stage, software
from qsmjax.cli.progress import iterations
from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.cli.stages import BEFORE, PRESETS, Stage
from qsmjax.inversion import cosmos
from qsmjax.inversion.solution import Solution
from qsmjax.io.nifti import file_hash, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.phase.scaling import PhaseUnits
from qsmjax.physics.field_map import FieldMap
from qsmjax.pipeline import reference
from qsmjax.registration.field import bring_field
from qsmjax.registration.flirt import to_flirt, write_flirt
from qsmjax.registration.resample import resample_mask, resample_within
from qsmjax.report.checks import map_warnings
from qsmjax.report.figures import three_plane
from qsmjax.report.page import MapFacts, map_page
from qsmjax.report.paragraph import methods_paragraph

AMPLIFIES = 10.0
"""Condition number of the orientations above which COSMOS amplifies noise: 5 where two turns of 25 degrees join the
upright head, 9 where they are of 15, and hundreds for two orientations alone."""
DOUBTFUL = 0.9
"""Correlation below which a registration is: 0.96 and more where heads of a signal-to-noise ratio of 5 came back to a
degree, 0.1 to 0.3 of what is no head, and 0.8 of a piece of one that came back wrong."""
REGISTRATION = "registration."
LABELS = (
    "localfield.nii.gz",
    "mask.nii.gz",
    "chi.nii.gz",
    MATRIX,
    f"{REMOVED}.nii.gz",
    f"{TOTAL}.nii.gz",
    f"{NOISE}.nii.gz",
)
"""What is saved of each orientation in OUT/labels, after its name; the last three where there is something."""


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
    add("--coils", action="store_true", help="phase and magnitude are images of single coils: see `qsmjax infer`")
    add("--save-stages", action="store_true", help="keep each orientation's total field and noise in OUT/labels")
    add("--report", action="store_true", help="write a page beside the map: figures, viewer, checks, every parameter")
    add("--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run `cosmos`.

    Returns:
      The exit status.
    """
    folders = orientation_folders(Path(args.folder), args.orientation)
    own = _own_settings(args.set, folders, coils=args.coils)
    options = parse_settings(own, options_of(cosmos), "cosmos")
    output = Path(args.output)
    if output.exists() and not output.is_dir():
        raise UserError(f"-o must be a folder, got a file of that name: {output}")
    output.mkdir(parents=True, exist_ok=True)
    words = ["--phase-units", args.phase_units]
    words += [flag for flag, asked in (("--nan-to-mask", args.nan_to_mask), ("--coils", args.coils)) if asked]
    register = _registration(args, folders)
    how = {"settings": args.set, "preset": args.preset, "words": words, "registration": register, "quiet": args.quiet}
    first = read_orientation(folders[0], None, **how)
    orientations = [first, *(read_orientation(folder, first, **how) for folder in folders[1:])]
    on_reference = [bring_to(first, orientation) for orientation in orientations]
    with iterations(cosmos, options, quiet=args.quiet) as reporting:
        solution = cosmos(on_reference, **options, **reporting)
    support = jnp.any(jnp.stack([f.mask for f in on_reference]), axis=0)
    mapped = reference(solution.chi, support, support)
    chi = np.asarray(mapped.chi)
    own_stage = Stage("cosmos", cosmos, options)
    described = _describe(own_stage, register, solution, mapped.offset, orientations, on_reference)
    three_plane(chi, output / "cosmos_Chimap.png", affine=first.scan.volume.affine, mask=support, title="cosmos")
    save_labels(output / "labels", chi, np.asarray(support), first, orientations, stages=args.save_stages)
    page = output / "cosmos_Chimap.html"
    if args.report:
        shown = (first.local, chi, solution.chi, first.scan.volume.affine, described)
        facts = MapFacts(*shown, total=_total(first))
        map_page(page, facts, title="cosmos_Chimap.nii.gz")
    else:
        # an earlier map's
        page.unlink(missing_ok=True)
    save_json(output / "cosmos_Chimap.json", described)
    save_volume(output / "cosmos_Chimap.nii.gz", chi, first.scan.volume)
    for line in described["Warnings"]:
        print(f"warning: {line}", file=sys.stderr)
    if not args.quiet:
        print(f"condition number {described['ConditionNumber']:.2f}; chi in {output / 'cosmos_Chimap.nii.gz'}")
    return 0


def _describe(
    own: Stage,
    register: Stage | None,
    solution: Solution,
    offset: ArrayLike,
    orientations: list[Orientation],
    fields: list[FieldMap],
) -> dict[str, Any]:
    """Describe the map: its sidecar."""
    first, own_stage = orientations[0], described_stage(own)
    slots = dict.fromkeys(slot for before in reversed(BEFORE.values()) for slot in before)
    stages = {}
    for slot in slots:
        through = [o for o in orientations if slot in o.stages]
        if through:
            stages[slot] = described_stage(through[0].stages[slot])
        if 0 < len(through) < len(orientations):
            stages[slot]["Orientations"] = [o.name for o in through]
    if register is not None and any(o.correlation is not None for o in orientations):
        stages["registration"] = described_stage(register)
    grid = first.local.geometry
    described: dict[str, Any] = {
        "Units": "ppm",
        **own_stage,
        "Stages": stages | {"inversion": own_stage},
        "InputKind": first.kind,
        "Reference": "mean",
        "ReferenceOffset": float(np.asarray(offset)),
        "ReferenceOrientation": first.name,
        "Orientations": [_described(o, f) for o, f in zip(orientations, fields)],
        "B0Direction": [float(b) for b in grid.b0_dir],
        "MagneticFieldStrength": first.scan.b0,
        "EchoTime": list(first.scan.te),
        "VoxelSize": [float(d) for d in grid.voxel_size],
        "ConditionNumber": None if solution.condition is None else float(solution.condition),
        "Iterations": int(solution.iterations),
        "Residual": float(solution.residual),
        "Converged": bool(solution.converged),
        "Warnings": _doubts(solution, orientations),
        "GeneratedBy": software(),
    }
    return described | {"MethodsParagraph": methods_paragraph(described)}


def bring_to(first: Orientation, other: Orientation) -> FieldMap:
    """Bring an orientation's local field to the reference's grid, with the direction that B0 has there."""
    if other is first:
        return first.local
    source, target = other.scan.volume.affine, first.scan.volume.affine
    return bring_field(other.local, source, first.local.geometry, target, other.transform)


def save_labels(
    folder: Path,
    chi: np.ndarray,
    support: np.ndarray,
    first: Orientation,
    orientations: list[Orientation],
    *,
    stages: bool,
) -> None:
    """Turn the map back to every orientation, and save it with the mask in which it is known, the field and the matrix.

    With `stages` total fields and their noise are saved too.

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
        field, known, truth, matrix, removed, total, noise = (folder / f"{o.name}_{kind}" for kind in LABELS)
        volumes = {field: o.local.field, known: mask, truth: np.where(mask, turned, 0)}
        if (taken := o.scan.whole & ~np.asarray(o.local.mask)).any():
            volumes[removed] = taken
        if stages and (whole := _total(o)) is not None:
            volumes |= {total: whole.field}
        if stages and o.scan.field_map.noise is not None:
            volumes |= {noise: o.scan.field_map.noise}
        for path, volume in volumes.items():
            save_volume(path, np.asarray(volume), o.scan.volume)
        write_flirt(matrix, to_flirt(o.transform, target, shape, source, chi.shape))
        written |= {*volumes, matrix}
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
    found += [f"orientation {o.name}: {line}" for o in orientations for line in o.scan.unlikely]
    first = orientations[0]
    return found + [
        f"orientation {first.name}: {line}" for line in map_warnings(first.local, solution.chi, total=_total(first))
    ]


def _total(orientation: Orientation) -> FieldMap | None:
    return orientation.scan.field_map if "background" in orientation.stages else None


def _registration(args: argparse.Namespace, folders: list[Path]) -> Stage | None:
    """Return what registers orientations that come without a matrix; None if all are known, or go by their affines."""
    given = [pair.removeprefix(REGISTRATION) for pair in args.set if pair.startswith(REGISTRATION)]
    options = parse_settings(given, options_of(REGISTER.run), "registration")
    if not args.no_register and any(not (folder / MATRIX).is_file() for folder in folders[1:]):
        return dataclasses.replace(REGISTER, options=options)
    if given:
        why = "--no-register" if args.no_register else f"{MATRIX} for each"
        raise UserError(
            f"--set {REGISTRATION}{given[0]} must go with orientations to register, got {why}: leave it out"
        )
    return None


def _own_settings(pairs: Sequence[str], folders: list[Path], *, coils: bool) -> list[str]:
    """Return the settings of COSMOS' own, after checking that some orientation goes through the others' stages."""
    kinds = {found[0] for folder in folders if (found := scan_files(folder))}
    if coils and "phase" not in kinds:
        raise UserError(f"--coils must go with orientations of phase, got {' and '.join(sorted(kinds))}: leave it out")
    earlier = {stage for stages in BEFORE.values() for stage in stages}
    reached = {stage for kind in kinds for stage in BEFORE[kind]}
    absent = set() if coils else {"coils"}
    absent |= {"mask"} if all(named_files(folder, "mask") for folder in folders) else set()
    named = [(pair.partition("=")[0].partition(".")[0], pair) for pair in pairs if not pair.startswith(REGISTRATION)]
    for stage, pair in named:
        if stage in earlier - (reached - absent):
            cure = {"coils": "leave it out, or say --coils", "mask": "leave it out, or a mask"}.get(
                stage, "leave it out"
            )
            raise UserError(
                f"--set {pair.partition('=')[0]} must be of a stage that an orientation goes through, got "
                f"{' and '.join(sorted(kinds))}: {cure}"
            )
    return [pair for stage, pair in named if stage not in earlier]


def _described(orientation: Orientation, on_reference: FieldMap) -> dict[str, Any]:
    return {
        "Name": orientation.name,
        "InputKind": orientation.kind,
        "Input": [path.name for path in orientation.files],
        "InputSHA256": [file_hash(path) for path in orientation.files],
        "B0Direction": [float(b) for b in on_reference.geometry.b0_dir],
        "Transform": np.asarray(orientation.transform).tolist(),
        "Correlation": orientation.correlation,
        "InputsBeside": orientation.beside,
        "Notes": list(orientation.scan.notes),
    }
