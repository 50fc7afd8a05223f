"""What a rehearsal tells of the learned inversion's deviation, and the factors that the shipped weights carry for it.

    python benchmarks/rehearsal.py LABELS --cache CACHE [--voxel 1 1.6] [--noise 1 4] [--cases axial oblique 1x1x2 7T]
                                   [--numbers 11 12] [--removals tfi vsharp] [--fit]

The heads are those of `benchmarks/heads.py`, kept in CACHE. A line a scan says the rehearsal's quantile, and the part
of the voxels whose truth lies within one and within 1.96 deviations (68 and 95 % are meant): as the network foretells
them, and after the rehearsal; then within one by tenths of the deviation. --fit prints the factors that these scans
ask for (`training.calibration.calibrate_level`): those of the shipped weights were found so, on heads 11 and 12.

With --removals the scans are of total fields, and the map is `learned_total`'s: of what `tfi` leaves, or of what `tfi`
takes out of a field that another removal made, as `learned` does by itself where background was left.
"""

import itertools

import numpy as np
from kept_heads import KeptHead, head_arguments, kept_head

from qsmjax.inference.learned import FILTERED, learned_inversion
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.inversion.removal import remove_by_tfi
from qsmjax.models.correction import Correction
from qsmjax.models.rehearsal import EDGE, LESION, slope
from qsmjax.physics.field_map import FieldMap
from qsmjax.pipeline import BACKGROUNDS
from qsmjax.training.calibration import SPOTS, beside_edges, regress


def main() -> None:
    """Print a line a scan, and the factors."""
    parser = head_arguments(__doc__, noise=(1.0, 4.0))
    parser.add_argument("--voxel", type=float, nargs="+", default=(1.0, 1.6))
    parser.add_argument("--removals", nargs="+", choices=BACKGROUNDS, default=[""], help="of background")
    parser.add_argument("--fit", action="store_true")
    args = parser.parse_args()
    _, network, variables, card = read_network(FOLDER / f"learned{'_total' if args.removals[0] else ''}.safetensors")
    assert isinstance(network, Correction)
    # with these factors the deviation is multiplied by the quantile alone
    invert = learned_inversion(network, variables, card | {"bootstrap": [0.0, 1.0, 1.0, 0.0]})
    rows, wanted, rng = [], [], np.random.default_rng(0)
    factors = card.get("bootstrap", [0.0, 1.0, 1.0, EDGE])
    for case, voxel, level, removal in itertools.product(args.cases, args.voxel, args.noise, args.removals):
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=voxel)
        scan = without_background(head, level, removal)
        mask = np.asarray(scan.mask)
        plain, scaled = invert(scan, bootstrap=False), invert(scan)
        log = np.log(np.asarray(plain.std)[mask])
        quantile = float(np.median(np.log(np.asarray(scaled.std)[mask]) - log))
        error = (np.asarray(plain.chi) - head.chi)[mask]
        off = np.log(np.abs(error - error.mean()) + 1e-7)
        excess = log - log.mean()
        rest = np.maximum(excess - LESION, 0)
        told = np.stack([np.ones_like(log), np.full_like(log, quantile), np.minimum(excess, LESION)], 1)
        steep = np.asarray(slope(plain.chi, mask))[mask]
        after = told @ np.asarray(factors[:3]) + rest + log.mean()
        after = np.log(np.hypot(np.exp(after), factors[3] * steep))
        after += np.log(FILTERED) if removal not in ("", "tfi") else 0
        tenths = [f"{100 * np.mean(part < 0):.0f}" for part in np.array_split((off - after)[np.argsort(log)], 10)]
        print(
            f"{case:7} x{voxel:g}, noise x{level:g} {removal:6}: quantile {np.exp(quantile):.3f}, foretold "
            f"{within(off - log)}, rehearsed {within(off - after)}; {' '.join(tenths)}",
            flush=True,
        )
        spots = rng.choice(off.size, 10 * SPOTS)
        rows.append(told[spots])
        wanted.append((beside_edges(off, steep) - rest - log.mean())[spots])
    if args.fit:
        print("factors", [round(factor, 3) for factor in regress(rows, wanted, (0.0, 0.0, 1.0))], EDGE)


def without_background(head: KeptHead, level: float, removal: str) -> FieldMap:
    """Scan a head: its local field, or what a removal, and `tfi` after any other, leaves of the total one."""
    local = head.noisy(level)
    if not removal:
        return local
    removed = BACKGROUNDS[removal](local.replace(field=local.field + head.arrays["outside"]))
    return removed if removal == "tfi" else remove_by_tfi(removed)


def within(off: np.ndarray) -> str:
    """Say which part of the errors' logarithms over the deviation lies within one and 1.96 of it."""
    return f"{100 * np.mean(off < 0):.1f} and {100 * np.mean(off < np.log(1.96)):.1f} %"


if __name__ == "__main__":
    main()
