"""Faults of operators: another operator, other constants, exchanged operands, lost terms, lower precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper

from parity.reports.mutation.graphs import FLOAT, HALF, Builder, Fault, Graph, replace_operator
from parity.reports.mutation.roles import role_of_scope, side_of

SWAPS, CONSTANTS, OPERANDS, PRECISION, LEAKS = (
    "operators exchanged",
    "constants, eps and scales",
    "operands, axes and lost terms",
    "lower precision inside",
    "leaks",
)
_OTHER = {
    "Add": ("Sub",),
    "Sub": ("Add",),
    "Mul": ("Add",),
    "Div": ("Mul",),
    "Erf": ("Tanh",),
    "Tanh": ("Erf", "Softsign"),
    "Sigmoid": ("HardSigmoid", "Tanh"),
    "Relu": ("LeakyRelu", "Abs"),
    "Sqrt": ("Abs",),
    "Gelu": ("Relu",),
    "ReduceMean": ("ReduceSum", "ReduceMax"),
    "GlobalAveragePool": ("GlobalMaxPool",),
    "MaxPool": ("AveragePool",),
    "Softmax": ("LogSoftmax",),
    "Max": ("Min",),
    "Min": ("Max",),
    "Exp": ("Abs",),
    "Log": ("Abs",),
}


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of these classes that a file can have."""
    floats = _floats(graph)
    for node in graph.nodes():
        where = f"{node.op_type} of {role_of_scope(node.name)}"
        for other in _OTHER.get(node.op_type, ()):
            if node.output[0] in floats:
                yield Fault(SWAPS, f"{node.op_type} is {other}", where, replace_operator(node.name, other), node.name)
        yield from _operands(graph, node, where, floats)
        yield from _precision(node, where)
        yield from _eps(graph, node)
    yield from _constants(graph)
    yield from _outputs(graph)


def _floats(graph: Graph) -> set[str]:
    """The values that shape inference knows to be floats."""
    model = onnx.shape_inference.infer_shapes(graph.model)
    return {value.name for value in (*model.graph.value_info, *model.graph.output) if _is_float(value)}


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == FLOAT


def _operands(graph: Graph, node: onnx.NodeProto, where: str, floats: set[str]) -> Iterator[Fault]:
    name, operator = node.name, node.op_type
    inputs = list(node.input)
    result = node.output[0]
    if operator == "Add" and result in floats and all(graph.array(each) is None for each in inputs):
        yield Fault(OPERANDS, "the second term is lost", where, _bypass(name, 0), name)
        yield Fault(OPERANDS, "the first term is lost", where, _bypass(name, 1), name)
    if operator in ("Sub", "Div", "Concat") and result in floats and len(inputs) > 1:
        yield Fault(OPERANDS, "reversed", where, _reverse(name), name)
    if operator == "Softmax":
        yield Fault(OPERANDS, "over queries", side_of(name), _set_axis(name, -2), name)
    if operator in ("Erf", "Relu", "Tanh", "Sigmoid", "LayerNormalization", "Gelu"):
        yield Fault(OPERANDS, "left out", where, _bypass(name, 0), name)
    if operator == "Gather" and result in floats and inputs[0] not in graph.tensors:
        index = graph.array(inputs[1])
        if index is not None and index.ndim == 0:
            yield Fault(OPERANDS, "another place of a sequence", where, _move_index(name), name)
    if operator == "Slice" and result in floats and graph.array(inputs[2]) is not None:
        yield Fault(OPERANDS, "an end before it", where, _move_end(name), name)


def _bypass(name: str, place: int) -> Callable[[Graph], None]:
    """Replace a node by the identity of one of its inputs."""

    def apply(graph: Graph) -> None:
        node = graph.node(name)
        source, result = node.input[place], node.output[0]
        index = list(graph.proto.node).index(node)
        del graph.proto.node[index]
        graph.proto.node.insert(index, helper.make_node("Identity", [source], [result], name=name))

    return apply


