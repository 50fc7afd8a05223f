"""Peak memory and time of `infer.py` on large volumes, each in a process of its own.

    python benchmarks/infer_memory.py                              tkd, tv and learned at 256³ and 320 x 320 x 256
    python benchmarks/infer_memory.py --shapes 448,448,448 --methods learned --set tile=96

The mask is an ellipsoid that fills 70 % of each axis, as a head does; the field is noise.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from qsmjax.io.nifti import new_volume, save_volume


def main() -> None:
    """Print a line a volume and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["256,256,256", "320,320,256"])
    parser.add_argument("--methods", nargs="+", default=["tkd", "tv", "learned"])
    parser.add_argument("--set", nargs="+", default=[])
    args = parser.parse_args()
    for text in args.shapes:
        shape = tuple(int(n) for n in text.split(","))
        with tempfile.TemporaryDirectory() as name:
            write_field(Path(name) / "field.nii", shape)
            for method in args.methods:
                settings = [word for pair in args.set for word in ("--set", pair)]
                words = [str(Path(name) / "field.nii"), "--method", method, "--no-figure", "--quiet", *settings]
                status, seconds, peak = measured([sys.executable, str(Path(__file__).parents[1] / "infer.py"), *words])
                print(f"{text} {method}: peak {peak / 2**30:.1f} GiB, {seconds:.0f} s, status {status}", flush=True)


def write_field(path: Path, shape: tuple[int, ...]) -> None:
    """Write noise in an ellipsoid."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    field = 0.01 * np.random.default_rng(0).standard_normal(shape, np.float32)
    field *= sum((a / 0.7) ** 2 for a in axes) < 1
    save_volume(path, field, new_volume(field, np.eye(4)))


def measured(command: list[str]) -> tuple[int, float, int]:
    """Run a command; return its status, its seconds and its peak memory [bytes]."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # kilobytes, but on a Mac bytes
    return (
        process.returncode,
        time.perf_counter() - started,
        usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


if __name__ == "__main__":
    main()
