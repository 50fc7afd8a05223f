"""The main job on real anatomy: the field of a head, inverted and held against its truth.

    python benchmarks/example.py LABELS [--out FOLDER]            the shipped example, written to examples/ by default
    python benchmarks/example.py LABELS --full [--out FOLDER]     the same head at 0.8x0.8x1.2 mm

LABELS is a whole-head label map of FreeSurfer's numbers; the shipped files are made of head_01 (examples/README.md).
The scan is 3 T, 20 degrees oblique, with veins, noise for an SNR of 90, and no background field. Prints the field's and the noise's standard deviation, how far the discrete dipole is from the
simulated field, and the NRMSE and xSIM of TKD and of TV at its default.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.inversion import tkd, tv
from qsmjax.io.nifti import load_volume, new_volume, save_volume
from qsmjax.io.sidecar import save_json
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import field_map
from qsmjax.simulate.anatomy import anatomy
from qsmjax.simulate.scan import grid_around, scan

COARSE, FULL = (1.6, 1.6, 2.0), (0.8, 0.8, 1.2)
TILT = np.radians(20.0)


def main() -> None:
    """Simulate, write, invert, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("labels")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "examples")
    args = parser.parse_args()
    labels = load_volume(args.labels)
    head = anatomy(jax.random.key(1), labels.data.astype(np.int32), labels.affine)
    made = scan(jax.random.key(2), head, grid_around(head, FULL if args.full else COARSE, tilt=TILT), snr=90.0)
    args.out.mkdir(parents=True, exist_ok=True)
    volumes = {"field": made.local.field, "chi_truth": made.chi}
    for name, volume in volumes.items():
        volume = np.where(made.mask, np.asarray(volume), 0)
        save_volume(args.out / f"{name}.nii.gz", volume, new_volume(volume, made.grid.affine), compact=True)
    save_json(args.out / "params.json", {"TE": [float(t) for t in made.te], "B0": float(made.b0)})
    report(made)


def report(made) -> None:
    """Print what was made, and how well it is inverted."""
    mask = made.mask
    discrete = np.asarray(forward_field(made.chi, made.geometry))
    off = (discrete - made.clean)[mask]
    print(f"{made.grid.shape} voxels, field std {made.clean[mask].std():.4f} ppm, "
          f"noise {np.median(np.asarray(made.local.noise)[mask]):.5f} ppm, "
          f"discrete dipole off by {(off - off.mean()).std() / made.clean[mask].std():.1%}")  # fmt: skip
    known = field_map(made.local.field, mask, made.geometry)
    for name, invert in (("tkd", tkd), ("tv", tv)):
        started = time.perf_counter()
        chi = np.asarray(invert(known).chi)
        seconds = time.perf_counter() - started
        error, similarity = (float(metric(chi, made.chi, mask)) for metric in (nrmse, xsim))
        print(f"{name:4} NRMSE {error:.1f} %, xSIM {similarity:.3f}, {seconds:.1f} s")


if __name__ == "__main__":
    main()
