"""An ONNX graph with its subgraphs: all graphs, their nodes, and their tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and its subgraphs."""
    yield graph
    for node in graph.node:
        yield from subgraphs_of(node)


def subgraphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs of a node, such as both branches of an If, and the subgraphs of these."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from graphs_of(attribute.g)
        for graph in attribute.graphs:
            yield from graphs_of(graph)


def nodes_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from graph.node


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers and constants of a graph and of its subgraphs."""
    for each in graphs_of(graph):
        yield from each.initializer
        yield from constants_of(each)


def lift_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of the constants among a graph's own nodes; the graph is changed."""
    nodes = []
    for node in graph.node:
        tensors = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and tensors:
            graph.initializer.add().CopyFrom(tensors[0])
            graph.initializer[-1].name = node.output[0]
        else:
            nodes.append(type(node).FromString(node.SerializeToString()))
    if len(nodes) != len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def constants_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors that are attributes of a graph's own nodes."""
    return (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
