"""Feed broken input to everything that reads, and tell what was neither a result nor an error of ours.

    python benchmarks/fuzz.py                     25,000 cases, about five minutes
    python benchmarks/fuzz.py --cases 500 --only nifti weights --seed 7
    python benchmarks/fuzz.py --replay nifti:1234  one case, its traceback

A case is (reader, number): a well-formed input, mutated as its number says. It passes if the reader returns, or raises
ValueError, OSError or MemoryError, which a command turns into one line. It fails with any other exception, after
10 s, when the process has grown beyond 2 GB, when a file outside of the case's folder is written, or when a pickle is
loaded. Exit status 1 if any failed.
"""

import argparse
import contextlib
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from fuzz_readers import ALLOWED, READERS

from qsmjax.cli.errors import describe

SECONDS = 10
MEMORY = 2 << 30


class Broken(BaseException):
    """A case that took too long, wrote where it may not, or loaded a pickle."""


class Guard:
    """Watches what the process opens for writing, and that no pickle is loaded."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self.outside: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple) -> None:
        if self.root is None:
            return
        if event == "pickle.find_class":
            self.outside.append(f"a pickle asked for {args}")
        if event == "open" and isinstance(args[0], str | bytes) and isinstance(args[1], str):
            path = args[0].decode(errors="replace") if isinstance(args[0], bytes) else args[0]
            if any(letter in args[1] for letter in "wax+"):
                self._check(path)
        if event in ("os.rename", "os.mkdir", "os.symlink"):
            self._check(str(args[1] if event != "os.mkdir" else args[0]))

    def _check(self, path: str) -> None:
        # JAX keeps what it compiled where it was told to
        kept = [folder for folder in (self.root, jax.config.jax_compilation_cache_dir, "/dev/null") if folder]
        if not any(Path(path).absolute().is_relative_to(folder) for folder in kept):
            self.outside.append(path)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Break off what takes longer."""

    def stop(*_: object) -> None:
        raise Broken(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_case(name: str, number: int, place: Path, guard: Guard, *, seed: int = 0) -> str | None:
    """Run one case; return what went wrong, None if nothing did."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    rng = np.random.default_rng([seed, list(READERS).index(name), number])
    guard.outside, guard.root = [], place
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = None
    try:
        with limited(SECONDS):
            READERS[name][0](rng, place)
    except ALLOWED as error:
        line = describe(error)
        if "\n" in line or not line:
            wrong = f"a message of no or several lines: {line!r}"
    except SystemExit as error:
        wrong = f"left by {error!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        at = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in at if "qsmjax" in frame.filename] or list(at)
        wrong = f"{type(error).__name__}: {str(error)[:150]} at {Path(own[-1].filename).name}:{own[-1].lineno}"
    finally:
        guard.root = None
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > MEMORY:
        wrong = f"grew by {grown / 1e9:.1f} GB"
    return wrong or (f"wrote or loaded: {guard.outside[:3]}" if guard.outside else None)


def run_cases(cases: int, only: list[str], seed: int, say: Callable[[str], None] = print) -> int:
    """Run the cases of each reader; return how many failed."""
    guard, failed = Guard(), 0
    share = sum(READERS[name][1] for name in only)
    with tempfile.TemporaryDirectory() as folder:
        for name in only:
            started, found = time.perf_counter(), {}
            count = max(1, round(cases * READERS[name][1] / share))
            for number in range(count):
                wrong = try_case(name, number, Path(folder) / "case", guard, seed=seed)
                if wrong:
                    failed += 1
                    found.setdefault(wrong.split(" at ")[-1] if " at " in wrong else wrong[:60], []).append(
                        (number, wrong)
                    )
            seconds = time.perf_counter() - started
            bad = sum(len(v) for v in found.values())
            say(f"{name:13} {count:6} cases, {bad} failed, {1000 * seconds / count:.1f} ms each")
            for cases_of in found.values():
                say(f"    {len(cases_of)} x {name}:{cases_of[0][0]}  {cases_of[0][1]}")
    return failed


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=25_000)
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", metavar="READER:NUMBER")
    args = parser.parse_args()
    if args.replay:
        name, number = args.replay.split(":")
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng([args.seed, list(READERS).index(name), int(number)])
            print(READERS[name][0](rng, Path(folder)))
        return 0
    started = time.perf_counter()
    failed = run_cases(args.cases, args.only, args.seed, lambda line: print(line, flush=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{args.cases} cases, {failed} failed, {time.perf_counter() - started:.0f} s, peak {peak:.2f} GB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
