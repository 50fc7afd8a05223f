"""From multi-coil k-space to complex images on a grid, and to the total field."""

import argparse
import dataclasses

import numpy as np
from jaxtyping import Complex

from qsmjax.cli.echoes import scan_of_echoes
from qsmjax.cli.errors import UserError
from qsmjax.cli.scan import Scan, grid_of, read_mask
from qsmjax.cli.stages import Stage
from qsmjax.cli.told import check_units
from qsmjax.io.kspace import load_kspace
from qsmjax.io.nifti import NiftiVolume, load_volume, new_volume
from qsmjax.io.sidecar import ScanParameters, load_parameters
from qsmjax.phase.mask import magnitude_mask
from qsmjax.recon.sampling import find_sampling


@dataclasses.dataclass(frozen=True)
class Images:
    """Reconstructed echoes.

    Attributes:
      signal: complex.
      volume: a volume of their grid, whose geometry the output takes.
      parameters: what params.json says, flags before it; echo times and field strength are there.
      mask: the one given; None where none was.
      sampled: how k-space was, in words.
    """

    signal: Complex[np.ndarray, "echo x y z"]
    volume: NiftiVolume
    parameters: ScanParameters
    mask: np.ndarray | None
    sampled: str


def read_images(args: argparse.Namespace, recon: Stage) -> Images:
    """Load k-space as the arguments of `infer --input kspace` say, and make its images.

    The grid is that of params' affine, else the mask's, else params' voxel size, its orientation then unknown.

    Raises:
      UserError: if something does not fit; the line says what and how to mend it.
      ValueError: from the readers and the reconstruction, alike.
    """
    if len(args.field) != 1:
        raise UserError(f"--input kspace takes one file with all echoes on its last axis, got {len(args.field)}")
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
    mask = None if given is None else read_mask(given, volume)[0]
    images = np.asarray(recon.run(kspace, **recon.options))
    return Images(images, volume, said, mask, _sampled(kspace))


def _sampled(kspace: np.ndarray) -> str:
    """Say how k-space that could be reconstructed was sampled."""
    found = find_sampling(kspace[0])
    (y0, y1), (z0, z1) = found.calibration
    return (
        f"k-space of {kspace.shape[1]} coils, acceleration {found.acceleration[0]} x {found.acceleration[1]}, full in "
        f"{y1 - y0} x {z1 - z0} of its centre"
    )


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


def scan_of_kspace(args: argparse.Namespace, recon: Stage, field: Stage) -> Scan:
    """Make the total field of k-space: the "recon" stage, then the "field" stage.

    Raises:
      UserError: if something does not fit.
      ValueError: from the readers and the stages, alike.
    """
    images = read_images(args, recon)
    grid, b0_source, notes = grid_of(args, images.volume, images.parameters)
    notes.append(images.sampled)
    mask = images.mask
    if mask is None:
        mask = np.asarray(magnitude_mask(np.abs(images.signal)))
        notes.append("mask found from the magnitude: it holds all that gives signal; give a brain mask with --mask")
    te, b0 = images.parameters.te or (), float(images.parameters.b0 or 0)
    return scan_of_echoes(
        field, images.signal, te, b0, mask, grid, volume=images.volume, b0_source=b0_source, notes=notes
    )
