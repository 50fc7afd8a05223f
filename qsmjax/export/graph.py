"""A graph in ONNX, written as arithmetic: `a * b + 1` adds two nodes and returns the value that they make.

Numbers and arrays beside a value become constants of its type. Only operators that every runtime has are used.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 8
"""Of 2022: runtimes that were released since know them."""
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
NUMPY: dict[int, Any] = {FLOAT: np.float32, INT: np.int64, BOOL: np.bool_}


class Value:
    """What a node makes; arithmetic with it adds nodes."""

    def __init__(self, graph: "Graph", name: str, kind: int):
        self.graph, self.name, self.kind = graph, name, kind

    def __add__(self, other: Any) -> "Value":
        return self.graph.node("Add", self, other)

    def __sub__(self, other: Any) -> "Value":
        return self.graph.node("Sub", self, other)

    def __mul__(self, other: Any) -> "Value":
        return self.graph.node("Mul", self, other)

    def __truediv__(self, other: Any) -> "Value":
        return self.graph.node("Div", self, other)

    def __matmul__(self, other: Any) -> "Value":
        return self.graph.node("MatMul", self, other)

    def __neg__(self) -> "Value":
        return self.graph.node("Neg", self)

    def __radd__(self, other: Any) -> "Value":
        return self.graph.node("Add", other, self)

    def __rsub__(self, other: Any) -> "Value":
        return self.graph.node("Sub", other, self)

    def __rmul__(self, other: Any) -> "Value":
        return self.graph.node("Mul", other, self)

    def __rtruediv__(self, other: Any) -> "Value":
        return self.graph.node("Div", other, self)


class Graph:
    """Nodes and constants in the order in which they were made."""

    def __init__(self) -> None:
        self.constants: dict[tuple, Any] = {}
        self.inputs: list[Any] = []
        self.scopes: list[list[Any]] = [[]]
        self.made = 0

    def input(self, name: str, shape: Sequence[int | str]) -> Value:
        """Add an input of floats; an axis that is named is of any length."""
        self.inputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
        return Value(self, name, FLOAT)

    def constant(self, array: Any, kind: int) -> Value:
        """Add a constant, once."""
        value: NDArray[Any] = np.asarray(array, NUMPY[kind])
        key = (kind, value.shape, value.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, f"c{len(self.constants)}")
        return Value(self, self.constants[key].name, kind)

    def integers(self, *values: int) -> Value:
        """Add a row of integers: axes, sizes."""
        return self.constant(values, INT)

    def node(self, operator: str, *inputs: Any, kind: int | None = None, **attributes: Any) -> Value:
        """Add a node with one output.

        Args:
          operator: of ONNX.
          inputs: values, or numbers and arrays of the first value's type; None leaves one out.
          kind: type of the output; by default the first value's.
          attributes: the operator's.
        """
        first = next(value for value in inputs if isinstance(value, Value))
        given = [value if value is None or isinstance(value, Value) else self.constant(value, first.kind)
                 for value in inputs]  # fmt: skip
        self.made += 1
        name = f"v{self.made}"
        names = ["" if value is None else value.name for value in given]
        self.scopes[-1].append(helper.make_node(operator, names, [name], **attributes))
        return Value(self, name, first.kind if kind is None else kind)

    def join(self, *values: Value, axis: int = 0) -> Value:
        """Put values behind one another."""
        return self.node("Concat", *values, axis=axis)

    def cut(self, value: Value, start: Any, stop: Any, axes: Sequence[int]) -> Value:
        """Cut along axes; where to is integers or values of them."""
        start, stop = (at if isinstance(at, Value) else self.integers(*at) for at in (start, stop))
        return self.node("Slice", value, start, stop, self.integers(*axes))

    def size(self, value: Value, axis: int) -> Value:
        """Return the length of an axis, as a row of one."""
        return self.cut(self.node("Shape", value, kind=INT), [axis], [axis + 1], [0])

    def total(self, value: Value, *axes: int) -> Value:
        """Sum over axes, by default the last three, which are kept; one by one, or rounding adds up in a head."""
        for axis in axes or (-1, -2, -3):
            value = self.node("ReduceSum", value, self.integers(axis), keepdims=1)
        return value

    def where(self, condition: Value, value: Any, other: Any) -> Value:
        """Choose, value by value."""
        kind = next(v.kind for v in (value, other) if isinstance(v, Value))
        parts = [v if isinstance(v, Value) else self.constant(v, kind) for v in (value, other)]
        return self.node("Where", condition, *parts, kind=kind)

    def clip(self, value: Value, low: Any, high: Any) -> Value:
        """Keep within bounds, which may be volumes."""
        return self.node("Min", self.node("Max", value, low), high)

    def cast(self, value: Value, kind: int) -> Value:
        """Change the type."""
        return self.node("Cast", value, kind=kind, to=kind)

    def repeat(self, count: int, step: Callable[..., Sequence[Value]], state: Sequence[Value]) -> list[Value]:
        """Repeat state ← step(*state); the step may use any value made before."""
        self.made += 1
        stem = f"loop{self.made}"
        info = lambda name, kind, shape=None: helper.make_tensor_value_info(name, kind, shape)
        inner = [Value(self, f"{stem}_in{i}", value.kind) for i, value in enumerate(state)]
        self.scopes.append([])
        made = [self.node("Identity", value) for value in step(*inner)]
        going = Value(self, f"{stem}_going", BOOL)
        kept = self.node("Identity", going)
        body = helper.make_graph(
            self.scopes.pop(),
            stem,
            [info(f"{stem}_count", INT, []), info(going.name, BOOL, []), *[info(v.name, v.kind) for v in inner]],
            [info(kept.name, BOOL, []), *[info(v.name, v.kind) for v in made]],
        )
        names = [f"{stem}_out{i}" for i in range(len(state))]
        given = [self.constant(count, INT).name, self.constant(True, BOOL).name, *[v.name for v in state]]
        self.scopes[-1].append(helper.make_node("Loop", given, names, body=body))
        return [Value(self, name, value.kind) for name, value in zip(names, state)]

    def model(
        self, outputs: Mapping[str, tuple[Value, Sequence[int | str]]], *, about: str, card: Mapping[str, Any]
    ) -> Any:
        """Close the graph.

        Args:
          outputs: by name, each with the names of its axes.
          about: what it is, for those who open it.
          card: what the file carries, as JSON by name.

        Returns:
          The model, checked.
        """
        last = [helper.make_node("Identity", [value.name], [name]) for name, (value, _) in outputs.items()]
        infos = [helper.make_tensor_value_info(name, FLOAT, axes) for name, (_, axes) in outputs.items()]
        graph = helper.make_graph(
            [*self.scopes[0], *last], "qsmjax", self.inputs, infos, list(self.constants.values()), doc_string=about
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="qsmjax",
            doc_string=about,
        )
        helper.set_model_props(model, {name: json.dumps(value) for name, value in card.items()})
        onnx.checker.check_model(model)
        return model
