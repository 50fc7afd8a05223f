"""Reconstruct multi-coil k-space to magnitude and phase.

  qsmjax recon FOLDER OUT

FOLDER has kspace.npy, params.json and, where there is one, mask.nii.gz. kspace.npy is complex with the axes x y z coil
echo: k = 0 at n // 2, x the readout, zero where nothing was sampled, the centre full. params.json has TE [s], B0 [T]
and affine (or voxel_size [mm]). Missing samples are filled by GRAPPA, coils combined with ESPIRiT's sensitivities.
Where FOLDER has calibration.npy, a full scan measured apart with the axes x y z coil, both are found from it; where it
has coilnoise.npy, samples without signal with the axes sample coil, the coils are whitened first.

OUT gets magnitude.nii.gz and phase.nii.gz [rad], echoes on the fourth axis, with params.json: what `infer --input
phase` and `qsmjax cosmos` take.
"""

import argparse
from pathlib import Path

import numpy as np

from qsmjax.cli import infer
from qsmjax.cli.errors import UserError
from qsmjax.cli.kspace import files_beside, read_images
from qsmjax.cli.stages import choose_stages
from qsmjax.io.nifti import save_volume
from qsmjax.io.sidecar import save_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `recon`."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="with kspace.npy and params.json; calibration.npy, coilnoise.npy")
    add("out", metavar="OUT", help="folder of the images; made if it is not there")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the reconstruction")
    add("--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Run `recon`.

    Returns:
      The exit status.

    Raises:
      UserError: if OUT is FOLDER, or what FOLDER holds does not fit.
    """
    folder, out = Path(args.folder), Path(args.out)
    if out.resolve() == folder.resolve():
        raise UserError(f"OUT must be another folder than FOLDER, whose params.json it would replace, got {out} twice")
    words = [str(folder / "kspace.npy"), "--input", "kspace"]
    beside = {"--params": folder / "params.json", "--mask": folder / "mask.nii.gz"}
    beside = {flag: path for flag, path in beside.items() if path.is_file()} | files_beside(folder)
    words += [word for flag, path in beside.items() for word in (flag, str(path))]
    words += [word for pair in args.set for word in ("--set", f"recon.{pair.removeprefix('recon.')}")]
    parser = argparse.ArgumentParser()
    infer.add_arguments(parser)
    asked = parser.parse_args(words)
    images = read_images(asked, choose_stages(asked)["recon"])
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("magnitude", np.abs(images.signal)), ("phase", np.angle(images.signal))):
        save_volume(out / f"{name}.nii.gz", np.moveaxis(part, 0, -1), images.volume)
    said = images.parameters
    # the volumes carry the affine
    known = {"TE": said.te, "B0": said.b0, "B0_dir": said.b0_dir, "voxel_size": said.voxel_size}
    save_json(out / "params.json", {key: value for key, value in known.items() if value is not None})
    if images.mask is not None:
        save_volume(out / "mask.nii.gz", images.mask.astype(np.float32), images.volume)
    if not args.quiet:
        for note in images.notes:
            print(f"note: {note}")
        shape = " x ".join(map(str, images.signal.shape[1:]))
        print(f"{len(images.signal)} echoes of {shape} voxels in {out}")
    return 0