def _reverse(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        node.input[:] = list(node.input)[::-1]

    return apply


def _set_axis(name: str, axis: int) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        for attribute in graph.node(name).attribute:
            if attribute.name == "axis":
                attribute.i = axis

    return apply


def _move_index(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        index = graph.array(node.input[1])
        assert index is not None
        other = Builder(graph.opset, f"mutant.{name}")
        node.input[1] = other.const(int(index) - 1 if index < 0 else int(index) + 1)
        graph.proto.node.insert(0, other.nodes[0])

    return apply


def _move_end(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        end = graph.array(node.input[2])
        assert end is not None
        other = Builder(graph.opset, f"mutant.{name}")
        node.input[2] = other.const(np.where(end > 2**40, -1, end - 1))
        graph.proto.node.insert(0, other.nodes[0])

    return apply


def _precision(node: onnx.NodeProto, where: str) -> Iterator[Fault]:
    name, result = node.name, node.output[0]
    if node.op_type in ("MatMul", "Gemm", "Conv", "Softmax"):

        def halve(b: Builder, value: str) -> str:
            return b.op("Cast", b.op("Cast", value, to=HALF), to=FLOAT)

        yield Fault(PRECISION, "its result is rounded to float16", where, lambda g: g.replace(result, halve), name)

        def cut(b: Builder, value: str) -> str:
            """Round to sixteen bits after the binary point."""
            scale = b.number(2.0**16)
            return b.op("Div", b.op("Round", b.op("Mul", value, scale)), scale)

        yield Fault(PRECISION, "its result has 16 bits after the point", where, lambda g: g.replace(result, cut), name)


def _eps(graph: Graph, node: onnx.NodeProto) -> Iterator[Fault]:
    name = node.name
    for attribute in node.attribute:
        if attribute.name != "epsilon":
            continue
        for value in (1e-3, 1e-5, 1e-12):
            if not np.isclose(attribute.f, value, rtol=0.01, atol=0):
                role = role_of_scope(name)
                yield Fault(CONSTANTS, f"an epsilon of {value:g}", role, _set_epsilon(name, value), name)
        if node.op_type == "LayerNormalization":
            yield Fault(OPERANDS, "over two axes", role_of_scope(name), _set_axis(name, -2), name)


def _set_epsilon(name: str, value: float) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        for attribute in graph.node(name).attribute:
            if attribute.name == "epsilon":
                attribute.f = value

    return apply


def _constants(graph: Graph) -> Iterator[Fault]:
    """Faults of scalars: the scale of the scores, epsilons, the constants of an activation."""
    for name in graph.constants():
        array = graph.array(name)
        if array is None or array.dtype != np.float32 or array.size != 1:
            continue
        value = float(array.reshape(-1)[0])
        if not 0 < abs(value) < 1e4:
            continue
        readers = graph.readers(name)
        if not readers:
            continue
        where = f"{readers[0].op_type} of {role_of_scope(readers[0].name)}"
        factors = {"a hundredth more": 1.01, "a thousandth more": 1.001, "twice as large": 2.0}
        if abs(value) < 1e-4:
            factors = {"a thousand times as large": 1e3, "zero": 0.0}
        for what, factor in factors.items():

            def apply(changed: Graph, name: str = name, factor: float = factor) -> None:
                own = changed.array(name)
                assert own is not None
                changed.set_array(name, (own * np.float32(factor)).astype(np.float32))

            yield Fault(CONSTANTS, what, where, apply, name)


def _outputs(graph: Graph) -> Iterator[Fault]:
    """Faults of the first output: a small share of another row, token or mean is added."""
    name, value = next(iter(graph.outputs.items()))
    axes = len(value.type.tensor_type.shape.dim)

    def leak(source: Callable[[Builder, str], str], amount: float) -> Callable[[Graph], None]:
        def build(b: Builder, own: str) -> str:
            return b.op("Add", own, b.op("Mul", source(b, own), b.number(amount)))

        return lambda changed: changed.replace(name, build)

    sources: dict[str, tuple[Callable[[Builder, str], str], float]] = {
        "a row leaks a thousandth into the next": (lambda b, own: b.roll(own, 0), 1e-3),
        "the first row leaks a ten-thousandth": (lambda b, own: b.cut(own, 0, 1, 0), 1e-4),
    }
    if axes > 2:
        sources["a token leaks a ten-thousandth"] = (lambda b, own: b.roll(own, 1), 1e-4)
        sources["the mean leaks a ten-thousandth"] = (lambda b, own: b.mean(own, 1), 1e-4)
    for what, (source, amount) in sources.items():
        yield Fault(LEAKS, what, "the first output", leak(source, amount), name)
