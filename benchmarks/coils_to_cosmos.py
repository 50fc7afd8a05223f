"""Print what several orientations of multi-coil k-space give in one command, beside one orientation's inversions.

    python benchmarks/coils_to_cosmos.py LABELS.nii.gz --cache CACHE [--voxel 2 2 2] [--again]

A whole-head label map (FreeSurfer and SynthSeg numbers, 1 mm) is scanned in five orientations up to 25 degrees apart
by 8 coils at 2x2 acceleration with 24 lines of calibration, with air, bone and neck, at 3 T, four echoes (`qsmjax
simulate`). `qsmjax cosmos` takes the five folders of k-space: GRAPPA, ESPIRiT, total field, background (the default),
registration by magnitude, COSMOS. From the same reconstruction of the first orientation: TKD, MEDI, TV and the
default (learned_total), nothing set. NRMSE and xSIM against the true map, on the mask that the first orientation's
background removal leaves; and those of its local field. CACHE keeps scans and maps; --again makes the maps anew.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from qsmjax.cli.main import main as qsmjax
from qsmjax.cli.orientations import read_orientation
from qsmjax.evaluation.metrics import nrmse, xsim
from qsmjax.inference.shipped import learned_total
from qsmjax.inversion import medi, tkd, tv
from qsmjax.io.nifti import load_volume
from qsmjax.physics.field_map import FieldMap


def line(name: str, found: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
    """Print one map's figures, both maps referenced to their mean over the mask."""
    level = lambda volume: np.where(mask, volume - volume[mask].mean(), 0)
    error, likeness = (float(metric(level(found), level(truth), mask)) for metric in (nrmse, xsim))
    print(f"{name:>34}: NRMSE {error:5.1f} %, xSIM {likeness:.3f}", flush=True)


def one_orientation(local: FieldMap, truth: np.ndarray, mask: np.ndarray) -> None:
    """Invert the first orientation's local field."""
    for name, method in (("TKD", tkd), ("MEDI", medi), ("TV", tv), ("learned_total", learned_total)):
        line(f"{name}, one orientation", np.asarray(method(local).chi), truth, mask)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--voxel", type=float, nargs=3, default=(2.0, 2.0, 2.0), help="[mm]")
    parser.add_argument("--again", action="store_true", help="reconstruct again")
    args = parser.parse_args()
    size = [f"{d:g}" for d in args.voxel]
    subject = f"sub-{args.labels.name.split('.')[0].replace('_', '').replace('-', '')}"
    scans, out = args.cache / f"coils-{'x'.join(size)}", args.cache / f"cosmos-{subject}-{'x'.join(size)}"
    kspace = scans / "kspace" / subject
    if not kspace.exists():
        words = ["--orientations", "5", "--coils", "8", "--acceleration", "2", "2", "--voxel-size", *size]
        assert qsmjax(["simulate", str(scans), "--labels", str(args.labels), *words]) == 0
    if args.again or not (out / "cosmos_Chimap.nii.gz").exists():
        start = time.perf_counter(), time.process_time()
        assert qsmjax(["cosmos", str(kspace), "-o", str(out)]) == 0
        taken = time.perf_counter() - start[0], time.process_time() - start[1]
        print(f"cosmos: {taken[0]:.0f} s, {taken[1]:.0f} s of the processors")
    stem = scans / "derivatives" / "truth" / subject / "anat" / f"{subject}_acq-orient1"
    truth, brain, field = (
        load_volume(stem.with_name(f"{stem.name}_{name}.nii.gz")).data for name in ("Chimap", "mask", "localfield")
    )
    local = read_orientation(kspace / "orient1", None).local
    mask = np.asarray(local.mask)
    print(f"{args.labels.name}: {brain.shape}, {int(brain.sum())} voxels, {100 * mask.sum() / brain.sum():.0f} % kept")
    line("local field, first orientation", np.asarray(local.field), field, mask)
    line("COSMOS, five orientations", load_volume(out / "cosmos_Chimap.nii.gz").data, truth, mask)
    one_orientation(local, truth, mask)


if __name__ == "__main__":
    main()
