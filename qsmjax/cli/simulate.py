"""Make scans with their truth from label maps.

  qsmjax simulate OUT --labels head.nii.gz             one multi-echo scan, with air, bone and neck
  qsmjax simulate OUT --labels DIR --orientations 5    each head of a folder, in five orientations
  qsmjax simulate OUT --labels head.nii.gz --voxel-size 0.8 0.8 1.2 --tilt 20 --no-background
  qsmjax simulate OUT --labels head.nii.gz --orientations 5 --coils 8 --acceleration 2 2

OUT is a BIDS-like folder: sub-*/anat holds magnitude and phase of every echo with their JSON, derivatives/truth the
susceptibility [ppm], fields [ppm] and masks. qsm-ci/ holds the same scans in the layout of the public benchmark:
inputs/, groundtruth/, params.json. With --coils, kspace/sub-* holds a folder an orientation with undersampled
multi-coil k-space, params.json and mask: what `qsmjax cosmos` takes.
"""

import argparse
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from qsmjax.cli.errors import UserError
from qsmjax.cli.told import check_units
from qsmjax.io.kspace import save_kspace
from qsmjax.io.nifti import load_volume, new_volume, save_volume, stem, volume_files
from qsmjax.io.sidecar import save_json
from qsmjax.simulate.anatomy import Anatomy, anatomy
from qsmjax.simulate.coils import multicoil_kspace
from qsmjax.simulate.lesions import Lesion
from qsmjax.simulate.posture import ORIENTATIONS, moved, posture
from qsmjax.simulate.scan import Scan, grid_around, scan
from qsmjax.simulate.warp import warp_labels

