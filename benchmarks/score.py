"""Invert a field by the classical methods at their defaults and hold the maps against the truth.

    python benchmarks/score.py examples/field.nii.gz examples/chi_truth.nii.gz
    python benchmarks/score.py HEAD/inputs/localfield.nii.gz HEAD/groundtruth/chimap.nii.gz --noise NOISE

The mask is where the field is not zero, or --mask. Prints NRMSE, xSIM, HFEN and seconds (with compilation) a method.
"""

import argparse
import time

import numpy as np

from qsmjax.evaluation.metrics import hfen, nrmse, xsim
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.io.nifti import load_volume
from qsmjax.physics.field_map import field_map
from qsmjax.physics.geometry import geometry_from_affine


def main() -> None:
    """Print a line a method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("field")
    parser.add_argument("truth")
    parser.add_argument("--mask")
    parser.add_argument("--noise", help="standard deviation of the field's noise [ppm]")
    parser.add_argument("--methods", nargs="+", choices=INVERSIONS, default=["tkd", "tv", "learned"])
    args = parser.parse_args()
    field, truth = load_volume(args.field), load_volume(args.truth).data
    mask = load_volume(args.mask).data != 0 if args.mask else field.data != 0
    noise = load_volume(args.noise).data if args.noise else None
    scan = field_map(field.data, mask, geometry_from_affine(field.affine, field.shape), noise=noise)
    for name in args.methods:
        started = time.perf_counter()
        chi = np.asarray(INVERSIONS[name](scan).chi)
        seconds = time.perf_counter() - started
        error, similarity, detail = (float(metric(chi, truth, mask)) for metric in (nrmse, xsim, hfen))
        print(f"{name:8} NRMSE {error:5.1f} %  xSIM {similarity:.3f}  HFEN {detail:5.1f} %  {seconds:5.1f} s")


if __name__ == "__main__":
    main()
