"""The correction's U-Net as a graph, out of its parameters, whatever its widths and depth, in float32.

Folding by two and a convolution are one convolution of stride two; a product over channels and unfolding are one
transposed convolution. So every layer is an operator that all runtimes have, and no size stands in the graph.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from qsmjax.export.graph import BOOL, FLOAT, Graph, Value
from qsmjax.models.correction import SIZES, Correction, check_params
from qsmjax.models.unrolled import FEATURES, OFFSET, UNIT

EPSILON = 1e-6
"""In the normalisation, as Flax has it."""


class Layers:
    """Parameters handed out kind by kind, in the order in which the network calls its layers."""

    def __init__(self, network: Correction, params: Mapping[str, Any]):
        check_params(network, params)
        self.params = params
        self.counts: dict[str, Any] = {}

    def next(self, kind: str) -> dict[str, np.ndarray]:
        """Return the next layer of a kind."""
        number = next(self.counts.setdefault(kind, itertools.count()))
        return {key: np.asarray(array, np.float32) for key, array in self.params[f"{kind}_{number}"].items()}


def correction(
    graph: Graph, network: Correction, params: Mapping[str, Any], features: Value, numbers: Value
) -> tuple[Value, Value]:
    """Correct a map.

    Args:
      graph: to add to.
      network: its attributes say its shape.
      params: its parameters, of one stage.
      features: (1, f, x, y, z), sizes multiples of the stride.
      numbers: `about` of the geometry, (1, 10).

    Returns:
      The change [ppm] and the logarithm of the standard deviation [log ppm], (1, 1, x, y, z).

    Raises:
      ValueError: if the parameters are not that network's.
    """
    layers = Layers(network, params)
    chi = UNIT * graph.node("Sinh", graph.cut(features, [0], [1], [1]))
    maps, kept = _folded(graph, layers.next("Conv3d"), _levelled(graph, features)), []
    for level, _ in enumerate(network.width):
        if level:
            maps = _folded(graph, layers.next("Conv3d"), maps)
        maps = _blocks(graph, network, layers, maps, numbers)
        kept.append(maps)
    for level in reversed(range(len(network.width) - 1)):
        raised = _unfolded(graph, layers.next("Conv3d"), maps)
        maps = _blocks(graph, network, layers, kept[level] + raised, numbers)
    maps = graph.node("Relu", _normalised(graph, layers.next("LayerNorm"), maps))
    change = _unfolded(graph, layers.next("_Zero"), maps)
    seen = graph.node("Relu", _convolved(graph, layers.next("Dense"), maps))
    spread = _unfolded(graph, layers.next("_Zero"), seen)
    far = chi / (4 * UNIT)
    scale = 0.2 * UNIT * graph.node("Sqrt", 1 + far * far)
    return scale * change, graph.node("Log", scale) + 4 * graph.node("Tanh", spread / 4)


def _levelled(graph: Graph, features: Value) -> Value:
    """Bring what was looked at to the same size: `models.correction.levelled`."""
    last = graph.cut(features, [FEATURES - 1], [FEATURES], [1])
    inside = graph.cast(graph.node("Greater", last, 0.0, kind=BOOL), FLOAT)
    others = graph.cut(features, [0], [FEATURES - 1], [1])
    sizes = graph.constant(np.reshape(SIZES, (1, FEATURES, 1, 1, 1)), FLOAT)
    parts = graph.join(others, last - OFFSET * inside, axis=1) / sizes
    return graph.join(graph.node("Asinh", parts), inside, axis=1)


def _blocks(graph: Graph, network: Correction, layers: Layers, maps: Value, numbers: Value) -> Value:
    for _ in range(network.blocks):
        dense = layers.next("Dense")
        told = graph.node("Unsqueeze", numbers @ dense["kernel"] + dense["bias"], graph.integers(2, 3, 4))
        inner = _convolved(graph, layers.next("Conv3d"), graph.node("Relu", maps + told))
        inner = _normalised(graph, layers.next("LayerNorm"), inner)
        maps = maps + _convolved(graph, layers.next("Conv3d"), graph.node("Relu", inner))
    return maps


def _convolved(graph: Graph, layer: dict[str, np.ndarray], maps: Value) -> Value:
    """Convolve; a kernel of two axes is a product over channels."""
    kernel = layer["kernel"]
    kernel = kernel.reshape(*(1,) * (5 - kernel.ndim), *kernel.shape)
    pads = [n // 2 for n in kernel.shape[:3]] * 2
    return graph.node("Conv", maps, kernel.transpose(4, 3, 0, 1, 2), layer["bias"], pads=pads)


def _folded(graph: Graph, layer: dict[str, np.ndarray], maps: Value) -> Value:
    """Fold by two and convolve: a kernel of n voxels over blocks is one of 2n over voxels."""
    size, channels, features = layer["kernel"].shape[0], layer["kernel"].shape[3] // 8, layer["kernel"].shape[4]
    kernel = layer["kernel"].reshape(size, size, size, 2, 2, 2, channels, features)
    kernel = kernel.transpose(7, 6, 0, 3, 1, 4, 2, 5).reshape(features, channels, 2 * size, 2 * size, 2 * size)
    return graph.node("Conv", maps, kernel, layer["bias"], strides=[2, 2, 2], pads=[size - 1] * 6)


def _unfolded(graph: Graph, layer: dict[str, np.ndarray], maps: Value) -> Value:
    """Multiply over channels and unfold by two; the bias differs within a block, so it is a channel of ones."""
    kernel = layer["kernel"].reshape(-1, layer["kernel"].shape[-1])
    kernel = np.concatenate([kernel, layer["bias"][None]])
    kernel = kernel.reshape(len(kernel), 2, 2, 2, -1).transpose(0, 4, 1, 2, 3)
    ones = 0.0 * graph.cut(maps, [0], [1], [1]) + 1.0
    return graph.node("ConvTranspose", graph.join(maps, ones, axis=1), kernel, strides=[2, 2, 2])


def _normalised(graph: Graph, layer: dict[str, np.ndarray], maps: Value) -> Value:
    """Bring each voxel's channels to mean zero and deviation one, then scale and shift them."""
    mean = lambda value: graph.total(value, 1) / len(layer["scale"])
    off = maps - mean(maps)
    scale, bias = (layer[name][:, None, None, None] for name in ("scale", "bias"))
    return off / graph.node("Sqrt", mean(off * off) + EPSILON) * scale + bias
