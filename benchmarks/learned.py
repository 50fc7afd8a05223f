"""Hold the networks against TV and MEDI: at their defaults, and with the weight tuned on the truth.

    python benchmarks/learned.py LABELS_DIR --cache CACHE [--weights FILE] [--cases axial oblique 1x1x2 7T 0.7mm]
                                 [--numbers 11 12] [--noise 1 4] [--draws 1] [--voxel 1.0] [--vsharp]
                                 [--alone] [--networks learned qsmnet qsmnet_plus]

The heads are those of `benchmarks/heads.py`, kept in CACHE; networks are never trained on heads 11 to 14. A line a
method says NRMSE, xSIM, HFEN, deep grey's NRMSE, as QSM-CI defines them; the part of the calcification's and of the
haemorrhage's contrast, and so of their moment, that comes back [%] (`study.lesions`; nan for one of less than three
voxels), and the calcification's streak; for the learned inversion also seconds without compilation, and the part of
the voxels whose truth lies within one and within two (1.96) predicted standard deviations, and within one by tenths
of the predicted deviation. The mean over the mask is taken off each map before its NRMSE, and a line before deep
grey's; xSIM and HFEN take maps as they are. With --draws a line is the mean over so many draws of noise, on each of
which the classical weights are tuned anew. --voxel multiplies the voxel size. --vsharp takes the field of air, bone
and neck out of the total field by V-SHARP first, and judges on the mask that it leaves.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from heads import CASES
from inversions import errors, measured, walk
from kept_heads import KeptHead, head_arguments, kept_head

from qsmjax.background import v_sharp
from qsmjax.evaluation.metrics import nrmse
from qsmjax.inference.network import load_network
from qsmjax.inference.shipped import NETWORKS, load_shipped
from qsmjax.inversion import medi, tv
from qsmjax.inversion.solution import Solution
from qsmjax.physics.field_map import FieldMap
from qsmjax.study.lesions import measure

COLUMNS = ("nrmse", "xsim", "hfen", "nrmse_dgm", "calcification", "haemorrhage", "calc_streak")
HEADER = "method        NRMSE   xSIM   HFEN   grey  calc.  haem.  streak"


def main() -> None:
    """Print a table a head and a noise level."""
    parser = head_arguments(__doc__, cases=tuple(CASES))
    parser.add_argument("--weights", type=Path, help="of another learned inversion than the shipped one")
    parser.add_argument("--draws", type=int, default=1, help="of the noise")
    parser.add_argument("--voxel", type=float, default=1.0)
    parser.add_argument("--vsharp", action="store_true")
    parser.add_argument("--alone", action="store_true", help="the networks alone")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["learned"])
    args = parser.parse_args()
    learned = load_network(args.weights).invert if args.weights else load_shipped("learned")
    for case in args.cases:
        head = kept_head(args.labels_dir, case, args.cache, heads=tuple(args.numbers), voxel=args.voxel)
        for level in args.noise:
            table: dict[str, list[tuple[float, ...]]] = {}
            for draw in range(args.draws):
                scan, judged = head.noisy(level, seed=draw), head
                if args.vsharp:
                    scan = v_sharp(scan.replace(field=scan.field + head.arrays["outside"]))
                    mask = np.asarray(scan.mask)
                    judged = dataclasses.replace(head, arrays=head.arrays | {"mask": mask, "chi": head.chi * mask})
                for method in () if args.alone else (tv, medi):
                    default, best = tuned(method, scan, judged)
                    table.setdefault(method.__name__, []).append(row(default, judged))
                    table.setdefault(f"{method.__name__}, tuned", []).append(row(best, judged))
                for name in args.networks:
                    if name != "learned":
                        table.setdefault(name, []).append(row(NETWORKS[name](scan), judged))
                        continue
                    solution, seconds, _ = measured(lambda scan=scan: learned(scan), warm=True)
                    table.setdefault(name, []).append((*row(solution, judged), seconds))
                    covered = coverage(solution, judged)
            print(f"\n{case}{', V-SHARP' if args.vsharp else ''}, {head.mask.shape}, noise x{level:g}\n{HEADER}")
            for label, rows in table.items():
                print_line(label, np.mean(rows, 0))
            if "learned" in args.networks:
                print(covered, flush=True)


def tuned(method: Callable[..., Solution], scan: FieldMap, head: KeptHead) -> tuple[Solution, Solution]:
    """Return an inversion at its own weight, and at the weight that the truth likes best."""
    default = method(scan)
    start = float(default.weight)
    error = lambda solution: float(nrmse(solution.chi, head.chi, head.mask))
    found = {1.0: default}

    def at(multiple: float) -> float:
        found[multiple] = method(scan, weight=start * multiple)
        return error(found[multiple])

    tried = walk(at, error(default))
    return default, found[min(tried, key=lambda multiple: tried[multiple])]


def row(solution: Solution, head: KeptHead) -> tuple[float, ...]:
    """Return the figures of a line of the table."""
    found = measure(np.asarray(solution.chi), head.chi, head.lesions, head.mask)["Lesions"]
    recovered = {lesion["Kind"]: 100 * lesion["Found"] / lesion["True"] for lesion in found}
    figures = errors(solution, head, head.mask) | recovered
    return tuple(figures.get(key, np.nan) for key in COLUMNS)


def print_line(name: str, figures: np.ndarray) -> None:
    """Print one line of the table."""
    error, similarity, detail, grey, calcification, haemorrhage, streak, *seconds = figures
    took = f"  {seconds[0]:.1f} s" if seconds else ""
    print(
        f"{name:12} {error:6.2f} {similarity:6.3f} {detail:6.2f} {grey:6.2f} {calcification:6.1f} {haemorrhage:6.1f} "
        f"{streak:7.3f}{took}",
        flush=True,
    )


def coverage(solution: Solution, head: KeptHead) -> str:
    """Say how many voxels' truth lies within the predicted deviation."""
    mask = head.mask
    std, error = np.asarray(solution.std)[mask], (np.asarray(solution.chi) - head.chi)[mask]
    off = np.abs(error - error.mean()) / std
    tenths = np.array_split(off[np.argsort(std)], 10)
    each = " ".join(f"{100 * np.mean(part < 1):.0f}" for part in tenths)
    constant = np.log(error.std()) + 0.5
    own = float(np.mean(np.log(std) + 0.5 * off**2))
    return (
        f"  within 1 std {100 * np.mean(off < 1):.1f} % (68), within 1.96 {100 * np.mean(off < 1.96):.1f} % (95); "
        f"by tenths {each}; negative log likelihood {own:.3f}, of a constant std {constant:.3f}"
    )


if __name__ == "__main__":
    main()
