"""Faults of caches, positions and ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import onnx
from onnx import helper

from parity.reports.mutation.graphs import FLOAT, HALF, INT64, Builder, Fault, Graph, replace_operator
from parity.reports.mutation.roles import role_of_weight

PRESENTS, POSITIONS, IDS, VALUES = "presents", "positions", "ids", "large values"
_LONG = 2**62


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of these classes that a file can have."""
    yield from _presents(graph)
    yield from _indices(graph)
    yield from _values(graph)


def _presents(graph: Graph) -> Iterator[Fault]:
    names = [name for name in graph.outputs if name.startswith("present")]
    grown = [name for name in names if "encoder" not in name]
    for place, name in enumerate(grown):
        part = "keys" if name.endswith("key") else "values"
        where = f"{part} of the {'first' if place < 2 else 'last'} layer"
        if 2 <= place < len(grown) - 2:
            continue
        for what, build in (
            ("cut to the last 32", lambda b, v: b.cut(v, -32, _LONG, 2)),
            ("cut to the last 16", lambda b, v: b.cut(v, -16, _LONG, 2)),
            ("without the newest", lambda b, v: b.op("Mul", v, _but_last(b, v))),
            ("the newest alone", lambda b, v: b.op("Sub", v, b.op("Mul", v, _but_last(b, v)))),
            ("beyond 32 are zero", _zero_beyond(32)),
            ("rounded to float16", lambda b, v: b.op("Cast", b.op("Cast", v, to=HALF), to=FLOAT)),
            ("moved by one token", lambda b, v: b.roll(v, 2)),
            ("moved by one head", lambda b, v: b.roll(v, 1)),
            ("a thousandth more", lambda b, v: b.op("Mul", v, b.number(1.001))),
            ("that of the row before", lambda b, v: b.roll(v, 0)),
        ):
            yield _fault(PRESENTS, what, where, name, build)
    for one, other, where in _pairs(grown):
        yield Fault(PRESENTS, "each other's", where, _exchange(one, other), f"{one} {other}")


def _pairs(names: list[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        value = name.removesuffix("key") + "value"
        if name.endswith("key") and value in names:
            yield name, value, "keys and values"
    keys = [name for name in names if name.endswith("key")]
    for one, other in pairwise(keys):
        yield one, other, "keys of two layers"


def _fault(group: str, what: str, where: str, value: str, build: Callable[[Builder, str], str]) -> Fault:
    return Fault(group, what, where, lambda graph: graph.replace(value, build), value)


def _but_last(b: Builder, value: str) -> str:
    """A factor that is 0 at the last token and 1 at all others."""
    count = b.size(value, 2)
    places = b.unsqueeze(b.steps(count), 0, 1, 3)
    return b.op("Cast", b.op("Less", places, b.op("Sub", count, b.const(1))), to=FLOAT)


def _zero_beyond(length: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, value: str) -> str:
        places = b.unsqueeze(b.steps(b.size(value, 2)), 0, 1, 3)
        return b.op("Mul", value, b.op("Cast", b.op("Less", places, b.const(length)), to=FLOAT))

    return build


def _exchange(one: str, other: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        names = {one: f"{one}.own", other: f"{other}.own"}
        for node in graph.proto.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        b = Builder(graph.opset, f"mutant.{one}")
        b.nodes.append(helper.make_node("Identity", [names[one]], [other]))
        b.nodes.append(helper.make_node("Identity", [names[other]], [one]))
        graph.proto.node.extend(b.nodes)

    return apply


def _indices(graph: Graph) -> Iterator[Fault]:
    """Faults of the indices that are looked up in tables, and of rotary angles."""
    for node in graph.nodes("Gather"):
        table = node.input[0]
        if table not in graph.tensors or len(graph.tensors[table].dims) != 2:
            continue
        role = role_of_weight(graph, table)
        if not role.startswith("table"):
            continue
        rows, value = graph.tensors[table].dims[0], node.input[1]
        group = IDS if role in ("table of words", "table of token types") else POSITIONS
        for what, build in _index_changes(rows).items():
            yield Fault(group, what, role, _reindex(node.name, build), f"{node.name} {value}")
    for name in ("Cos", "Sin"):
        nodes = graph.nodes(name)
        if nodes:
            angle, operator = nodes[0].input[0], name
            yield Fault(POSITIONS, "an angle is a thousandth more", operator, _stretch_input(nodes[0].name), angle)
            yield Fault(
                POSITIONS,
                "each other's",
                "Cos and Sin",
                replace_operator(nodes[0].name, "Sin" if name == "Cos" else "Cos"),
            )


def _stretch_input(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        b = Builder(graph.opset, f"mutant.{name}")
        node.input[0] = b.op("Mul", node.input[0], b.number(1.001))
        _insert_before(graph, node, b)

    return apply


def _insert_before(graph: Graph, node: onnx.NodeProto, b: Builder) -> None:
    place = list(graph.proto.node).index(node)
    for new in reversed(b.nodes):
        graph.proto.node.insert(place, new)


def _index_changes(rows: int) -> dict[str, Callable[[Builder, str], str]]:
    def when_above(limit: int, other: int) -> Callable[[Builder, str], str]:
        def build(b: Builder, index: str) -> str:
            return b.op("Where", b.op("Greater", index, b.const(limit)), b.const(other), index)

        return build

    def next_row(b: Builder, index: str) -> str:
        return b.op("Mod", b.op("Add", index, b.const(1)), b.const(rows))

    def when_equal(value: int, other: int) -> Callable[[Builder, str], str]:
        def build(b: Builder, index: str) -> str:
            return b.op("Where", b.op("Equal", index, b.const(value)), b.const(other), index)

        return build

    changes = {
        "the next row": next_row,
        "the last row is read as the one before": when_equal(rows - 1, rows - 2),
        "the first row is read as the second": when_equal(0, 1),
        "always the first row": lambda b, index: b.op("Mul", index, b.const(0)),
    }
    for limit in (8, 16, 31, 4095):
        if limit < rows - 2:
            changes[f"rows beyond {limit} are read as it"] = when_above(limit, limit)
    return changes


def _reindex(name: str, build: Callable[[Builder, str], str]) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        b = Builder(graph.opset, f"mutant.{name}")
        index = b.op("Cast", node.input[1], to=INT64)
        node.input[1] = build(b, index)
        _insert_before(graph, node, b)

    return apply


def _values(graph: Graph) -> Iterator[Fault]:
    """Floating point inputs that are clamped."""
    for name, value in graph.inputs.items():
        if value.type.tensor_type.elem_type != FLOAT:
            continue
        where = "caches" if "past" in name else name
        for limit in (6.0, 4.0):

            def build(b: Builder, own: str, limit: float = limit) -> str:
                return b.op("Clip", own, b.number(-limit), b.number(limit))

            yield _fault(VALUES, f"clamped at {limit:g}", where, name, build)
