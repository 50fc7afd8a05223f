"""How long a first map takes: `infer.py` on the example, in a new process, imports and compilation included.

    python benchmarks/first_run.py [--runs 3]

Prints the wall-clock seconds of each run and the median, for the default (bar: 20 s), TV, and TKD (bar: 8 s). Nothing
compiled is kept between runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BARS = {"default": ([], 20), "tv": (["--method", "tv"], 20), "tkd": (["--method", "tkd"], 8)}


def main() -> None:
    """Time both commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    for name, (words, bar) in BARS.items():
        seconds = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                command = [sys.executable, "infer.py", "examples/field.nii.gz", "-o", folder, *words]
                subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - started)
        each = " ".join(f"{s:.1f}" for s in seconds)
        print(f"{name:8} median {statistics.median(seconds):.1f} s (runs {each}; bar {bar} s)")


if __name__ == "__main__":
    main()
