"""The start and the look of the learned inversion as a graph: `models.unrolled`, with its constants, step for step.

Noise or magnitude of zero everywhere is one that is not known. Masks are volumes of zero and one.
"""

from typing import NamedTuple

from qsmjax.export.fourier import (
    Frame,
    backward,
    dipole,
    doubled,
    forward,
    laplacian,
    mean_over_spectrum,
    multiply,
)
from qsmjax.export.graph import BOOL, FLOAT, Graph, Value
from qsmjax.inversion.data_terms import DATA_PENALTY, LARGEST_MEAN
from qsmjax.inversion.variation import RELAXATION, SUPPORT_PENALTY
from qsmjax.inversion.weighting import BALANCE, LARGEST_WEIGHT, LEAST_INSIDE, LEAST_NOISE, SHARPENED
from qsmjax.inversion.weighting import CONE as LEVEL_CONE
from qsmjax.models.unrolled import (
    BOOST,
    CONE,
    EDGE,
    FLAT,
    OFFSET,
    REFINEMENTS,
    ROUND,
    ROUNDS,
    STRUCTURE,
    TRUST_REGION,
    UNIT,
)
from qsmjax.numerics.quantiles import BISECTIONS


class Scan(NamedTuple):
    """A field in its frame, and what is known of it.

    Attributes:
      frame: its grid.
      kernel: the dipole, once.
      field: [ppm], zero outside the mask.
      mask: zero or one.
      trust: data weights.
      level: standard deviation of the noise [ppm].
      structure: weights of the three differences, by the signal's edges.
    """

    frame: Frame
    kernel: Value
    field: Value
    mask: Value
    trust: Value
    level: Value
    structure: tuple[Value, ...]


def scan(frame: Frame, field: Value, mask: Value, noise: Value, magnitude: Value) -> Scan:
    """Weigh a field by its noise or magnitude, where one is known: `inversion.measured`."""
    graph, kernel = frame.graph, dipole(frame)
    known = graph.node("Greater", noise * mask, 0.0, kind=BOOL)
    told = graph.node("Greater", graph.total(noise * mask), 0.0, kind=BOOL)
    seen = graph.node("Greater", graph.total(magnitude * mask), 0.0, kind=BOOL)
    # no noise: not measured there
    precision = graph.where(known, 1 / graph.where(known, noise, 1.0), 0.0)
    trust = graph.where(told, precision, graph.node("Max", magnitude * mask, 0.0))
    either = graph.node("Or", told, seen)
    mean = graph.where(either, graph.total(trust) / graph.total(mask), 1.0)
    trust = graph.where(either, graph.node("Min", trust / mean, LARGEST_WEIGHT), mask)
    level = graph.where(told, 1 / mean, _noise_level(frame, kernel, field * mask, mask))
    extent = _size(graph, field, mask)
    level = graph.node("Max", graph.node("Max", level, extent * LEAST_NOISE), 1e-6)
    # the magnitude shows the edges where the noise is the same everywhere
    most = graph.node("ReduceMax", noise * mask, keepdims=1)
    least = graph.node("ReduceMin", graph.where(known, noise, most), keepdims=1)
    flat = graph.node("Not", graph.node("Greater", most, 1.001 * least, kind=BOOL))
    signal = graph.where(told, precision, magnitude)
    signal = graph.where(graph.node("And", flat, seen), magnitude, signal)
    largest = graph.node("ReduceMax", signal * mask, keepdims=1)
    signal = graph.node("Log", graph.node("Max", graph.node("Max", signal, largest * 1e-6), 1e-30))
    signal = (signal - graph.total(signal * mask) / graph.total(mask)) * mask
    structure = tuple(graph.where(either, part, 1.0) for part in _spared(frame, signal, mask, STRUCTURE, FLAT))
    return Scan(frame, kernel, field * mask, mask, trust, level, structure)


def start(scan: Scan) -> tuple[Value, Value]:
    """Invert by total variation that spares the signal's edges, and then those of the map too [ppm]."""
    weight, zero = _weight(scan), scan.field * 0.0
    plain = _minimise_variation(scan, ROUND * ROUNDS[0], weight, scan.structure, [zero] * 6)
    found = _spared(scan.frame, plain[0], scan.mask, EDGE, 1e-9)
    edges = tuple(before * now for before, now in zip(scan.structure, found))
    sharp = _minimise_variation(scan, ROUND * ROUNDS[1], weight * BOOST, edges, plain)
    return plain[0] * scan.mask, sharp[0] * scan.mask


