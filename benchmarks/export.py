"""The exported graph in onnxruntime beside the inversion itself: how far apart, seconds; and its transforms.

python benchmarks/export.py                      on the example
python benchmarks/export.py FIELD.nii.gz ...     on local fields [ppm], zero outside the mask
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import onnxruntime

from qsmjax.export.fourier import forward, frame
from qsmjax.export.graph import INT, Graph
from qsmjax.export.model import learned_model
from qsmjax.inference.learned import learned_inversion
from qsmjax.inference.network import read_network
from qsmjax.inference.shipped import FOLDER
from qsmjax.io.nifti import load_volume
from qsmjax.physics.dipole import forward_field
from qsmjax.physics.field_map import FieldMap, field_map
from qsmjax.physics.geometry import geometry, geometry_from_affine

EXAMPLE = Path(__file__).parents[1] / "examples" / "field.nii.gz"


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="*", type=Path, default=[EXAMPLE], metavar="FIELD")
    parser.add_argument("--size", type=int, nargs=3)
    args = parser.parse_args()
    _, network, variables, card = read_network(FOLDER / "learned.safetensors")
    invert, model = learned_inversion(network, variables, card), learned_model(network, variables, card)
    ran = session(model)
    print(f"{len(model.SerializeToString()) / 1e6:.1f} MB, {len(model.graph.node)} nodes")
    for name, scan in {"ellipsoid": ellipsoid(args.size)}.items() if args.size else map(read, args.fields):
        grid, shape = scan.geometry, scan.geometry.shape
        given = {key: np.asarray(getattr(scan, key), np.float32) for key in ("field", "mask")}
        given |= dict.fromkeys(("noise", "magnitude"), np.zeros(shape, np.float32))
        given |= {key: np.asarray(getattr(grid, key), np.float32) for key in ("voxel_size", "b0_dir")}
        invert(scan, bootstrap=False)  # compiled; the file has no rehearsal either
        ours, wall, cpu = timed(lambda scan: jax.block_until_ready(invert(scan, bootstrap=False)), scan)
        (chi, std, start), wall_onnx, cpu_onnx = timed(ran.run, ["chi", "std", "start"], given)
        off, span = np.abs(chi - ours.chi).max(), np.ptp(chi)
        print(
            f"{name} {shape}: off by {off:.1e} ppm, {off / span:.1e} of the map's range, "
            f"{off / np.ptp(chi - start):.1e} of the change's; std {np.abs(std - ours.std).max() / np.ptp(std):.1e}"
        )
        print(f"  onnxruntime {wall_onnx:.1f} s ({cpu_onnx:.1f} s of CPU), jax {wall:.1f} s ({cpu:.1f})")
    for size in () if args.size else (96, 128, 160):
        compare_transforms(size)


def read(path: Path) -> tuple[str, FieldMap]:
    """Read a field map and its name."""
    volume = load_volume(path)
    return path.name, field_map(volume.data, volume.data != 0, geometry_from_affine(volume.affine, volume.shape))


def ellipsoid(shape: tuple[int, int, int]) -> FieldMap:
    """Make the field of waves of susceptibility in an ellipsoid that fills its grid, with noise."""
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    grid, mask = geometry(shape, (1, 1, 1), (0, 0.3, 0.95)), (at**2).sum(axis=0) <= 1
    field = forward_field(0.1 * mask * np.sin(9 * at).prod(axis=0), grid)
    return field_map(field + 1e-3 * np.random.default_rng(0).normal(size=shape), mask, grid)


def compare_transforms(size: int) -> None:
    """Print the error and the seconds of the graph's transform, and of the operator DFT."""
    volume = np.random.default_rng(0).normal(size=(size,) * 3).astype(np.float32)
    exact = np.fft.rfftn(volume.astype(np.float64))
    graph = Graph()
    given = graph.input("volume", "xyz")
    shape = graph.node("Shape", given, kind=INT)
    axes = [graph.cut(shape, [axis], [axis + 1], [0]) for axis in range(3)]
    ones = graph.input("ones", (3,))
    made = forward(frame(graph, (axes[0], axes[1], axes[2]), ones, ones), given)
    dft = Graph()
    maps = dft.node("Unsqueeze", dft.input("volume", "xyz"), dft.integers(0, 4))
    maps = dft.node("DFT", maps, axis=3, onesided=1)
    for axis in (2, 1):
        maps = dft.node("DFT", maps, axis=axis)
    parts = {"matrices": session(graph.model({"k": (made, "abc")}, about="", card={})),
             "DFT": session(dft.model({"k": (maps, "vabcd")}, about="", card={}))}  # fmt: skip
    for name, ran in parts.items():
        inputs = {"volume": volume} | ({"ones": np.ones(3, np.float32)} if name == "matrices" else {})
        ran.run(None, inputs)
        (k,), wall, cpu = timed(ran.run, None, inputs)
        half = size // 2 + 1
        k = k[..., :half] + 1j * k[..., half:] if name == "matrices" else k[0, ..., 0] + 1j * k[0, ..., 1]
        error = np.abs(k - exact).max() / np.abs(exact).max()
        print(f"transform of {size}³ by {name}: error {error:.1e}, {wall:.2f} s ({cpu:.2f} s of CPU)")


def session(model):
    """Load a model into onnxruntime."""
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def timed(call, *words):
    """Return a call's result, its seconds and those of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call(*words)
    return result, time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
