"""Faults of the contract of a file: names, order, types, axes, opset, and weights that do not belong there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from parity.reports.mutation.graphs import FLOAT, HALF, INT32, INT64, Fault, Graph

CONTRACT = "contract"
DOUBLE = onnx.TensorProto.DOUBLE


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of the contract."""
    for what, where, change in (
        ("a weight that nothing reads", "a small one", _left_over(8)),
        ("a weight that nothing reads", "a matrix", _left_over(4096)),
        ("a weight that is an input", "the first", _as_input(0)),
        ("a weight that is an input", "the last", _as_input(-1)),
        ("a weight that is there twice", "the largest", _twice),
        ("one symbol for two axes", "an input", _one_symbol("inputs")),
        ("one symbol for two axes", "an output", _one_symbol("outputs")),
        ("the size of the export", "the batch of inputs", _bake("inputs", "batch", 2)),
        ("the size of the export", "the batch of outputs", _bake("outputs", "batch", 2)),
        ("the size of the export", "the length of inputs", _bake("inputs", "sequence", 8)),
        ("the size of the export", "the length of outputs", _bake("outputs", "sequence", 8)),
        ("a symbol for a fixed axis", "the last of the first output", _free_last),
        ("another name", "an input", _rename_input),
        ("another name", "an output", _rename_output),
        ("one more", "an output", _one_more),
        ("one missing", "the last output", _one_less),
        ("one more", "an input", _one_more_input),
        ("another order", "outputs", _order("output")),
        ("another order", "inputs", _order("input")),
        ("float64", "the first output", _cast_output(DOUBLE)),
        ("float16", "the first output", _cast_output(HALF)),
        ("int32", "the first input", _cast_input),
        ("declared one lower", "the opset", _set_opset(-1)),
        ("declared one higher", "the opset", _set_opset(1)),
        ("a domain that nothing uses", "the opset", _domain),
        ("in training mode", "a dropout", _dropout),
        ("an operator of a later opset", "the first output", _later_operator),
        ("nodes that stand before what they read", "the last node", _unsort),
    ):
        yield Fault(CONTRACT, what, where, change)


def _left_over(size: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        values = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        graph.proto.initializer.append(numpy_helper.from_array(values, "left.over"))

    return apply


def _as_input(place: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        tensor = graph.proto.initializer[place]
        graph.proto.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))

    return apply


def _twice(graph: Graph) -> None:
    tensor = max(graph.proto.initializer, key=lambda each: np.prod(each.dims))
    copy = graph.proto.initializer.add()
    copy.CopyFrom(tensor)
    copy.name = f"{tensor.name}.again"
    readers = graph.readers(tensor.name)
    node = readers[0]
    for place, name in enumerate(node.input):
        if name == tensor.name:
            node.input[place] = copy.name
            break


def _values(graph: Graph, side: str) -> list[onnx.ValueInfoProto]:
    return list(graph.proto.input if side == "inputs" else graph.proto.output)


def _one_symbol(side: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        for value in _values(graph, side):
            named = [dim for dim in value.type.tensor_type.shape.dim if dim.dim_param]
            for dim in named[1:]:
                dim.dim_param = named[0].dim_param

    return apply


def _bake(side: str, axis: str, size: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        for value in _values(graph, side):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == axis or (axis == "sequence" and dim.dim_param.endswith("_sequence")):
                    dim.dim_value = size

    return apply


def _free_last(graph: Graph) -> None:
    dim = graph.proto.output[0].type.tensor_type.shape.dim[-1]
    dim.dim_param = "anything"


def _rename_input(graph: Graph) -> None:
    value = graph.proto.input[0]
    own, new = value.name, f"{value.name}_1"
    value.name = new
    for node in graph.proto.node:
        node.input[:] = [new if name == own else name for name in node.input]


def _rename_output(graph: Graph) -> None:
    value = graph.proto.output[0]
    own, new = value.name, f"{value.name}_1"
    value.name = new
    for node in graph.proto.node:
        node.input[:] = [new if name == own else name for name in node.input]
        node.output[:] = [new if name == own else name for name in node.output]


def _one_more(graph: Graph) -> None:
    own = graph.proto.output[0]
    new = graph.proto.output.add()
    new.CopyFrom(own)
    new.name = "more"
    graph.proto.node.append(helper.make_node("Identity", [own.name], ["more"]))


def _one_less(graph: Graph) -> None:
    if len(graph.proto.output) < 2:
        raise ValueError("it has one output")
    del graph.proto.output[-1]


def _one_more_input(graph: Graph) -> None:
    graph.proto.input.append(helper.make_tensor_value_info("more", FLOAT, ["batch"]))


def _order(side: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        values = getattr(graph.proto, side)
        if len(values) < 2:
            raise ValueError("there is one")
        first = values.pop(0)
        values.insert(1, first)

    return apply


def _cast_output(dtype: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        value = graph.proto.output[0]
        for node in graph.proto.node:
            node.input[:] = [f"{value.name}.own" if name == value.name else name for name in node.input]
            node.output[:] = [f"{value.name}.own" if name == value.name else name for name in node.output]
        graph.proto.node.append(helper.make_node("Cast", [f"{value.name}.own"], [value.name], to=dtype))
        value.type.tensor_type.elem_type = dtype

    return apply


def _cast_input(graph: Graph) -> None:
    value = graph.proto.input[0]
    if value.type.tensor_type.elem_type != INT64:
        raise ValueError("it is no int64")
    value.type.tensor_type.elem_type = INT32
    for node in graph.proto.node:
        node.input[:] = [f"{value.name}.wide" if name == value.name else name for name in node.input]
    graph.proto.node.insert(0, helper.make_node("Cast", [value.name], [f"{value.name}.wide"], to=INT64))


def _set_opset(step: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        for each in graph.model.opset_import:
            if each.domain in ("", "ai.onnx"):
                each.version += step

    return apply


def _domain(graph: Graph) -> None:
    graph.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _dropout(graph: Graph) -> None:
    value = graph.proto.output[0].name
    for node in graph.proto.node:
        node.output[:] = [f"{value}.own" if name == value else name for name in node.output]
        node.input[:] = [f"{value}.own" if name == value else name for name in node.input]
    if graph.opset < 12:
        raise ValueError("its dropout has no mode")
    graph.proto.initializer.append(numpy_helper.from_array(np.array(0.0, np.float32), "drop.ratio"))
    graph.proto.initializer.append(numpy_helper.from_array(np.array(True), "drop.mode"))
    graph.proto.node.append(helper.make_node("Dropout", [f"{value}.own", "drop.ratio", "drop.mode"], [value]))


def _later_operator(graph: Graph) -> None:
    """Add Gelu, which is new in opset 20, or Scatter, which is deprecated since 11: a runtime may not have them."""
    value = graph.proto.output[0].name
    for node in graph.proto.node:
        node.output[:] = [f"{value}.own" if name == value else name for name in node.output]
        node.input[:] = [f"{value}.own" if name == value else name for name in node.input]
    operator = "Gelu" if graph.opset < 20 else "Scatter"
    graph.proto.node.append(helper.make_node(operator, [f"{value}.own"], [value]))


def _unsort(graph: Graph) -> None:
    last = graph.proto.node.pop()
    graph.proto.node.insert(0, last)
