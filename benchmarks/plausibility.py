"""Figures behind the limits of `evaluation.plausibility` and the ranges of `report.expected`.

    python benchmarks/plausibility.py LABELS      on heads 11 and 12 (LABELS holds their label maps) and the example

For each head: what every check finds on fields that are right, on what background methods leave, and on what high-pass
filters leave; and the percentiles of the true map and of TV's.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from qsmjax import background, inversion
from qsmjax.cli.simulate import read_head
from qsmjax.evaluation import plausibility
from qsmjax.io.nifti import load_volume
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry_from_affine
from qsmjax.report.expected import PERCENTILES, region_rows
from qsmjax.simulate.scan import grid_around, scan

EXAMPLE = Path(__file__).parents[1] / "examples"
CASES = {"head_11": {"tilt": 0.0, "size": (1.5, 1.5, 1.5)}, "head_12": {"tilt": 20.0, "size": (1.5, 1.5, 2.0)}}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    volume = load_volume(EXAMPLE / "field.nii.gz")
    grid = geometry_from_affine(volume.affine, volume.shape)
    chi = load_volume(EXAMPLE / "chi_truth.nii.gz").data
    maps("example", field_map(volume.data, volume.data != 0, grid), chi)
    for number, (name, case) in enumerate(CASES.items()):
        key = jax.random.key(number)
        path = parser.parse_args().labels / f"{name}.nii.gz"
        head = read_head(key, path, lesions=())
        about = grid_around(head, case["size"], tilt=np.radians(case["tilt"]), about=(1, 0, 0))
        made = scan(key, head, about, te=(0.006, 0.012, 0.018, 0.024))
        total = np.where(made.mask, np.asarray(made.local.field) + made.total - made.clean, 0)
        checks(name, made, total)
        maps(name, made.local, made.chi)
        if not case["tilt"]:
            regions(name, made, load_volume(path))


def checks(name: str, made, total: np.ndarray) -> None:
    """Print what each check finds in the fields of one head."""
    row(f"{name} local field", made.local)
    whole = field_map(total, made.mask, made.local.geometry, noise=made.local.noise)
    row(f"{name} total field", whole)
    for method in ("joint", "ismv", "vsharp", "lbv", "pdf"):
        row(f"{name} {method}", background.METHODS[method](whole))
    size = np.asarray(made.local.geometry.voxel_size)
    for width in (30, 20, 10):
        for kind, field in (("local", made.local), ("total", whole)):
            filtered = high_passed(np.asarray(field.field), np.asarray(made.mask), width / 2.355 / size)
            row(f"{name} {kind}, without > {width} mm", field_map(filtered, made.mask, field.geometry))


def high_passed(field: np.ndarray, mask: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Subtract the mean over a Gaussian window within the mask."""
    smooth = gaussian_filter(field * mask, sigma) / np.maximum(gaussian_filter(mask * 1.0, sigma), 1e-3)
    return np.where(mask, field - smooth, 0)


def row(name: str, field: FieldMap) -> None:
    """Print the checks of one field."""
    values = (np.asarray(field.field), np.asarray(field.mask), field.geometry)
    print(
        f"{name:34} std {values[0][values[1]].std():.4f} ppm, rim {plausibility.rim_excess(*values):5.2f}, harmonic "
        f"{plausibility.harmonic_part(*values):.3f}, low frequencies {plausibility.low_frequencies(*values):6.2f}, "
        f"border {plausibility.border_contact(field.mask):.3f}",
        flush=True,
    )


def maps(name: str, local: FieldMap, chi: np.ndarray) -> None:
    """Print the percentiles, the tails and the fit of the true map and of two inversions."""
    mask = np.asarray(local.mask)
    found = {"truth": chi, "tv": inversion.tv(local).chi, "tkd": inversion.tkd(local).chi}
    for method, each in found.items():
        values = np.asarray(each)[mask]
        spread = "  ".join(f"{q}: {np.percentile(values, q) - np.median(values):+.4f}" for q in PERCENTILES)
        fit = plausibility.field_residual(local, each)
        balance = plausibility.tail_balance(each, mask, local.geometry)
        print(f"{name} {method:6} {spread}, tails {balance:+.2f}, explained {fit.explained:.3f}", flush=True)


def regions(name: str, made, labels) -> None:
    """Print what the report says of the regions of the true map and of TV's."""
    to_labels = np.linalg.inv(labels.affine) @ made.grid.affine
    nearest = affine_transform(labels.data, to_labels, output_shape=made.mask.shape, order=0)
    for method, chi in {"truth": made.chi, "tv": inversion.tv(made.local).chi}.items():
        for each in region_rows(chi, nearest, made.mask):
            told = {key: round(value, 4) if isinstance(value, float) else value for key, value in each.items()}
            print(f"{name} {method:6} {told}", flush=True)


if __name__ == "__main__":
    main()