def look(scan: Scan, plain: Value, chi: Value) -> list[Value]:
    """Return the features of a map, each a volume."""
    frame, graph, mask, trust = scan.frame, scan.frame.graph, scan.mask, scan.trust
    both = doubled(frame, scan.kernel)
    makes = lambda x: multiply(frame, x, both)
    level = scan.level
    residual = trust * _up_to_constant(scan, scan.field - makes(chi))
    back = makes(trust * residual) * mask
    step = _refine(graph, back, lambda x: makes(trust * trust * makes(x)) * mask + x * TRUST_REGION)
    narrow = scan.kernel / CONE
    cone = doubled(frame, graph.node("Exp", -(narrow * narrow)))
    return [
        graph.node("Asinh", chi / UNIT),
        (plain - chi) / UNIT,
        step / UNIT,
        multiply(frame, chi, cone) * mask / UNIT,
        multiply(frame, step, cone) * mask / UNIT,
        graph.clip(residual / level, -5.0, 5.0) / 2,
        back / level,
        (graph.node("Log", level * 1e3) + OFFSET) * mask,
    ]


def share(scan: Scan, chi: Value, change: Value) -> Value:
    """Return the part of a change that the data allow."""
    graph, mask, both = scan.frame.graph, scan.mask, doubled(scan.frame, scan.kernel)
    makes = lambda x: multiply(scan.frame, x * mask, both)
    parts = (scan.field - makes(chi), makes(change))
    rest, moved = (scan.trust * _up_to_constant(scan, part) for part in parts)
    mean = lambda a, b: graph.total(a * b) / graph.total(mask)
    square, along, before = graph.node("Max", mean(moved, moved), 1e-30), mean(rest, moved), mean(rest, rest)
    room = scan.level * (scan.level + 2 * graph.node("Sqrt", before))
    return graph.node("Min", (along + graph.node("Sqrt", along * along + square * room)) / square, 1.0)


def _up_to_constant(scan: Scan, rest: Value) -> Value:
    """Take off what is left of a field the constant that it holds: `models.unrolled`."""
    graph, heard = scan.frame.graph, scan.trust * scan.trust
    return rest - _holds_constant(scan) * graph.total(heard * rest) / graph.total(heard)


def _holds_constant(scan: Scan) -> Value:
    """Return one where the field's mean is more than the tissue's may be, else zero: `inversion.data_terms`."""
    graph = scan.frame.graph
    known = graph.cast(graph.node("Greater", scan.trust, 0.0, kind=BOOL), FLOAT)
    mean = graph.node("Abs", graph.total(scan.field * known) / graph.total(known))
    most = _size(graph, scan.field, known) * LARGEST_MEAN
    return graph.cast(graph.node("Greater", mean, most, kind=BOOL), FLOAT)


def _size(graph: Graph, field: Value, mask: Value) -> Value:
    """Return the field's standard deviation in the mask."""
    mean = graph.total(field * mask) / graph.total(mask)
    off = (field - mean) * mask
    return graph.node("Sqrt", graph.total(off * off) / graph.total(mask))


def _noise_level(frame: Frame, kernel: Value, field: Value, mask: Value) -> Value:
    """Return the noise that stands in the cone, where no chi makes a field: `inversion.weighting.noise_level`."""
    graph, narrow = frame.graph, kernel / LEVEL_CONE
    sharp, inside = field, mask
    for _ in range(SHARPENED):
        sharp = _laplacian(graph, sharp) / 12
        even = graph.node("Equal", _laplacian(graph, inside), 0.0, kind=BOOL)
        inside = inside * graph.cast(even, FLOAT)
    enough = graph.node("GreaterOrEqual", graph.total(inside), float(LEAST_INSIDE), kind=BOOL)
    inside = graph.where(enough, inside, mask)
    cone = graph.node("Exp", -(narrow * narrow))
    passed = graph.node("Abs", multiply(frame, sharp * inside, doubled(frame, cone)))
    high = laplacian(frame, (graph.constant([1.0], FLOAT),) * 3) / 12
    band = cone
    for _ in range(SHARPENED):
        band = band * high
    kernel = backward(frame, graph.join(band, band * 0.0, axis=2))
    parts, shape = forward(frame, inside), forward(frame, kernel * kernel)
    half = graph.size(parts, 2) / 2
    real, imaginary = graph.cut(parts, [0], half, [2]), graph.cut(parts, half, graph.size(parts, 2), [2])
    overlap = (real * real + imaginary * imaginary) * graph.cut(shape, [0], half, [2])
    variance = mean_over_spectrum(frame, overlap) / graph.total(inside)
    gain = graph.node("Sqrt", graph.node("Max", variance, 1e-12))
    wanted = graph.total(inside) / 2

    def halve(low, high):
        middle = (low + high) / 2
        below = graph.cast(graph.node("LessOrEqual", passed, middle, kind=BOOL), FLOAT)
        enough = graph.node("GreaterOrEqual", graph.total(below * inside), wanted, kind=BOOL)
        return [graph.where(enough, low, middle), graph.where(enough, middle, high)]

    largest = graph.node("ReduceMax", passed * inside, keepdims=1)
    return graph.repeat(BISECTIONS, halve, [largest * 0.0, largest])[1] / (0.6745 * gain)


