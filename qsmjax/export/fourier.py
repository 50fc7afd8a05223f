"""k-space of a frame whose size is known only when the graph runs: transforms, dipole, Laplacian.

    F_jk = exp(-2πi jk/n), a matrix along each axis

A transform is a matrix product, which every runtime has and does fast, and which is exact to rounding at any size:
onnxruntime's DFT is a hundred times less exact at sizes that are no power of two, and slower (benchmarks/export.py).
A spectrum is the half that real volumes need, real and imaginary part behind one another on the last axis:
(x, y, 2 (z//2 + 1)). Kernels, which are real, are doubled alike.
"""

import math
from typing import NamedTuple

from qsmjax.export.graph import BOOL, FLOAT, INT, Graph, Value


class Frame(NamedTuple):
    """The grid and its transforms.

    Attributes:
      graph: that all stands in.
      shape: voxels along x, y, z, each a row of one.
      voxel_size: edges of a voxel [mm], each a row of one.
      b0_dir: direction of B0, each a row of one.
      x, y: cosine and sine matrices.
      forth, back: along z, from values to both parts of the half spectrum, and from there to values.
      pairs: how many points of the full spectrum each of the half along z stands for.
    """

    graph: Graph
    shape: tuple[Value, ...]
    voxel_size: tuple[Value, ...]
    b0_dir: tuple[Value, ...]
    x: tuple[Value, Value]
    y: tuple[Value, Value]
    forth: Value
    back: Value
    pairs: Value


def frame(graph: Graph, shape: tuple[Value, ...], voxel_size: Value, b0_dir: Value) -> Frame:
    """Make the transforms of a shape."""
    split = lambda row: tuple(graph.cut(row, [axis], [axis + 1], [0]) for axis in range(3))
    half = shape[2] / 2 + 1
    cosine, sine = _waves(graph, shape[2], half)
    at = _count(graph, half)
    alone = graph.node("Or", graph.node("Equal", at, 0, kind=BOOL), graph.node("Equal", at * 2, shape[2], kind=BOOL))
    pairs = graph.where(alone, graph.constant(1, FLOAT), 2)
    back = graph.join(cosine * pairs, -sine * pairs, axis=1)
    number = graph.cast(shape[0] * shape[1] * shape[2], FLOAT)
    return Frame(
        graph,
        shape,
        split(voxel_size),
        split(b0_dir),
        _waves(graph, shape[0], shape[0]),
        _waves(graph, shape[1], shape[1]),
        forth=graph.join(cosine, -sine, axis=1),
        back=graph.node("Transpose", back, perm=[1, 0]) / number,
        pairs=pairs,
    )


def forward(frame: Frame, volume: Value) -> Value:
    """Transform a real volume."""
    return _along_xy(frame, volume @ frame.forth, 1)


def backward(frame: Frame, spectrum: Value) -> Value:
    """Transform back to a real volume."""
    return _along_xy(frame, spectrum, -1) @ frame.back


def multiply(frame: Frame, volume: Value, kernel: Value) -> Value:
    """Convolve by a product in k-space, periodically."""
    return backward(frame, kernel * forward(frame, volume))


def doubled(frame: Frame, kernel: Value) -> Value:
    """Lay a kernel out for both parts of a spectrum."""
    return frame.graph.join(kernel, kernel, axis=2)


def mean_over_spectrum(frame: Frame, kernel: Value) -> Value:
    """Return the mean over the full spectrum of what is given on half of it (not doubled)."""
    x, y, z = (frame.graph.cast(n, FLOAT) for n in frame.shape)
    return frame.graph.total(kernel * frame.pairs) / (x * y * z)


