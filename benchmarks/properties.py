"""Run every public method on scans that nobody would make, and show the smallest that breaks each.

    python benchmarks/properties.py                  60 cases a method, shapes to 12 voxels an axis
    python benchmarks/properties.py --examples 500 --largest 40 --only tv medi

A method holds if it gives finite values inside the mask on the input's grid, or an error of ours that is one line.
Exit status 1 if any does not.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reliability"))

from strategies import Case, assert_holds, cases

from qsmjax.cli.settings import options_of
from qsmjax.inference.shipped import INVERSIONS
from qsmjax.pipeline import BACKGROUNDS

SHAPES = [(1, 1, 1), (2, 1, 7), (5, 8, 3), (9, 9, 9), (12, 1, 1), (6, 7, 12)]
"""For methods that take long to compile; those in closed form get any shape."""
CLOSED = ("tkd", "tsvd", "tikhonov")


def _test(method: Callable, options: dict[str, Any]) -> Callable:
    def test(case: Case) -> None:
        assert_holds(method, case, **options)

    return test


def main() -> int:
    """Print a line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=60)
    parser.add_argument("--largest", type=int, default=12)
    parser.add_argument("--only", nargs="+", default=[*INVERSIONS, *BACKGROUNDS])
    args = parser.parse_args()
    failed = 0
    for name in args.only:
        method = {**INVERSIONS, **BACKGROUNDS}[name]
        options = {"max_iterations": 3} if "max_iterations" in options_of(method) else {}
        drawn = cases(args.largest, None if name in CLOSED else SHAPES)
        test = given(case=drawn)(_test(method, options))
        limited = settings(
            max_examples=args.examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        started = time.perf_counter()
        try:
            limited(test)()
            print(f"{name:10} holds, {time.perf_counter() - started:.0f} s", flush=True)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            failed += 1
            notes = " ".join(note for note in getattr(error, "__notes__", []) if "Case(" in note)
            print(f"{name:10} breaks: {type(error).__name__} {str(error)[:200]}\n    {notes[:600]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