def _spared(frame: Frame, volume: Value, mask: Value, level: float, least: float) -> tuple[Value, ...]:
    """Weigh each difference by how flat the volume is there, over its mean slope; below the least there is none."""
    graph = frame.graph
    steep = [graph.node("Abs", _step(graph, volume, axis)) / frame.voxel_size[axis] for axis in range(3)]
    mean = graph.total((steep[0] + steep[1] + steep[2]) * mask) / graph.total(mask)
    half = mean * (level / 3) + least
    return tuple(half / (part + half) for part in steep)


def _weight(scan: Scan) -> Value:
    """Return the weight that the noise asks for: `inversion.weighting.auto_weight`."""
    frame, graph, level = scan.frame, scan.frame.graph, scan.level
    gradient = laplacian(frame, frame.voxel_size)
    there = graph.node("Greater", gradient, 0.0, kind=BOOL)
    dual = graph.where(there, scan.kernel * scan.kernel / graph.where(there, gradient, 1.0), 0.0) / 3
    size = _size(graph, scan.field, scan.mask)
    total = size * size
    signal = graph.node("Sqrt", graph.node("Max", total - level * level, total * 0.01))
    ratio = level / graph.node("Max", signal, 1e-12)
    return level * BALANCE * graph.node("Sqrt", ratio * mean_over_spectrum(frame, dual))


def _minimise_variation(scan: Scan, count: int, weight: Value, edges: tuple, state: list[Value]) -> list[Value]:
    """Iterate `inversion.variation` on the map, the data split, three of the gradient and the support's."""
    frame, graph, size, mask = scan.frame, scan.frame.graph, scan.frame.voxel_size, scan.mask
    clip = graph.node("Max", _size(graph, scan.field, mask), 1e-12)
    penalty = weight / clip
    even = graph.total((edges[0] + edges[1] + edges[2]) * mask) / graph.total(mask) / 3
    clips = [clip * edge / even for edge in edges]
    squared = scan.trust * scan.trust
    pull = squared / (squared + DATA_PENALTY)
    whole, free = graph.total(pull), _holds_constant(scan)
    kernel = doubled(frame, scan.kernel)
    inverse = 1 / (
        kernel * kernel * DATA_PENALTY + doubled(frame, laplacian(frame, frame.voxel_size)) * penalty + SUPPORT_PENALTY
    )
    sign = (mask * 2 - 1) * SUPPORT_PENALTY

    def step(_, data, x, y, z, support):
        asked = pull * (scan.field - data)
        made = data + asked - pull * (free * graph.total(asked) / whole)
        held = [graph.clip(s, -c, c) for s, c in zip((x, y, z), clips)]
        parts = [_step_back(graph, s - 2 * h, axis) / size[axis] for axis, (s, h) in enumerate(zip((x, y, z), held))]
        image = penalty * (parts[0] + parts[1] + parts[2]) + sign * support
        right = kernel * forward(frame, DATA_PENALTY * (2 * made - data)) + forward(frame, image)
        chi_k = inverse * right
        chi, makes = backward(frame, chi_k), backward(frame, kernel * chi_k)
        pushed = [
            s + RELAXATION * (_step(graph, chi, axis) / size[axis] - s + h)
            for axis, (s, h) in enumerate(zip((x, y, z), held))
        ]
        return [chi, data + RELAXATION * (makes - made), *pushed, support + RELAXATION * (chi - mask * support)]

    return graph.repeat(count, step, state)


def _refine(graph: Graph, right: Value, operate) -> Value:
    """Take a few steps of conjugate gradients from zero."""
    product = lambda a, b: graph.node("Max", graph.total(a * b), 1e-30)
    solved, residual, way, square = right * 0.0, right, right, product(right, right)
    for _ in range(REFINEMENTS):
        pushed = operate(way)
        length = square / product(way, pushed)
        solved, residual = solved + length * way, residual - length * pushed
        before, square = square, product(residual, residual)
        way = residual + square / before * way
    return solved


def _laplacian(graph: Graph, volume: Value) -> Value:
    """Take the seven-point Laplacian of a periodic volume [per voxel], as `numerics.operators` does."""
    parts = [_step_back(graph, _step(graph, volume, axis), axis) for axis in range(3)]
    return -(parts[0] + parts[1] + parts[2])


def _step(graph: Graph, volume: Value, axis: int) -> Value:
    """Take the forward difference along an axis of a periodic volume [per voxel]."""
    last = graph.size(volume, axis)
    return graph.join(graph.cut(volume, [1], last, [axis]), graph.cut(volume, [0], [1], [axis]), axis=axis) - volume


def _step_back(graph: Graph, volume: Value, axis: int) -> Value:
    """Take minus the backward difference: the adjoint of `_step`."""
    last = graph.size(volume, axis)
    rest = graph.cut(volume, [0], last - 1, [axis])
    return graph.join(graph.cut(volume, last - 1, last, [axis]), rest, axis=axis) - volume
