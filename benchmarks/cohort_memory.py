"""Measure the peak memory of `qsmjax bids` a scan, against what `cli.memory` estimates before it starts one.

    python benchmarks/cohort_memory.py    python benchmarks/cohort_memory.py --sizes 64 --echoes 1 4 --preset fast

Each scan is a ball of signal with noise, done in a process of its own.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from qsmjax.cli.main import main as qsmjax
from qsmjax.cli.memory import memory_of
from qsmjax.io.bids import find_runs
from qsmjax.io.nifti import new_volume, save_volume

GIB = 2**30


def make(root: Path, size: int, echoes: int) -> None:
    """Write a scan of size³ voxels."""
    points = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 3, indexing="ij")
    inside = sum(p**2 for p in points) < 0.8
    rng = np.random.default_rng(0)
    for echo in range(1, echoes + 1):
        te = 0.006 * echo
        noise = 0.01 * rng.normal(size=(2, *inside.shape))
        signal = inside * np.exp(2j * np.pi * 30 * te * (points[2] + 0.2 * points[0] ** 2)) + noise[0] + 1j * noise[1]
        for part, data in (("mag", np.abs(signal)), ("phase", np.angle(signal))):
            path = root / "sub-1" / "anat" / f"sub-1_echo-{echo}_part-{part}_MEGRE.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_volume(path, data, new_volume(data, np.diag([1.0, 1, 1, 1])))
        (root / "sub-1" / "anat" / f"sub-1_echo-{echo}_MEGRE.json").write_text(json.dumps({"EchoTime": te}))
    (root / "MEGRE.json").write_text(json.dumps({"MagneticFieldStrength": 3}))


def measured(root: str, preset: str, pipe) -> None:
    """Do the scan and tell the peak of this process [bytes], and seconds."""
    started = time.perf_counter()
    status = qsmjax(["bids", root, f"{root}/derivatives/qsmjax", "participant", "--preset", preset, "--quiet"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send((status, peak, time.perf_counter() - started))


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 96, 112))
    parser.add_argument("--echoes", type=int, nargs="+", default=(1, 4, 6))
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for size, echoes in itertools.product(args.sizes, args.echoes):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), size, echoes)
            (run,) = find_runs(folder)
            ours, theirs = context.Pipe()
            process = context.Process(target=measured, args=(folder, args.preset, theirs))
            process.start()
            status, peak, seconds = ours.recv()
            process.join()
            estimate = memory_of(run)
            print(
                f"{size}^3, {echoes} echoes: peak {peak / GIB:.2f} GiB, estimated {estimate / GIB:.2f} GiB, "
                f"{seconds:.0f} s, exit status {status}",
                flush=True,
            )


if __name__ == "__main__":
    main()
