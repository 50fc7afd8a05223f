"""What rounding, tiling and a second process change of a result.

    python benchmarks/rounding.py                   all of it, some minutes
    python benchmarks/rounding.py --only fft bf16 seam processes

fft        every path through a Fourier transform against NumPy's float64: largest difference over largest value
bf16       networks in bf16 against float32 [ppm]
seam       the shipped network in tiles of 40 against the whole volume, by the halo [ppm]
processes  whether `infer` gives the same bits in two processes
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reliability"))

from float64 import error, pairs

from qsmjax.inference.learned import learned_inversion
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER, INVERSIONS
from qsmjax.io.nifti import new_volume, save_volume
from qsmjax.models.build import build
from qsmjax.models.scaling import Scaling, predict
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry
from qsmjax.simulate.procedural import random_chi

SHAPES = [(48, 48, 48), (45, 51, 33)]
HALOS = (0, 8, 16, 24)
HEAD = (48, 56, 48)
WIDE, TILE = (80, 96, 80), 40
"""A head that no tile with its halos holds."""


def fft() -> None:
    """Print a line a path."""
    for shape in SHAPES:
        print(
            f"shape {shape}:", ", ".join(f"{name} {error(ours(), theirs()):.1e}" for name, ours, theirs in pairs(shape))
        )


def head(shape: tuple[int, int, int] = HEAD) -> tuple[np.ndarray, FieldMap]:
    """Draw a head with noise of 1 ppb."""
    chi, mask = (np.asarray(a) for a in random_chi(jax.random.key(0), shape))
    grid = geometry(shape, (1.0, 1.0, 1.0), (0.0, 0.3, 0.95))
    chi = np.where(mask, chi, 0)
    field = np.asarray(forward_field(chi, grid)) + 1e-3 * np.random.default_rng(0).normal(size=shape)
    return chi, field_map(field, mask, grid, noise=1e-3)


def spread(difference: np.ndarray) -> str:
    """Say how large a difference is."""
    return f"standard deviation {difference.std():.1e}, largest {np.abs(difference).max():.1e} ppm"


def bf16() -> None:
    """Print a line a network."""
    _, local = head()
    inside = np.asarray(local.mask)
    _, _, variables, card = read_network(FOLDER / "learned.safetensors")
    nets = [build({**card["network"], "dtype": dtype}) for dtype in ("float32", "bfloat16")]
    full, half = (np.asarray(learned_inversion(net, variables, card)(local).chi)[inside] for net in nets)
    print("learned, as shipped:", spread(half - full))
    run = jax.jit(predict, static_argnums=0)
    for name in ("qsmnet", "qsmnet_plus"):
        _, _, variables, card = read_network(FOLDER / f"{name}.safetensors")
        nets = [build({**card["network"], "dtype": dtype}) for dtype in ("float32", "bfloat16")]
        parts = variables, Scaling(**card["scaling"]), local.field, local.mask
        full, half = (np.asarray(run(net, *parts))[inside] for net in nets)
        print(f"{name}, as shipped: {spread(half - full)}; map {full.std():.3f}")


def seam() -> None:
    """Print a line a halo."""
    _, local = head(WIDE)
    whole = INVERSIONS["learned"](local)
    inside = np.asarray(local.mask)
    for halo in HALOS:
        tiled = INVERSIONS["learned"](local, tile=TILE, halo=halo)
        print(f"halo {halo:2}: {spread(np.asarray(tiled.chi - whole.chi)[inside])}", flush=True)


def processes() -> None:
    """Print a line a method."""
    _, local = head()
    infer = [sys.executable, str(Path(__file__).parents[1] / "infer.py")]
    with tempfile.TemporaryDirectory() as name:
        field = Path(name) / "field.nii"
        save_volume(field, np.asarray(local.field), new_volume(np.asarray(local.field), np.eye(4)))
        for method in ("tkd", "tv", "learned"):
            made = []
            for number in (0, 1):
                out = Path(name) / f"{method}{number}.nii"
                words = [str(field), "-o", str(out), "--method", method, "--quiet", "--no-figure"]
                subprocess.run([*infer, *words], check=True)
                made.append(out.read_bytes())
            print(f"{method}: {'the same bits' if made[0] == made[1] else 'OTHER bits'} in two processes", flush=True)


def main() -> None:
    """Print what was asked for."""
    parts = {part.__name__: part for part in (fft, bf16, seam, processes)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    for name in parser.parse_args().only:
        print(f"{name}:", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
