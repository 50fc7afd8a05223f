"""Print the errors of every inversion at its default and at its best weight, on the four benchmark heads.

    python benchmarks/inversions.py LABELS_DIR --cache CACHE [--methods tv medi] [--cases axial 7T] [--noise 0.5 1 4]
                                    [--sweep] [--voxel 1.6] [--numbers 11 12] [--cosmos]
                                    [--background joint margin=2]

The heads are those of `benchmarks/heads.py`, kept in CACHE as .npz: the first run makes them. Methods that take a total
field get one: what surrounds the brain, with a shim's residue, is added. A line a method says
NRMSE, detrended NRMSE [%], xSIM, HFEN, deep grey's NRMSE [%], the calcification's error of moment [ppm voxels] and its
streak, iterations, seconds without compilation, and the highest resident memory while it ran [GB].

With --sweep a method's weight (or threshold) is moved by factors of 1.41 and 2 for as long as the NRMSE falls, and a
second line holds the best; "gap" is what the default loses to it (bar of tv, nltv and medi: 10 %). The default's
seconds then hold the compilation. --voxel multiplies the voxel size, for a quick look. --cosmos holds five orientations
within 30 degrees against TKD. With --background the methods of a local field get what that method leaves of the total
one, and are judged on its mask.
"""

import inspect
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.typing import ArrayLike
from kept_heads import LABELS, KeptHead, head_arguments, kept_head

from qsmjax.cli.settings import options_of, parse_settings
from qsmjax.evaluation.metrics import nrmse, scores
from qsmjax.inversion import METHODS, Solution, cosmos, taken
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap
from qsmjax.physics.geometry import geometry
from qsmjax.pipeline import BACKGROUNDS

COLUMNS = ("nrmse", "nrmse_detrend", "xsim", "hfen", "nrmse_dgm", "calc_moment_dev", "calc_streak")
HEADER = "method          NRMSE  detr.   xSIM   HFEN   grey  moment streak  iter      s    GB"
LADDER = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 2**-0.5, 1.0, 2**0.5, 2.0, 4.0, 8.0, 16.0)
SWEPT = ("weight", "threshold", "step_size")
"""Options that say how much a method smooths; the first that it has is swept."""

TILT = np.radians(30)


def main() -> None:
    """Print a table a head and a noise level."""
    parser = head_arguments(__doc__)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--voxel", type=float, default=1.0)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--background", nargs="+", metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--cosmos", action="store_true")
    args = parser.parse_args()
    for name in args.cases:
        head = kept_head(args.labels_dir, name, args.cache, heads=tuple(args.numbers), voxel=args.voxel)
        for level in args.noise:
            local = head.noisy(level)
            total = local.replace(field=local.field + head.arrays["outside"])
            if args.background:
                name_of, *own = args.background
                remove = BACKGROUNDS[name_of]
                local = remove(total, **parse_settings(own, options_of(remove), name_of))
            typical = np.median(np.asarray(total.noise)[head.mask])
            print(f"\n{name}, noise x{level:g}: {1000 * typical:.2f} ppb\n{HEADER}", flush=True)
            for method in args.methods:
                print_method(method, total if taken(METHODS[method]) == "totalfield" else local, head, args.sweep)
            if args.cosmos:
                print_cosmos(head, level)


