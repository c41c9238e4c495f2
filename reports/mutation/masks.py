"""Faults of masks: hidden tokens are seen, fill values are too small, attention is too wide or too narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from parity.reports.mutation.graphs import FLOAT, INT64, Builder, Fault, Graph, replace_operator
from parity.reports.mutation.roles import side_of

OPEN, FILLS, LEAKS, WINDOWS, MASKS = (
    "masks open beyond the traced length",
    "fill values and naive softmax",
    "leaks",
    "windows and causal masks",
    "masks read wrongly",
)
# Name → value that is added to the scores of hidden tokens.
_FILLS = {"-1e4": -1e4, "-1000": -1e3, "-100": -100.0, "-30": -30.0, "-9.2, which leaks a ten-thousandth": -9.2}
_LOWEST = -1e30


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of these classes that a file can have."""
    yield from _inputs(graph)
    yield from _fills(graph)
    yield from _attention(graph)
    yield from _comparisons(graph)


def mask_inputs(graph: Graph) -> list[str]:
    """The names of the inputs that are masks of tokens, with two axes."""
    return [
        name
        for name, value in graph.inputs.items()
        if name.endswith("attention_mask") and len(value.type.tensor_type.shape.dim) == 2 and _is_integer(value)
    ]


def _is_integer(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == INT64


def _inputs(graph: Graph) -> Iterator[Fault]:
    for name in mask_inputs(graph):
        for length in (8, 16, 24, 32):
            yield _fault(OPEN, f"padding from token {length} on is seen", name, _open_from(length))
            yield _fault(OPEN, f"tokens from {length} on are hidden", name, _hide_from(length))
        yield _fault(MASKS, "ignored", name, _ones)
        yield _fault(MASKS, "the first token is always seen", name, _show(0))
        yield _fault(MASKS, "the last token is always seen", name, _show(-1))
        yield _fault(MASKS, "holes are seen", name, _fill_holes)
        yield _fault(MASKS, "the first row's for all", name, _first_row)
        yield _fault(MASKS, "that of the row before", name, lambda b, m: b.roll(m, 0))
        yield _fault(MASKS, "moved by one token", name, lambda b, m: b.roll(m, 1))
        yield _fault(MASKS, "taken for one of padding on the right", name, _as_prefix)
        yield _fault(MASKS, "ignored in the first row", name, _ones_in_first_row)
        yield _fault(MASKS, "ignored in a batch of one", name, _ones_in_batch_of_one)


def _fault(group: str, what: str, name: str, build: Callable[[Builder, str], str]) -> Fault:
    return Fault(group, what, name, lambda graph: graph.replace(name, build), name)


def _ones(b: Builder, mask: str) -> str:
    shape = b.op("Shape", mask)
    return b.op("Cast", b.op("ConstantOfShape", shape, value=_one()), to=INT64)


def _one() -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.ones(1, np.float32))


def _places(b: Builder, mask: str) -> str:
    return b.unsqueeze(b.steps(b.size(mask, 1)), 0)


def _open_from(length: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, mask: str) -> str:
        return b.op("Where", b.op("Greater", _places(b, mask), b.const(length - 1)), b.const(1), mask)

    return build


def _hide_from(length: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, mask: str) -> str:
        return b.op("Where", b.op("Greater", _places(b, mask), b.const(length - 1)), b.const(0), mask)

    return build


def _show(place: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, mask: str) -> str:
        at = b.const(0) if place == 0 else b.op("Sub", b.size(mask, 1), b.const(1))
        return b.op("Where", b.op("Equal", _places(b, mask), at), b.const(1), mask)

    return build


def _fill_holes(b: Builder, mask: str) -> str:
    """A mask that is 1 from the first to the last token that is seen."""
    value = b.op("Cast", mask, to=FLOAT)
    before = b.op("CumSum", value, b.const(1))
    after = b.op("CumSum", value, b.const(1), reverse=1)
    half = b.number(0.5)
    both = b.op("And", b.op("Greater", before, half), b.op("Greater", after, half))
    return b.op("Cast", both, to=INT64)


def _first_row(b: Builder, mask: str) -> str:
    return b.op("Expand", b.cut(mask, 0, 1, 0), b.op("Shape", mask))


def _as_prefix(b: Builder, mask: str) -> str:
    count = b.sum(b.op("Cast", mask, to=FLOAT), 1)
    inside = b.op("Less", b.op("Cast", _places(b, mask), to=FLOAT), count)
    return b.op("Cast", inside, to=INT64)


def _ones_in_first_row(b: Builder, mask: str) -> str:
    rows = b.unsqueeze(b.steps(b.size(mask, 0)), 1)
    return b.op("Where", b.op("Equal", rows, b.const(0)), b.const(1), mask)


def _ones_in_batch_of_one(b: Builder, mask: str) -> str:
    return b.op("Where", b.op("Equal", b.size(mask, 0), b.const(1)), b.const(1), mask)


def _fills(graph: Graph) -> Iterator[Fault]:
    for name in graph.constants():
        array = graph.array(name)
        if array is None or array.dtype != np.float32 or array.size == 0 or array.min() > _LOWEST:
            continue
        for what, value in _FILLS.items():

            def apply(changed: Graph, name: str = name, value: float = value) -> None:
                own = changed.array(name)
                assert own is not None
                changed.set_array(name, np.where(own < _LOWEST, np.float32(value), own))

            yield Fault(FILLS, f"filled with {what}", side_of(name), apply, name)


