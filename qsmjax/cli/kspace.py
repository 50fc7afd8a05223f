"""From multi-coil k-space to complex images on a grid, and to the total field."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Complex

from qsmjax.cli.echoes import scan_of_echoes
from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, grid_of, read_mask
from qsmjax.cli.stages import Stage
from qsmjax.cli.told import check_units
from qsmjax.io.kspace import load_calibration, load_coil_noise, load_kspace
from qsmjax.io.nifti import NiftiVolume, load_volume, new_volume
from qsmjax.io.sidecar import ScanParameters, load_parameters
from qsmjax.recon.sampling import find_sampling

BESIDE = {"--calibration": "calibration.npy", "--coil-noise": "coilnoise.npy"}
"""What lies beside the k-space of a folder, by the flag of `infer` that takes it."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Reconstructed echoes.

    Attributes:
      signal: complex.
      volume: a volume of their grid, whose geometry the output takes.
      parameters: what params.json says, flags before it; echo times and field strength are there.
      mask: the one given; None where none was.
      notes: how k-space was sampled, calibrated and whitened, in lines.
    """

    signal: Complex[np.ndarray, "echo x y z"]
    volume: NiftiVolume
    parameters: ScanParameters
    mask: np.ndarray | None
    notes: list[str]


def read_images(args: argparse.Namespace, recon: Stage) -> Images:
    """Load k-space as the arguments of `infer --input kspace` say, and make its images.

    The grid is that of params' affine, else the mask's, else params' voxel size, its orientation then unknown.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers and the reconstruction, alike.
    """
    if len(args.field) != 1:
        raise UserError(f"--input kspace takes one file with all echoes on its last axis, got {len(args.field)}")
    if args.phase_units != "auto":
        raise UserError(f"--phase-units must go with phase, got {args.phase_units} with --input kspace: leave it out")
    if args.magnitude:
        raise UserError("--magnitude must not be given with --input kspace, which makes its own: leave it out")
    kspace = load_kspace(args.field[0])
    said = load_parameters(args.params) if args.params else ScanParameters()
    said = dataclasses.replace(said, te=tuple(args.te) if args.te else said.te, b0=args.b0 or said.b0)
    if said.te is None or len(said.te) != len(kspace):
        raise UserError(
            f"{args.field[0]} must come with one echo time for each of {len(kspace)} echoes, got {len(said.te or ())}: "
            "give TE in params.json (or --te)"
        )
    if said.b0 is None:
        raise UserError(
            f"{args.field[0]} must come with a field strength, got none: give B0 [T] in params.json (or --b0)"
        )
    check_units(said.te, said.b0, "--b0" if args.b0 else "params")
    shape = kspace.shape[2:]
    given = load_volume(args.mask) if args.mask else None
    volume = _grid_volume(np.zeros(shape, np.float32), said, given, args.field[0])
    mask, told = (None, []) if given is None else read_mask(given, volume)
    apart = {"calibration": load_calibration(args.calibration)} if args.calibration else {}
    apart |= {"noise": load_coil_noise(args.coil_noise)} if args.coil_noise else {}
    for name, path, axes in (
        ("calibration", args.calibration, "x y z coil"),
        ("noise", args.coil_noise, "sample coil"),
    ):
        if name in apart and len(apart[name]) != kspace.shape[1]:
            raise UserError(
                f"{path} must have the axes {axes} and k-space's {kspace.shape[1]} coils, got {len(apart[name])} on "
                "its last: move the axes, or give the scan's own"
            )
    images = np.asarray(recon.run(kspace, **apart, **recon.options))
    return Images(images, volume, said, mask, [*told, *_notes(kspace, **apart)])


def files_beside(folder: Path) -> dict[str, Path]:
    """Return the files that lie beside a folder's k-space, by the flag of `infer` that takes them."""
    return {flag: folder / name for flag, name in BESIDE.items() if (folder / name).is_file()}


def _notes(kspace: np.ndarray, calibration: np.ndarray | None = None, noise: np.ndarray | None = None) -> list[str]:
    """Say how k-space that could be reconstructed was sampled, calibrated and whitened."""
    found = find_sampling(kspace[0], full_centre=calibration is None)
    (y0, y1), (z0, z1) = found.calibration
    notes = [
        f"k-space of {kspace.shape[1]} coils, acceleration {found.acceleration[0]} x {found.acceleration[1]}, full in "
        f"{y1 - y0} x {z1 - z0} of its centre"
    ]
    if calibration is not None:
        size = " x ".join(map(str, calibration.shape[1:]))
        found_by_it = (
            "the sensitivities are" if found.acceleration == (1, 1) else "GRAPPA's weights and sensitivities are"
        )
        notes.append(f"{found_by_it} from a calibration scan measured apart, of {size}")
    if noise is not None:
        notes.append(f"coils whitened by {noise.shape[1]} samples of their noise")
    return notes


def _grid_volume(data: np.ndarray, said: ScanParameters, given: NiftiVolume | None, path: str) -> NiftiVolume:
    if said.affine is not None:
        return new_volume(data, np.asarray(said.affine), path)
    if given is not None and given.oriented:
        return new_volume(data, given.affine, path)
    size = said.voxel_size
    if size is None and given is not None:
        size = tuple(np.linalg.norm(given.affine[:3, :3], axis=0))
    if size is None:
        raise UserError(f"{path} must come with a grid, got none: params.json or a mask must give affine or voxel_size")
    volume = new_volume(data, np.diag([*size, 1.0]), path)
    # no header may claim an orientation that nobody told
    volume.header.set_sform(None)
    volume.header.set_qform(None)
    return dataclasses.replace(volume, oriented=False)


def scan_of_kspace(args: argparse.Namespace, stages: Mapping[str, Stage]) -> Scan:
    """Make the total field of k-space: the "recon" stage, "mask" where none is given, then the "field" stage.

    Raises:
      UserError: if something does not fit.
      ValueError: from the readers and the stages, alike.
    """
    images = read_images(args, stages["recon"])
    grid, b0_source, notes = grid_of(args, images.volume, images.parameters)
    notes += images.notes
    mask = images.mask
    if mask is None:
        mask = np.asarray(stages["mask"].run(np.abs(images.signal), **stages["mask"].options))
        notes.append("mask found from the magnitude: it holds all that gives signal; give a brain mask with --mask")
    te, b0 = images.parameters.te or (), float(images.parameters.b0 or 0)
    return scan_of_echoes(
        stages["field"], images.signal, te, b0, mask, grid, volume=images.volume, b0_source=b0_source, notes=notes
    )
