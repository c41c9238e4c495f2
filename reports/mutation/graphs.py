"""Read and change ONNX graphs: the node that computes a value, the nodes that read it, and changes of either."""

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
# From this opset on, axes are inputs; below it they are attributes.
_AXES_AS_INPUTS = 13


class Graph:
    """A model to read or to change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.proto = model, model.graph
        self.opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
        self.tensors = {tensor.name: tensor for tensor in self.proto.initializer}
        self.inputs = {value.name: value for value in self.proto.input}
        self.outputs = {value.name: value for value in self.proto.output}

    def copy(self) -> Graph:
        """A copy, to be changed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model)

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        """The nodes with these operators; all nodes if none is given."""
        return [node for node in self.proto.node if not operators or node.op_type in operators]

    def node(self, name: str) -> onnx.NodeProto:
        """The node of that name."""
        return next(node for node in self.proto.node if node.name == name)

    def producer(self, value: str) -> onnx.NodeProto | None:
        """The node that computes a value; None for an input or initializer."""
        return next((node for node in self.proto.node if value in node.output), None)

    def readers(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that read a value."""
        return [node for node in self.proto.node if value in node.input]

    def array(self, value: str) -> np.ndarray | None:
        """The array of an initializer or constant; None for a value that is computed."""
        if value in self.tensors:
            return numpy_helper.to_array(self.tensors[value])
        node = self.producer(value)
        if node is None or node.op_type != "Constant":
            return None
        return numpy_helper.to_array(node.attribute[0].t) if node.attribute[0].name == "value" else None

    def set_array(self, value: str, array: np.ndarray) -> None:
        """Replace the array of an initializer or constant."""
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
        """An input that has an axis of that name, and the index of the axis; None if there is none."""
        for value in self.proto.input:
            for place, dim in enumerate(value.type.tensor_type.shape.dim):
                if dim.dim_param == name:
                    return value.name, place
        return None

    def replace(self, value: str, build: Callable[[Builder, str], str]) -> None:
        """Replace a value, for all nodes that read it, by one that is computed from it.

        Args:
            value: its name.
            build: takes a builder and the name of the old value; returns the name of the new one.
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
            # After the node that computes the old value, and before those that read the new one.
            place = list(self.proto.node).index(producer) + 1
        for node in reversed(builder.nodes):
            self.proto.node.insert(place, node)

    def sort(self) -> None:
        """Sort the nodes so that each comes after those that it reads.

        Raises:
            ValueError: the graph has a cycle.
        """
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
    """Creates nodes one after the other; each method returns the name of the value that its node computes."""

    def __init__(self, opset: int, prefix: str) -> None:
        self.opset, self.prefix = opset, prefix
        self.nodes: list[onnx.NodeProto] = []

    def op(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
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
        """The integers from 0 up to a size, without it."""
        return self.op("Range", self.const(0), size, self.const(1))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """The value with new axes of size 1; `axes` are their indices in the result."""
        if self.opset < _AXES_AS_INPUTS:
            return self.op("Unsqueeze", value, axes=list(axes))
        return self.op("Unsqueeze", value, self.const(list(axes)))

    def sum(self, value: str, *axes: int, keep: bool = True) -> str:
        """The sum over these axes."""
        if self.opset < _AXES_AS_INPUTS:
            return self.op("ReduceSum", value, axes=list(axes), keepdims=int(keep))
        return self.op("ReduceSum", value, self.const(list(axes)), keepdims=int(keep))

    def mean(self, value: str, *axes: int) -> str:
        """The mean over these axes, which are kept with size 1."""
        ones = self.op("ConstantOfShape", self.op("Shape", value), value=_one())
        return self.op("Div", self.sum(value, *axes), self.sum(ones, *axes))

    def greatest(self, value: str) -> str:
        """The maximum of all elements of a float tensor, a scalar."""
        return self.op("ReduceMax", value, keepdims=0)

    def any(self, condition: str) -> str:
        """Whether any element of a condition is true, a scalar."""
        return self.op("Greater", self.greatest(self.op("Cast", condition, to=FLOAT)), self.number(0.5))

    def cut(self, value: str, start: int, end: int, axis: int) -> str:
        """A slice."""
        return self.op("Slice", value, self.const([start]), self.const([end]), self.const([axis]))

    def roll(self, value: str, axis: int) -> str:
        """The value rotated by one along an axis: the last element comes first."""
        last = self.cut(value, -1, 2**62, axis)
        return self.op("Concat", last, self.cut(value, 0, -1, axis), axis=axis)


def _one() -> TensorProto:
    return numpy_helper.from_array(np.ones(1, np.float32))


Change: TypeAlias = Callable[[Graph], object]


def replace_operator(name: str, operator: str) -> Change:
    """A change of a node's operator; attributes that the new operator does not have are removed."""

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
        name: the fault in words.
        where: the part of the model, without the number of the layer; name and part are the kind.
        change: applies the fault to a copy of the graph.
        site: the place in the file, because one kind may have several places.
    """

    group: str
    name: str
    where: str
    change: Change = field(repr=False)
    site: str = ""

    @property
    def kind(self) -> str:
        return f"{self.name}: {self.where}"


# Graph and random numbers → the faults of some class that the graph can have.
Finder: TypeAlias = Callable[[Graph, np.random.Generator], Iterator[Fault]]
