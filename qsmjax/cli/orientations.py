"""One orientation of a head: its folder, through the stages to the local field, and where it lies on the reference."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qsmjax.cli import infer
from qsmjax.cli.errors import UserError
from qsmjax.cli.kspace import files_beside
from qsmjax.cli.outputs import beside_inputs
from qsmjax.cli.scan import Scan
from qsmjax.cli.stages import BEFORE, Stage, choose_stages
from qsmjax.io.nifti import is_volume, number_order
from qsmjax.physics.field_map import FieldMap
from qsmjax.registration.flirt import from_flirt, read_flirt
from qsmjax.registration.rigid import register_magnitudes

MATRIX = "to_reference.mat"
REGISTER = Stage("register_magnitudes", register_magnitudes, {})
"""What registers an orientation that comes without a matrix."""
REAL, IMAGINARY = "real", "imag"
"""What the names of files of these parts begin with."""


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
      beside: what was given with these files, with hashes (`cli.outputs.beside_inputs`).
    """

    name: str
    scan: Scan
    local: FieldMap
    kind: str
    files: tuple[Path, ...]
    stages: Mapping[str, Stage]
    transform: np.ndarray
    correlation: float | None
    beside: Mapping[str, list[dict[str, str]]]


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
    found = sorted(path for path in folder.iterdir() if path.is_dir() and scan_files(path))
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


def scan_files(folder: Path) -> tuple[str, list[Path]] | None:
    """Return what kind of scan a folder holds, and its files; None if it holds none."""
    for kind in BEFORE:
        files = named_files(folder, kind)
        if files:
            return kind, files
    parts = [named_files(folder, REAL), named_files(folder, IMAGINARY)]
    return ("phase", parts[0]) if all(parts) else None


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
    registration: Stage | None = None,
    quiet: bool = True,
) -> Orientation:
    """Read one orientation, go through the stages to its local field, and align it with the reference.

    Args:
      folder: its files.
      first: the reference; None if this is it.
      settings: STAGE.KEY=VALUE of the stages before the inversion.
      preset: their methods.
      words: further ones of `infer`.
      registration: registers magnitudes where no matrix is given; None to go by the affines.
      quiet: print nothing.

    Raises:
      UserError: if something is missing or does not fit; the orientation is named.
    """
    kind, files = scan_files(folder) or ("", [])
    parts = named_files(folder, IMAGINARY) if files and files[0].name.startswith(REAL) else []
    asked = _arguments(folder, kind, files, parts, settings, ["--preset", preset, *words])
    try:
        stages = choose_stages(asked)
        scan, local = infer.to_local_field(asked, stages)
    except ValueError as error:
        raise UserError(f"orientation {folder.name}: {error}") from error
    transform, correlation = _transform(folder, scan, first, registration)
    if not quiet:
        aligned = "" if correlation is None else f", registered with correlation {correlation:.3f}"
        print(f"{folder.name}: {kind}, {int(local.mask.sum())} voxels{aligned}")
    before = {slot: stage for slot, stage in stages.items() if slot in BEFORE[kind]}
    made = (scan, local, kind, (*files, *parts), before, transform, correlation)
    return Orientation(folder.name, *made, beside_inputs(asked))


def _arguments(
    folder: Path,
    kind: str,
    files: Sequence[Path],
    parts: Sequence[Path],
    settings: Sequence[str],
    words: Sequence[str],
) -> argparse.Namespace:
    """Say it in the words of `infer`, with what lies beside a folder's files."""
    words = [*map(str, files), "--input", kind, "--quiet", *words]
    words += ["--imaginary", *map(str, parts)] if parts else []
    flags = {"phase": ("mask",) if parts else ("mask", "magnitude"), "kspace": ("mask",)}
    for flag in flags.get(kind, ("mask", "magnitude", "noise")):
        found = named_files(folder, flag)
        if flag != "magnitude" and len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UserError(f"orientation {folder.name} must have one {flag} file, got {names}: move the others away")
        words += [f"--{flag}", *(str(path) for path in found)] if found else []
    # what finds a mask is for the orientations that have none
    needed = [slot for slot in BEFORE[kind] if slot != "mask" or "--mask" not in words]
    beside = files_beside(folder) if kind == "kspace" else {}
    words += [word for flag, path in beside.items() for word in (flag, str(path))]
    if (folder / "params.json").is_file():
        words += ["--params", str(folder / "params.json")]
    words += [word for pair in settings if pair.partition(".")[0] in needed for word in ("--set", pair)]
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    return parser.parse_args(words)


def _transform(
    folder: Path, scan: Scan, first: Orientation | None, registration: Stage | None
) -> tuple[np.ndarray, float | None]:
    if first is None:
        return np.eye(4), None
    fixed, moving = first.scan, scan
    matrix = folder / MATRIX
    if matrix.is_file():
        shapes = moving.volume.shape[:3], fixed.volume.shape[:3]
        return from_flirt(read_flirt(matrix), moving.volume.affine, shapes[0], fixed.volume.affine, shapes[1]), None
    if registration is None:
        return np.eye(4), None
    theirs, ours = moving.field_map.magnitude, fixed.field_map.magnitude
    if theirs is None or ours is None:
        raise UserError(
            f"orientation {folder.name} must have a magnitude to be registered by, got none here or in {first.name}: "
            f"add magnitude.nii.gz, or {MATRIX}, or say --no-register"
        )
    try:
        found = registration.run(theirs, ours, moving.volume.affine, fixed.volume.affine, **registration.options)
    except ValueError as error:
        raise UserError(f"orientation {folder.name}: {error}, as {MATRIX}") from error
    return found.transform, found.correlation