LESIONS = {
    "none": (),
    "few": (Lesion("microbleed"), Lesion("calcification")),
    "many": (
        *[Lesion("microbleed")] * 6,
        *[Lesion("plaque")] * 6,
        *[Lesion("calcification")] * 2,
        Lesion("haemorrhage"),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `simulate`."""
    add = parser.add_argument
    add("out", metavar="OUT", help="folder to write to; made where it does not exist")
    add("--labels", required=True, metavar="PATH", help="label map (.nii, .nii.gz), or a folder of them")
    add("--orientations", type=int, default=1, metavar="N", help=f"scans of each head, 1 to {len(ORIENTATIONS)}")
    add("--tilt", type=float, help="degrees: of the grid for one scan (default 0), of the head for several (25)")
    add("--voxel-size", type=float, nargs=3, default=(1.0, 1.0, 1.0), metavar=("X", "Y", "Z"), help="[mm]")
    add("--b0", type=float, default=3.0, metavar="T", help="field strength [tesla]")
    add("--te", type=float, nargs="+", default=(0.006, 0.012, 0.018, 0.024), metavar="S", help="echo times [seconds]")
    add("--snr", type=float, default=90.0, help="of white matter at the first echo")
    add("--lesions", choices=LESIONS, default="few", help="what else is in the brain")
    add("--age", type=float, help="of the subject [years]; default: drawn")
    add("--warp", action="store_true", help="bend each label map by about 3 mm, another way for each seed")
    add("--anisotropy", type=float, default=0.0, metavar="PPM", help="white matter's, along its fibres less across")
    add("--seed", type=int, default=0, help="of all that is random")
    add("--no-background", action="store_true", help="the brain alone: no air, bone and neck, shim and coil phase")
    add("--coils", type=int, default=0, metavar="N", help="write k-space of so many coils too; default: none")
    add("--acceleration", type=int, nargs=2, default=(2, 2), metavar=("Y", "Z"), help="of that k-space; default: 2 2")
    add("--quiet", action="store_true", help="print nothing")


def run(args: argparse.Namespace) -> int:
    """Simulate what the arguments say.

    Raises:
      UserError: if an argument cannot be.
    """
    _check_arguments(args)
    tilt = args.tilt if args.tilt is not None else (25.0 if args.orientations > 1 else 0.0)
    out = Path(args.out)
    for number, (name, path) in enumerate(subjects(volume_files(args.labels)).items()):
        key = jax.random.fold_in(jax.random.key(args.seed), number)
        head = read_head(key, path, warp=args.warp, lesions=LESIONS[args.lesions], age=args.age)
        for index in range(args.orientations):
            # an oblique scan is an oblique grid; another orientation is a head that was turned
            several = args.orientations > 1
            turned = moved(head, posture(head, index, np.radians(tilt))) if several else head
            grid = grid_around(turned, args.voxel_size, tilt=0.0 if several else np.radians(tilt))
            made = scan(
                jax.random.fold_in(key, index + 1),
                turned,
                grid,
                b0=args.b0,
                te=args.te,
                snr=args.snr,
                background=not args.no_background,
                anisotropy=args.anisotropy,
            )
            write_bids(out, name, f"orient{index + 1}", made)
            write_qsmci(out / "qsm-ci" / f"{name}_orient{index + 1}", made)
            if args.coils:
                folder = out / "kspace" / name / f"orient{index + 1}"
                write_kspace(folder, jax.random.fold_in(key, 100 + index), made, args.coils, args.acceleration)
            if not args.quiet:
                b = np.round(np.asarray(made.geometry.b0_dir), 3).tolist()
                print(f"{name} orientation {index + 1}: {made.grid.shape}, B0 along {b}", file=sys.stderr)
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot be before anything is read."""
    if not 1 <= args.orientations <= len(ORIENTATIONS):
        raise UserError(f"--orientations must be 1 to {len(ORIENTATIONS)}, got {args.orientations}")
    for name in ("voxel_size", "snr", "b0", "age"):
        value = getattr(args, name)
        # an age that is not given is drawn
        if value is not None and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
            raise UserError(f"--{name.replace('_', '-')} must be positive and finite, got {value}")
    for name, unit in (("anisotropy", "ppm"), ("tilt", "degrees")):
        value = getattr(args, name)
        if value is not None and not np.isfinite(value):
            raise UserError(f"--{name} must be a number of {unit}, got {value}")
    if len(args.te) < 2 or not all(0 < a < b < np.inf for a, b in itertools.pairwise(args.te)):
        raise UserError(f"--te must be two or more growing times in seconds, got {list(args.te)}")
    check_units(tuple(args.te), args.b0, "--b0")
    if args.coils < 0 or min(args.acceleration) < 1:
        raise UserError(
            f"--coils must not be negative, and --acceleration at least 1 along y and z, got {args.coils} and "
            f"{args.acceleration}"
        )


def subjects(paths: Sequence[Path]) -> dict[str, Path]:
    """Name the subject of each label map after its file, as BIDS does: letters and digits behind sub-.

    Raises:
      UserError: if two have the same name, or one has none.
    """
    found: dict[str, Path] = {}
    for path in paths:
        # "sub" of a subject's name, but not that of a word
        label = re.sub("[^0-9A-Za-z]", "", re.sub("^sub(?![a-z])", "", stem(path)))
        if not label:
            raise UserError(f"{path} must have letters or digits in its name, to name the subject by: rename it")
        name = f"sub-{label}"
        if name in found:
            raise UserError(
                f"label maps must have names that differ in letters or digits, got {found[name]} and {path}, both "
                f"{name}: rename one"
            )
        found[name] = path
    return found


def read_head(key: jax.Array, path: Path, *, warp: bool = False, **options) -> Anatomy:
    """Read a label map, bend it where asked, and make a head of it, with the options of `simulate.anatomy`.

    Raises:
      ValueError: if it does not hold whole numbers.
    """
    volume = load_volume(path)
    if not np.all(np.isfinite(volume.data) & (volume.data == np.rint(volume.data))):
        raise ValueError(f"{path} must hold whole numbers, got others: is it a label map?")
    labels = volume.data.astype(np.int32)
    if warp:
        labels = warp_labels(jax.random.fold_in(key, 0), labels, volume.affine)
    return anatomy(key, labels, volume.affine, **options)


def parameters(made: Scan) -> dict[str, object]:
    """Return a scan's params.json."""
    numbers = lambda values: [round(float(v), 6) for v in values]
    return {
        "TE": numbers(made.te),
        "B0": made.b0,
        "B0_dir": numbers(made.geometry.b0_dir),
        "voxel_size": numbers(made.geometry.voxel_size),
    }


def write_qsmci(folder: Path, made: Scan) -> None:
    """Write one scan as the public benchmark lays it out: inputs/, groundtruth/ and params.json."""
    phase, magnitude = (np.moveaxis(part, 0, -1) for part in (np.angle(made.signal), np.abs(made.signal)))
    outside = made.total - made.clean
    volumes = {
        "inputs/localfield": np.asarray(made.local.field),
        "inputs/totalfield": np.where(made.mask, np.asarray(made.local.field) + outside, 0),
        "inputs/noise": np.asarray(made.local.noise),
        "inputs/mask": made.mask,
        "inputs/phase": phase,
        "inputs/magnitude": magnitude,
        "groundtruth/chimap": made.chi,
        "groundtruth/localfield": made.clean,
        "groundtruth/mask": made.mask,
        "groundtruth/segmentation": made.classes,
    }
    for name, data in volumes.items():
        _save(folder / f"{name}.nii.gz", data, made)
    save_json(folder / "inputs" / "params.json", parameters(made))
    save_json(folder / "params.json", parameters(made))


def write_kspace(folder: Path, key: jax.Array, made: Scan, coils: int, acceleration: Sequence[int]) -> None:
    """Write one scan as undersampled multi-coil k-space, with params.json and the brain's mask."""
    kspace = multicoil_kspace(key, made.echoes, made.geometry, sigma=made.sigma, coils=coils, acceleration=acceleration)
    _save(folder / "mask.nii.gz", made.mask, made)
    save_json(folder / "params.json", parameters(made) | {"affine": made.grid.affine.tolist()})
    save_kspace(folder / "kspace.npy", kspace)


def write_bids(out: Path, subject: str, acquisition: str, made: Scan) -> None:
    """Write one scan as raw data of a BIDS-like folder, its truth among the derivatives."""
    stem = f"{subject}_acq-{acquisition}"
    for number, (te, image) in enumerate(zip(made.te, made.signal), 1):
        for part, data in (("mag", np.abs(image)), ("phase", np.angle(image))):
            base = out / subject / "anat" / f"{stem}_echo-{number}_part-{part}_MEGRE"
            _save(base.with_name(base.name + ".nii.gz"), data, made)
            sidecar: dict[str, object] = {"EchoTime": float(te), "MagneticFieldStrength": made.b0}
            if part == "phase":
                sidecar["Units"] = "rad"
            save_json(base.with_name(base.name + ".json"), sidecar)
    truth = out / "derivatives" / "truth"
    volumes = {"Chimap": made.chi, "localfield": made.clean, "totalfield": made.total, "mask": made.mask}
    for name, data in volumes.items():
        _save(truth / subject / "anat" / f"{stem}_{name}.nii.gz", data, made)
    save_json(out / "dataset_description.json", {"Name": "Simulated heads", "BIDSVersion": "1.9.0"})
    save_json(
        truth / "dataset_description.json",
        {"Name": "Truth", "BIDSVersion": "1.9.0", "DatasetType": "derivative", "GeneratedBy": [{"Name": "qsmjax"}]},
    )


def _save(path: Path, data: np.ndarray, made: Scan) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_volume(path, data, new_volume(np.asarray(data, np.float32), made.grid.affine, path))
