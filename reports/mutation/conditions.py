"""Faults that show only under a condition: at a size, with a padding, for an id or a value, in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from parity.reports.mutation.graphs import FLOAT, Builder, Fault, Graph
from parity.reports.mutation.masks import mask_inputs

CONDITIONS = "wrong only under a condition"
# The fault: under the condition, an output is larger by this share.
_FACTOR = 0.01
_TEXTS = ("sequence", "decoder_sequence", "encoder_sequence", "text_sequence")
_PASTS = ("past_sequence", "past_decoder_sequence")


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of the first output, and some of the first present."""
    output = next(iter(graph.outputs))
    for what, where, build in _conditions(graph, draw):
        yield Fault(CONDITIONS, what, where, _stretch(output, build), output)
    presents = [name for name in graph.outputs if name.startswith("present")]
    for name in presents[:1]:
        for what, where, build in list(_conditions(graph, draw))[:4]:
            yield Fault(CONDITIONS, what, f"presents at {where}", _stretch(name, build), name)


def _stretch(output: str, condition: Callable[[Builder], str]) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        def build(b: Builder, own: str) -> str:
            holds = b.op("Cast", condition(b), to=FLOAT)
            return b.op("Mul", own, b.op("Add", b.op("Mul", holds, b.number(_FACTOR)), b.number(1.0)))

        graph.replace(output, build)

    return apply


def _conditions(graph: Graph, draw: np.random.Generator) -> Iterator[tuple[str, str, Callable[[Builder], str]]]:
    """For each condition: name, place, and a function that builds it, as a scalar or with one value for each row."""
    sizes = {each: found for each in ("batch", *_TEXTS, *_PASTS, "height", "width") if (found := graph.axis(each))}

    def compare(axis: str, operator: str, value: int) -> Callable[[Builder], str]:
        return lambda b: b.op(operator, b.size(*sizes[axis]), b.const(value))

    if "batch" in sizes:
        for value in (3, 4, 5):
            yield f"more than {value}", "batch", compare("batch", "Greater", value)
        yield "exactly 2", "batch", compare("batch", "Equal", 2)
        yield "exactly 3", "batch", compare("batch", "Equal", 3)
        yield "even", "batch", lambda b: _even(b, b.size(*sizes["batch"]))
    for axis in (*_TEXTS, *_PASTS):
        if axis not in sizes:
            continue
        for value in (8, 16, 24, 32):
            yield f"more than {value}", axis, compare(axis, "Greater", value)
        for value in (1, 2):
            yield f"exactly {value}", axis, compare(axis, "Equal", value)
        yield "one length between 17 and 30", axis, compare(axis, "Equal", int(draw.integers(17, 31)))
        yield "even", axis, lambda b, axis=axis: _even(b, b.size(*sizes[axis]))  # type: ignore[misc]  # bound now
        if axis in _PASTS:
            yield "none", axis, compare(axis, "Equal", 0)
            yield "30", axis, compare(axis, "Equal", 30)
        if "batch" in sizes and axis not in _PASTS:
            yield (
                "as large as the batch",
                axis,
                lambda b, axis=axis: b.op("Equal", b.size(*sizes[axis]), b.size(*sizes["batch"])),  # type: ignore[misc]
            )
    if {"height", "width"} <= {*sizes}:
        for what, operator in (("landscape", "Less"), ("portrait", "Greater"), ("square", "Equal")):
            yield (
                what,
                "images",
                lambda b, operator=operator: b.op(operator, b.size(*sizes["height"]), b.size(*sizes["width"])),  # type: ignore[misc]
            )
    for name in mask_inputs(graph):
        yield from ((what, name, build) for what, build in _paddings(name))
    for name, value in graph.inputs.items():
        if name.endswith("input_ids"):
            place = int(draw.integers(6, 90))
            yield (
                f"the id {place} is among them",
                name,
                lambda b, n=name, p=place: b.any(  # type: ignore[misc]
                    b.op("Equal", n, b.const(p))
                ),
            )
        if name.endswith("token_type_ids"):
            yield "all are one", name, lambda b, n=name: b.op("Not", b.any(b.op("Equal", n, b.const(0))))  # type: ignore[misc]
        if value.type.tensor_type.elem_type == FLOAT and ("past" not in name or ".0" in name):
            where = "caches" if "past" in name else name
            yield "a value above 6", where, lambda b, n=name: b.any(b.op("Greater", _whole(b, n), b.number(6.0)))  # type: ignore[misc]
    output = next(iter(graph.outputs.values()))
    if sizes.get("batch"):
        axes = len(output.type.tensor_type.shape.dim)
        for what, first in (("in the first row", True), ("in the last row of several", False)):
            yield what, "batch", lambda b, first=first, axes=axes: _row(b, sizes["batch"], axes, first)  # type: ignore[misc]


def _whole(b: Builder, name: str) -> str:
    """A flat copy of a tensor with a zero at the end, because an empty tensor has no maximum."""
    flat = b.op("Reshape", name, b.const([-1]))
    return b.op("Concat", flat, b.const([0.0], np.float32), axis=0)


def _even(b: Builder, size: str) -> str:
    return b.op("Equal", b.op("Mod", size, b.const(2)), b.const(0))


def _row(b: Builder, place: tuple[str, int], axes: int, first: bool) -> str:
    count = b.size(*place)
    rows = b.unsqueeze(b.steps(count), *range(1, axes)) if axes > 1 else b.steps(count)
    if first:
        return b.op("Equal", rows, b.const(0))
    several = b.op("Greater", count, b.const(2))
    return b.op("And", several, b.op("Equal", rows, b.op("Sub", count, b.const(1))))


def _paddings(name: str) -> Iterator[tuple[str, Callable[[Builder], str]]]:
    def hidden(b: Builder) -> str:
        return b.op("Equal", name, b.const(0))

    def at(b: Builder, start: int, end: int) -> str:
        return b.any(b.op("Equal", b.cut(name, start, end, 1), b.const(0)))

    yield "with padding", lambda b: b.any(hidden(b))
    yield "with padding on the left", lambda b: at(b, 0, 1)
    yield "with padding on the right", lambda b: at(b, -1, 2**62)
    yield "without padding", lambda b: b.op("Not", b.any(hidden(b)))
    yield "every row padded", _every_row(name)
    yield "more padding than 12 tokens", _much(name)
    yield "a row that sees nothing", _blank_row(name)


def _counts(b: Builder, name: str) -> str:
    """The number of padding tokens of each row, as a float."""
    hidden = b.op("Cast", b.op("Equal", name, b.const(0)), to=FLOAT)
    return b.sum(hidden, 1, keep=False)


def _every_row(name: str) -> Callable[[Builder], str]:
    return lambda b: b.op("Not", b.any(b.op("Less", _counts(b, name), b.number(0.5))))


def _much(name: str) -> Callable[[Builder], str]:
    return lambda b: b.any(b.op("Greater", _counts(b, name), b.number(12.5)))


def _blank_row(name: str) -> Callable[[Builder], str]:
    def build(b: Builder) -> str:
        seen = b.sum(b.op("Cast", name, to=FLOAT), 1, keep=False)
        return b.any(b.op("Less", seen, b.number(0.5)))

    return build
