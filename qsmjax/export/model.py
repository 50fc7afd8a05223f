"""The learned inversion as one file: field, mask, noise and the grid in, map and standard deviation out.

    x₀ = start(f),    x ← x + correctionₖ(look(x)),    std = deviation(the last spread)

The box of the mask, its frame and the padding to the network's stride are found by the graph, so any volume goes in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsmjax.export.correction import correction
from qsmjax.export.fourier import frame
from qsmjax.export.graph import BOOL, FLOAT, INT, Graph, Value
from qsmjax.export.physics import look, scan, share, start
from qsmjax.inversion.frame import MARGIN
from qsmjax.io.aside import write_aside
from qsmjax.models.correction import UNCALIBRATED, Correction
from qsmjax.numerics.kspace import fast_size

LARGEST = 2048
"""Voxels along an axis of the largest frame."""
GRID = ("x", "y", "z")
ABOUT = """Quantitative susceptibility mapping by qsmjax: local field [ppm of B0] to susceptibility [ppm].
field, mask (not zero inside), noise (standard deviation of the field [ppm]), magnitude (of any scale), the last two
zeros where they are not known: x y z in NIfTI's order, paramagnetic is positive. voxel_size: edges [mm]. b0_dir:
direction of B0 in voxel axes, of any length.
chi: the map. std: its standard deviation. start: the map of total variation that the network began with. All [ppm]."""


def learned_model(network: Correction, variables: Mapping[str, Any], card: Mapping[str, Any]) -> Any:
    """Write the whole inversion as a graph.

    Args:
      network: from `models.build`.
      variables: parameters of each stage, in the order of their names.
      card: of its weights; "calibration" as `models.correction.deviation` takes it.

    Returns:
      The ONNX model: field, mask, noise, magnitude (x, y, z), voxel_size, b0_dir (3) -> chi, std, start (x, y, z).
    """
    graph = Graph()
    field, mask, noise, magnitude = (graph.input(name, GRID) for name in ("field", "mask", "noise", "magnitude"))
    size, b0_dir = graph.input("voxel_size", (3,)), graph.input("b0_dir", (3,))
    b0_dir = _unit(graph, b0_dir)
    shape = graph.node("Shape", field, kind=INT)
    inside = graph.node("Not", graph.node("Equal", mask, 0.0, kind=BOOL))
    low, high = _box(graph, graph.cast(inside, FLOAT))
    # what is no number outside the mask must not get in
    known = [graph.where(inside, part, 0.0) for part in (field, graph.constant(1, FLOAT), noise, magnitude)]
    boxed = [graph.cut(part, low, high, range(3)) for part in known]
    extent = high - low
    full = _frame_size(graph, extent, size)
    before = (full - extent) / 2
    framing = graph.join(before, full - extent - before)
    framed = [graph.node("Pad", part, framing) for part in boxed]
    grid = frame(graph, tuple(graph.cut(full, [a], [a + 1], [0]) for a in range(3)), size, b0_dir)
    seen = scan(grid, *framed)
    plain, sharp = start(seen)
    begun, numbers = sharp, _about(graph, size, b0_dir)
    for name in sorted(variables):
        volumes = [graph.cut(part, before, before + extent, range(3)) for part in look(seen, plain, sharp)]
        features = graph.join(*[graph.node("Unsqueeze", part, graph.integers(0, 1)) for part in volumes], axis=1)
        missing = graph.node("Mod", -extent, network.stride)
        features = graph.node("Pad", features, graph.join(graph.integers(*[0] * 7), missing))
        change, spread = (
            graph.cut(graph.node("Squeeze", part, graph.integers(0, 1)), [0] * 3, extent, range(3))
            for part in correction(graph, network, variables[name], features, numbers)
        )
        change = graph.node("Pad", change, framing) * seen.mask
        allowed = share(seen, sharp, change)
        sharp, withheld = sharp + allowed * change, (1 - allowed) * change
    constant, factor = (float(number) for number in card.get("calibration", UNCALIBRATED))
    std = graph.node("Exp", factor * spread + constant)
    withheld = graph.cut(withheld, before, before + extent, range(3))
    std = graph.node("Sqrt", std * std + withheld * withheld)
    around = graph.join(low, shape - high)
    put = lambda part: (graph.node("Pad", part * boxed[1], around), GRID)
    leave = lambda part: put(graph.cut(part, before, before + extent, range(3)))
    made = {"chi": leave(sharp), "std": put(std), "start": leave(begun)}
    return graph.model(made, about=ABOUT, card={**card, "stages": len(variables)})


def save_model(path: str | Path, model: Any) -> None:
    """Write a model, whole or not at all."""
    with write_aside(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _unit(graph: Graph, b0_dir: Value) -> Value:
    return b0_dir / graph.node("Sqrt", graph.total(b0_dir * b0_dir, 0))


def _about(graph: Graph, voxel_size: Value, b: Value) -> Value:
    """Return `models.unrolled.about`, a row."""
    size = graph.node("Log", voxel_size)
    picked = lambda *axes: graph.node("Gather", b, graph.integers(*axes))
    products = 2 * (picked(0, 1, 2, 0, 0, 1) * picked(0, 1, 2, 1, 2, 2))
    return graph.node("Unsqueeze", graph.join(size, products, graph.total(size, 0) / 3), graph.integers(0))


def _box(graph: Graph, mask: Value) -> tuple[Value, Value]:
    """Return the corners of the mask's box, three integers each; of an empty mask the whole grid."""
    low, high = [], []
    for axis in range(3):
        filled = graph.node("ReduceMax", mask, graph.integers(*[a for a in range(3) if a != axis]), keepdims=0)
        low.append(graph.node("ArgMax", filled, axis=0, kind=INT))
        high.append(graph.node("ArgMax", filled, axis=0, select_last_index=1, kind=INT) + 1)
    return graph.join(*low), graph.join(*high)


def _frame_size(graph: Graph, extent: Value, voxel_size: Value) -> Value:
    """Return the sizes that hold a box and its margin, as `numerics.box.frame_shape` does."""
    sizes = sorted({fast_size(n) for n in range(1, LARGEST + 1)})
    fast = np.asarray(sizes)[np.searchsorted(sizes, np.arange(LARGEST + 1))]
    # the margin of every extent is counted here, so that it is rounded alike
    margins = np.asarray([round(n * MARGIN) for n in range(LARGEST + 1)])
    count = graph.cast(extent, FLOAT)
    # a slab needs more along its short axis
    lacking = graph.node("ReduceMax", count * voxel_size, keepdims=1) / voxel_size - count
    slab = graph.cast(graph.node("Round", lacking * (2 * MARGIN)), INT)
    margin = graph.node("Max", graph.node("Gather", graph.constant(margins, INT), extent), slab)
    return graph.node("Gather", graph.constant(fast, INT), graph.node("Min", extent + margin, graph.integers(LARGEST)))
