"""The graph of an ONNX file: weights that nothing reads or that are inputs too, and operators that its opset lacks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from parity.judge.findings import Finding
from parity.judge.subgraphs import graphs_of, nodes_of

if TYPE_CHECKING:
    import onnx

# The number of names in a message.
_FIRST = 5
_STANDARD = ("", "ai.onnx")


def judge_graph(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """Findings on a ModelProto, whose external data may be missing: one for each of the three checks."""
    return _judge_unused(model.graph), _judge_overridable(model.graph), _judge_operators(model)


def _judge_unused(graph: onnx.GraphProto) -> Finding:
    unused = sorted(_unused(graph))
    message = f"file: contains weights that nothing reads: {_listed(unused)}; leave them out"
    return Finding("unused", "file", not unused, message if unused else "")


def _unused(graph: onnx.GraphProto) -> set[str]:
    """The names of initializers that no node reads and that are not outputs, in subgraphs too."""
    names: set[str] = set()
    reads: set[str] = set()
    for each in graphs_of(graph):
        names.update(tensor.name for tensor in each.initializer)
        reads.update(value.name for value in each.output)
        for node in each.node:
            reads.update(node.input)
    return names - reads


def _judge_overridable(graph: onnx.GraphProto) -> Finding:
    weights = {tensor.name for tensor in graph.initializer}
    both = [value.name for value in graph.input if value.name in weights]
    message = (
        f"file: weights {_listed(both)} are also inputs, so that a caller can replace them;"
        " export with keep_initializers_as_inputs=False"
    )
    return Finding("overridable", "file", not both, message if both else "")


def _judge_operators(model: onnx.ModelProto) -> Finding:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    wrong = dict.fromkeys(_wrong_operators(nodes_of(model.graph.node), opsets))
    for function in model.functions:
        own = {**opsets, **{entry.domain: entry.version for entry in function.opset_import}}
        wrong.update(dict.fromkeys(_wrong_operators(nodes_of(function.node), own)))
    message = f"file: {'; '.join(list(wrong)[:_FIRST])}; export with operators of that opset"
    return Finding("operators", "file", not wrong, message if wrong else "")


def _wrong_operators(nodes: Iterator[onnx.NodeProto], opsets: Mapping[str, int]) -> Iterator[str]:
    opset = next((opsets[domain] for domain in _STANDARD if domain in opsets), None)
    for node in nodes if opset is not None else ():
        if node.domain in _STANDARD and (problem := _problem(node.op_type, opset)):
            yield f"operator {node.op_type} {problem}"


@functools.cache
def _problem(operator: str, opset: int) -> str:
    """The fault of an operator of the standard domain at this opset; empty if there is none."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return f"is not defined at opset {opset}, which the file declares"
    if schema.deprecated:
        return f"is deprecated since opset {schema.since_version}, the file declares {opset}"
    return ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    return ", ".join(names[:_FIRST]) + more