def dipole(frame: Frame) -> Value:
    """Sample the dipole on the half spectrum, as `inversion.frame.inversion_kernel` does."""
    graph = frame.graph
    k = _frequencies(frame, frame.voxel_size)
    parts = [a * b for a, b in zip(k, frame.b0_dir)]
    ends = [graph.node("Equal", _count(graph, n) * 2, n, kind=BOOL) for n in frame.shape]
    ends = [_spread(graph, end, axis) for axis, end in enumerate(ends)]
    ends[2] = graph.cut(ends[2], [0], frame.shape[2] / 2 + 1, [2])
    inner = [graph.where(end, 0.0, part) for end, part in zip(ends, parts)]
    outer = [graph.where(end, part, 0.0) for end, part in zip(ends, parts)]
    along = inner[0] + inner[1] + inner[2]
    squared = along * along + outer[0] * outer[0] + outer[1] * outer[1] + outer[2] * outer[2]
    radius = k[0] * k[0] + k[1] * k[1] + k[2] * k[2]
    there = graph.node("Greater", radius, 0.0, kind=BOOL)
    return graph.where(there, 1 / 3 - squared / graph.where(there, radius, 1.0), 0.0)


def laplacian(frame: Frame, voxel_size: tuple[Value, ...]) -> Value:
    """Return the symbol of -div grad on the half spectrum, for voxels of some size."""
    parts = []
    for k, size in zip(_frequencies(frame, voxel_size), voxel_size):
        parts.append((2 - 2 * frame.graph.node("Cos", k * size * (2 * math.pi))) / (size * size))
    return parts[0] + parts[1] + parts[2]


def _frequencies(frame: Frame, voxel_size: tuple[Value, ...]) -> list[Value]:
    """Return the frequencies along each axis [cycles/mm]; Nyquist is negative."""
    graph, k = frame.graph, []
    for axis, (n, size) in enumerate(zip(frame.shape, voxel_size)):
        at = _count(graph, n)
        at = graph.where(graph.node("Less", at, (n + 1) / 2, kind=BOOL), at, at - n)
        k.append(_spread(graph, graph.cast(at, FLOAT) / graph.cast(n, FLOAT) / size, axis))
    k[2] = graph.cut(k[2], [0], frame.shape[2] / 2 + 1, [2])
    return k


def _along_xy(frame: Frame, spectrum: Value, sign: int) -> Value:
    graph = frame.graph
    spectrum = _turned(graph, frame.y[0] @ spectrum, frame.y[1] @ spectrum, sign)
    shape = graph.node("Shape", spectrum, kind=INT)
    rows = graph.node("Reshape", spectrum, graph.join(frame.shape[0], graph.integers(-1)))
    cosine, sine = (graph.node("Reshape", waves @ rows, shape) for waves in frame.x)
    return _turned(graph, cosine, sine, sign)


def _turned(graph: Graph, cosine: Value, sine: Value, sign: int) -> Value:
    """Return (C ∓ iS) a of the products C a and S a, both parts of each behind one another."""
    half = graph.size(sine, 2) / 2
    real, imaginary = graph.cut(sine, [0], half, [2]), graph.cut(sine, half, graph.size(sine, 2), [2])
    turned = (imaginary, -real) if sign > 0 else (-imaginary, real)
    return cosine + graph.join(*turned, axis=2)


def _waves(graph: Graph, n: Value, columns: Value) -> tuple[Value, Value]:
    """Return cos and sin of 2π jk/n, jk brought below n in integers so that the angle is exact."""
    rows = graph.node("Unsqueeze", _count(graph, n), graph.integers(1))
    angle = graph.cast(graph.node("Mod", rows * _count(graph, columns), n), FLOAT) / graph.cast(n, FLOAT)
    angle = angle * (2 * math.pi)
    return graph.node("Cos", angle), graph.node("Sin", angle)


def _count(graph: Graph, n: Value) -> Value:
    """Return 0, 1, ... n-1."""
    scalar = graph.node("Squeeze", n)
    return graph.node("Range", graph.constant(0, INT), scalar, graph.constant(1, INT))


def _spread(graph: Graph, row: Value, axis: int) -> Value:
    return graph.node("Unsqueeze", row, graph.integers(*[other for other in range(3) if other != axis]))
