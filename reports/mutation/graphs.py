"""ONNX graphs that are read and changed: what makes a value, what reads it, and other operators in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BOOL, FLOAT, HALF, INT32, INT64 = (
    TensorProto.BOOL,
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
)
# Opsets below it take axes as attributes.
_AXES_AS_INPUTS = 13


class Graph:
    """A model that is read, and that may be changed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.proto = model, model.graph
        self.opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        self.tensors = {tensor.name: tensor for tensor in self.proto.initializer}
        self.inputs = {value.name: value for value in self.proto.input}
        self.outputs = {value.name: value for value in self.proto.output}

    def copy(self) -> Graph:
        """The same once more, to be changed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model)

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        """The nodes of these operators, all without any."""
        return [node for node in self.proto.node if not operators or node.op_type in operators]

    def node(self, name: str) -> onnx.NodeProto:
        """The node of that name."""
        return next(node for node in self.proto.node if node.name == name)

    def producer(self, value: str) -> onnx.NodeProto | None:
        """The node that makes a value."""
        return next((node for node in self.proto.node if value in node.output), None)

    def readers(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.proto.node if value in node.input]

    def array(self, value: str) -> np.ndarray | None:
        """The values of an initializer or constant; None for what is computed."""
        if value in self.tensors:
            return numpy_helper.to_array(self.tensors[value])
        node = self.producer(value)
        if node is None or node.op_type != "Constant":
            return None
        return numpy_helper.to_array(node.attribute[0].t) if node.attribute[0].name == "value" else None

    def set_array(self, value: str, array: np.ndarray) -> None:
        """Give an initializer or constant other values."""
        if value in self.tensors:
            self.tensors[value].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), value))
            return
        node = self.producer(value)
        assert node is not None
        node.attribute[0].t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), node.attribute[0].t.name))

    def constants(self) -> Iterator[str]:
        """The names of the constants that are nodes."""
        yield from (node.output[0] for node in self.nodes("Constant"))

    def axis(self, name: str) -> tuple[str, int] | None:
        """An input and its axis of that name."""
        for value in self.proto.input:
            for place, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_param == name:
                    return value.name, place
        return None

    def replace(self, value: str, build: Callable[[Builder, str], str]) -> None:
        """Put what `build` makes of a value in its place, for all that read it.

        Args:
            build: gets a builder and the name of the value; returns the name of the result.
        """
        builder = Builder(self.opset, prefix=f"mutant.{re.sub('[^A-Za-z0-9]', '.', value)}")
        producer = self.producer(value)
        if producer is None:
            readers = self.readers(value)
            result = build(builder, value)
            for node in readers:
                node.input[:] = [result if name == value else name for name in node.input]
            place = 0
        else:
            own = f"{value}.own"
            producer.output[:] = [own if name == value else name for name in producer.output]
            result = build(builder, own)
            builder.nodes.append(helper.make_node("Identity", [result], [value]))
            # After all nodes that it may read, which stand before those that read it.
            place = list(self.proto.node).index(producer) + 1
        for node in reversed(builder.nodes):
            self.proto.node.insert(place, node)

    def sort(self) -> None:
        """Put the nodes into an order in which each comes after those that it reads."""
        ready = {*self.tensors, *self.inputs, ""}
        rest, ordered = list(self.proto.node), []
        while rest:
            later = []
            for node in rest:
                if {*node.input} <= ready:
                    ordered.append(node)
                    ready |= {*node.output}
                else:
                    later.append(node)
            if len(later) == len(rest):
                raise ValueError("the nodes go in a circle")
            rest = later
        copies = []
        for node in ordered:
            copies.append(onnx.NodeProto())
            copies[-1].CopyFrom(node)
        del self.proto.node[:]
        self.proto.node.extend(copies)


class Builder:
    """Nodes that are made one after the other; each method returns the name of a value."""

    def __init__(self, opset: int, prefix: str) -> None:
        self.opset, self.prefix = opset, prefix
        self.nodes: list[onnx.NodeProto] = []

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """One node with one output."""
        name = f"{self.prefix}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, value: Any, dtype: type = np.int64) -> str:
        """A constant."""
        return self.op("Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def number(self, value: float) -> str:
        """A scalar in float32."""
        return self.const(value, np.float32)

    def size(self, value: str, axis: int) -> str:
        """The size of an axis, a scalar."""
        return self.op("Gather", self.op("Shape", value), self.const(axis), axis=0)

    def steps(self, size: str) -> str:
        """0, 1, … below a size."""
        return self.op("Range", self.const(0), size, self.const(1))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """The value with axes of size 1 in these places of the result."""
        if self.opset < _AXES_AS_INPUTS:
            return self.op("Unsqueeze", value, axes=list(axes))
        return self.op("Unsqueeze", value, self.const(list(axes)))

    def sum(self, value: str, *axes: int, keep: bool = True) -> str:
        """The sum over these axes."""
        if self.opset < _AXES_AS_INPUTS:
            return self.op("ReduceSum", value, axes=list(axes), keepdims=int(keep))
        return self.op("ReduceSum", value, self.const(list(axes)), keepdims=int(keep))

    def mean(self, value: str, *axes: int) -> str:
        """The mean over these axes, which stay."""
        ones = self.op("ConstantOfShape", self.op("Shape", value), value=_one())
        return self.op("Div", self.sum(value, *axes), self.sum(ones, *axes))

    def greatest(self, value: str) -> str:
        """The greatest of all elements of a float, a scalar."""
        return self.op("ReduceMax", value, keepdims=0)

    def any(self, condition: str) -> str:
        """Whether any element of a condition holds, a scalar."""
        return self.op("Greater", self.greatest(self.op("Cast", condition, to=FLOAT)), self.number(0.5))

    def cut(self, value: str, start: int, end: int, axis: int) -> str:
        """A slice."""
        return self.op("Slice", value, self.const([start]), self.const([end]), self.const([axis]))

    def roll(self, value: str, axis: int) -> str:
        """The value moved by one along an axis, the last first."""
        last = self.cut(value, -1, 2**62, axis)
        return self.op("Concat", last, self.cut(value, 0, -1, axis), axis=axis)


def _one() -> TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32))


Change: TypeAlias = Callable[[Graph], object]


def replace_operator(name: str, operator: str) -> Change:
    """A change that gives the node of that name another operator, without attributes that this one does not have."""

    def apply(graph: Graph) -> None:
        node = graph.node(name)
        known = onnx.defs.get_schema(operator, graph.opset, node.domain).attributes
        kept = [each for each in node.attribute if each.name in known]
        node.op_type = operator
        del node.attribute[:]
        node.attribute.extend(kept)

    return apply


@dataclass(frozen=True)
class Fault:
    """One fault of one file.

    Args:
        group: its class.
        name: what is wrong.
        where: in what part of a model, whichever layer it is in; with the name it is the kind.
        change: does it to a copy of the graph.
        site: tells the places apart that one kind has in a file.
    """

    group: str
    name: str
    where: str
    change: Change = field(repr=False)
    site: str = ""

    @property
    def kind(self) -> str:
        return f"{self.name}: {self.where}"


# Graph, random numbers → its faults of some class.
Finder: TypeAlias = Callable[[Graph, np.random.Generator], Iterator[Fault]]