def print_method(name: str, scan: FieldMap, head: KeptHead, sweep: bool) -> None:
    """Run one method at its default and, where asked, at its best weight."""
    method = METHODS[name]
    solution, seconds, memory = measured(lambda: method(scan), warm=not sweep)
    default = errors(solution, head, scan.mask)
    print_line(name, default, solution, seconds, memory)
    option = next((key for key in SWEPT if key in inspect.signature(method).parameters), None)
    if not sweep or option is None:
        return
    start = inspect.signature(method).parameters[option].default
    start = float(solution.weight) if start is None else start

    def at(multiple: float) -> float:
        return float(nrmse(method(scan, **{option: start * multiple}).chi, head.chi, scan.mask))

    tried = walk(at, default["nrmse"])
    best = min(tried, key=lambda multiple: tried[multiple])
    # the best one again: by now nothing is left to compile
    solution, seconds, memory = measured(lambda: method(scan, **{option: start * best}), warm=False)
    figures = errors(solution, head, scan.mask)
    print_line(f"  x{best:.2f}", figures, solution, seconds, memory)
    trail = " ".join(f"{multiple:.2f}:{tried[multiple]:.2f}" for multiple in sorted(tried))
    print(f"  {option} {start:.3g}; gap {default['nrmse'] / figures['nrmse'] - 1:+.1%}; {trail}", flush=True)


def walk(at: Callable[[float], float], default: float) -> dict[float, float]:
    """Step along the ladder of multiples for as long as the error falls, up or else down from 1."""
    middle = LADDER.index(1.0)
    tried = {1.0: default}
    for direction in (1, -1):
        position = middle
        while 0 <= position + direction < len(LADDER):
            before = tried[LADDER[position]]
            position += direction
            tried[LADDER[position]] = at(LADDER[position])
            if not tried[LADDER[position]] < before:
                break
        if position != middle + direction:
            break
    return tried


def errors(solution: Solution, head: KeptHead, mask: ArrayLike) -> dict[str, float]:
    """Hold a map against the truth in a mask."""
    figures = scores(solution.chi, head.chi, mask, head.labels, numbers=LABELS)
    return {name: float(figures[name]) for name in COLUMNS}


def print_line(name: str, figures: dict[str, float], solution: Solution, seconds: float, memory: float) -> None:
    """Print one line of the table."""
    error, detrended, similarity, detail, grey, moment, streak = (figures[name] for name in COLUMNS)
    mark = "" if bool(solution.converged) else "  not converged"
    print(
        f"{name:14} {error:6.2f} {detrended:6.2f} {similarity:6.3f} {detail:6.2f} {grey:6.2f} "
        f"{moment:7.2f} {streak:6.3f} {int(solution.iterations):5d} {seconds:6.1f} {memory:5.2f}{mark}",
        flush=True,
    )


def measured(task: Callable[[], Solution], *, warm: bool) -> tuple[Solution, float, float]:
    """Run a task, a second time where the first is to compile it, and return its seconds and peak memory [GB]."""
    if warm:
        jax.block_until_ready(task().chi)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    solution = task()
    jax.block_until_ready(solution.chi)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return solution, seconds, peak[0] / 2**30


def resident_bytes() -> int:
    """Return the memory that the process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def print_cosmos(head: KeptHead, level: float) -> None:
    """Run COSMOS on five orientations within 30 degrees, beside TKD on the first."""
    maps = orientations(head, level)
    solution, seconds, memory = measured(lambda: cosmos(maps), warm=True)
    alone = METHODS["tkd"](maps[0])
    print_line("cosmos", errors(solution, head, head.mask), solution, seconds, memory)
    ratio = float(nrmse(solution.chi, head.chi, head.mask) / nrmse(alone.chi, head.chi, head.mask))
    print(f"  condition {float(solution.condition):.1f}; over TKD's NRMSE on the first: {ratio:.3f} (bar: 0.333)")


def orientations(head: KeptHead, level: float) -> list[FieldMap]:
    """Turn the head upright and by 30 degrees towards four sides, each with its own noise."""
    source, maps = head.arrays["source"], []
    sine, cosine = np.sin(TILT), np.cos(TILT)
    for seed, side in enumerate(((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))):
        direction = (0.0, 0.0, 1.0) if seed == 0 else (sine * side[0], sine * side[1], cosine)
        grid = geometry(source.shape, head.voxel_size, direction)
        clean = np.asarray(forward_field(source, grid, padding=0.2))
        maps.append(head.noisy(level, clean=clean, b0_dir=direction, seed=seed))
    return maps


if __name__ == "__main__":
    main()