def _attention(graph: Graph) -> Iterator[Fault]:
    """Faults before and after each softmax over keys."""
    for node in graph.nodes("Softmax"):
        scores, weights, side = node.input[0], node.output[0], side_of(node.name)
        for group, what, value, build in (
            (FILLS, "a softmax without a maximum", node.name, None),
            (LEAKS, "each key gets a ten-thousandth", weights, _leak(1e-4)),
            (LEAKS, "each key gets a millionth", weights, _leak(1e-6)),
            (LEAKS, "heads leak a thousandth", weights, _leak_heads),
            (WINDOWS, "keys 32 and more before are not seen", scores, _window(32)),
            (WINDOWS, "keys 16 and more before are not seen", scores, _window(16)),
            (WINDOWS, "the first key is not seen after 16", scores, _sink(16)),
            (WINDOWS, "keys that come later are not seen", scores, _causal),
            (WINDOWS, "keys from 33 on are not seen", scores, _limit(33)),
        ):
            if build is None:
                yield Fault(group, what, side, _naive(node.name), node.name)
                continue

            def apply(changed: Graph, value: str = value, build: Callable[[Builder, str], str] = build) -> None:
                changed.replace(value, build)

            yield Fault(group, what, side, apply, node.name)


def _leak(share: float) -> Callable[[Builder, str], str]:
    def build(b: Builder, weights: str) -> str:
        own = b.op("Mul", weights, b.number(1 - share))
        return b.op("Add", own, b.op("Mul", b.mean(weights, -1), b.number(share)))

    return build


def _leak_heads(b: Builder, weights: str) -> str:
    return b.op("Add", weights, b.op("Mul", b.roll(weights, 1), b.number(1e-3)))


def _queries_and_keys(b: Builder, scores: str) -> tuple[str, str]:
    """Positions of queries (…, 1) and of keys (1, …); the last query and the last key have the same position."""
    shape = b.op("Shape", scores)
    keys = b.op("Gather", shape, b.op("Sub", b.op("Size", shape), b.const(1)), axis=0)
    queries = b.op("Gather", shape, b.op("Sub", b.op("Size", shape), b.const(2)), axis=0)
    first = b.op("Sub", keys, queries)
    rows = b.op("Add", b.steps(queries), first)
    return b.unsqueeze(rows, 1), b.unsqueeze(b.steps(keys), 0)


def _hide(b: Builder, scores: str, hidden: str) -> str:
    return b.op("Where", hidden, b.number(-1e30), scores)


def _window(size: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, scores: str) -> str:
        queries, keys = _queries_and_keys(b, scores)
        return _hide(b, scores, b.op("Greater", b.op("Sub", queries, keys), b.const(size - 1)))

    return build


def _sink(size: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, scores: str) -> str:
        queries, keys = _queries_and_keys(b, scores)
        far = b.op("Greater", queries, b.const(size - 1))
        return _hide(b, scores, b.op("And", far, b.op("Equal", keys, b.const(0))))

    return build


def _causal(b: Builder, scores: str) -> str:
    queries, keys = _queries_and_keys(b, scores)
    return _hide(b, scores, b.op("Greater", keys, queries))


def _limit(size: int) -> Callable[[Builder, str], str]:
    def build(b: Builder, scores: str) -> str:
        _, keys = _queries_and_keys(b, scores)
        return _hide(b, scores, b.op("Greater", keys, b.const(size - 1)))

    return build


def _naive(name: str) -> Callable[[Graph], None]:
    """Compute the softmax as exp(x) / Σ exp(x), which overflows, or divides by zero."""

    def apply(graph: Graph) -> None:
        node = graph.node(name)
        source, result = node.input[0], node.output[0]
        b = Builder(graph.opset, f"mutant.{name}")
        value = b.op("Exp", source)
        b.nodes.append(onnx.helper.make_node("Div", [value, b.sum(value, -1)], [result]))
        place = list(graph.proto.node).index(node)
        del graph.proto.node[place]
        for new in reversed(b.nodes):
            graph.proto.node.insert(place, new)

    return apply


def _comparisons(graph: Graph) -> Iterator[Fault]:
    """Faults of the comparisons, triangles and conjunctions that decide which keys are seen."""
    others = {"Less": "LessOrEqual", "LessOrEqual": "Less", "Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater"}
    for node in graph.nodes(*others):
        name, operator = node.name, node.op_type
        if graph.opset >= 12:
            other = replace_operator(name, others[operator])
            yield Fault(WINDOWS, f"{operator} is {others[operator]}", side_of(name), other, name)
        for step, what in ((1, "open by one"), (-1, "closed by one")):

            def move(changed: Graph, name: str = name, step: int = step) -> None:
                compared = changed.node(name)
                right, result = compared.input[1], f"{name}.moved"
                b = Builder(changed.opset, f"mutant.{name}")
                like = b.op("CastLike", b.const(step), right) if changed.opset >= 15 else b.const(step)
                b.nodes.append(onnx.helper.make_node("Add", [right, like], [result]))
                compared.input[1] = result
                place = list(changed.proto.node).index(compared)
                for new in reversed(b.nodes):
                    changed.proto.node.insert(place, new)

            yield Fault(WINDOWS, f"a comparison {what}", f"{operator} of {side_of(name)}", move, name)
    for node in graph.nodes("Trilu"):
        yield Fault(WINDOWS, "a triangle moved by one", side_of(node.name), _move_triangle(node.name), node.name)
    for node in graph.nodes("And"):
        yield Fault(MASKS, "either instead of both", side_of(node.name), replace_operator(node.name, "Or"), node.name)


def _move_triangle(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        node = graph.node(name)
        b = Builder(graph.opset, f"mutant.{name}")
        own = node.input[1] if len(node.input) > 1 else b.const(0)
        result = b.op("Add", own, b.const(1))
        node.input[:] = [node.input[0], result]
        place = list(graph.proto.node).index(node)
        for new in reversed(b.nodes):
            graph.proto.node.insert(place, new)

    return apply
