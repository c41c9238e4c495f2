"""Faults of weights: rows of tables, single elements, biases of heads, exchanged, scaled or rounded tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from onnx import TensorProto

from parity.reports.mutation.graphs import Fault, Graph
from parity.reports.mutation.roles import role_of_weight, scope_of

ROWS, ELEMENT, BIASES, EXCHANGES, SCALES = (
    "rows of tables",
    "one element",
    "biases",
    "exchanged",
    "scales and rounding",
)


def find(graph: Graph, draw: np.random.Generator) -> Iterator[Fault]:
    """All faults of weights that a file can have."""
    places = {name: role_of_weight(graph, name) for name in graph.tensors if _is_weight(graph, name)}
    for name, role in places.items():
        if role.startswith("table"):
            yield from _rows(graph, name, role)
        yield from _elements(graph, name, role, draw)
        if role.endswith("bias") and not role.startswith("table"):
            yield from _biases(graph, name, role)
    yield from _exchanges(graph, places)


def _is_weight(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    return tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= 8


def changing(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Graph], None]:
    """A change of the graph that applies a function, in place, to the array of a tensor."""

    def apply(graph: Graph) -> None:
        array = graph.array(name)
        assert array is not None
        values = array.copy()
        change(values)
        graph.set_array(name, values)

    return apply


def _rows(graph: Graph, name: str, role: str) -> Iterator[Fault]:
    shape = list(graph.tensors[name].dims)
    # The position table of an image model has a first axis of size one.
    head: tuple[int, ...] = (0,) if len(shape) == 3 and shape[0] == 1 else ()
    count = shape[len(head)]
    places: dict[str, int | slice] = {"the first row is zero": 0, "the last row is zero": count - 1}
    if count > 4:
        places |= {"a row in the middle is zero": count // 2, "the last row but one is zero": count - 2}
        places |= {"rows from the half on are zero": slice(count // 2, None)}
    if count > 40:
        places |= {"rows from 32 on are zero": slice(32, None)}
    for what, place in places.items():

        def zero(values: np.ndarray, place: int | slice = place) -> None:
            values[(*head, place)] = 0

        yield Fault(ROWS, what, role, changing(name, zero), name)

    def repeat(values: np.ndarray) -> None:
        values[(*head, count - 1)] = values[(*head, count - 2)]

    yield Fault(ROWS, "the last row is the one before", role, changing(name, repeat), name)


def _elements(graph: Graph, name: str, role: str, draw: np.random.Generator) -> Iterator[Fault]:
    array = graph.array(name)
    assert array is not None
    flat = np.abs(array).reshape(-1)
    # Not an element that is close to zero.
    place = int(draw.choice(np.flatnonzero(flat >= np.median(flat))))

    def flip(values: np.ndarray) -> None:
        values.reshape(-1)[place] *= -1

    def move(values: np.ndarray) -> None:
        values.reshape(-1)[place] *= 1.01

    yield Fault(ELEMENT, "one element has the other sign", role, changing(name, flip), name)
    yield Fault(ELEMENT, "one element is a hundredth more", role, changing(name, move), name)
    if role.startswith("table"):
        return

    def stretch(values: np.ndarray) -> None:
        values *= np.float32(1.001)

    def halve(values: np.ndarray) -> None:
        values[...] = values.astype(np.float16).astype(np.float32)

    yield Fault(SCALES, "a thousandth more", role, changing(name, stretch), name)
    if not role.endswith("bias"):
        yield Fault(SCALES, "rounded to float16", role, changing(name, halve), name)


def _biases(graph: Graph, name: str, role: str) -> Iterator[Fault]:
    size = graph.tensors[name].dims[0]

    def drop(values: np.ndarray) -> None:
        values[:] = 0

    yield Fault(BIASES, "zero", role, changing(name, drop), name)
    if role.split()[0] in ("query", "value", "merged", "cross-attention") and size % 4 == 0:
        parts = 3 if role.startswith("merged") else 1
        width = size // parts // 4

        def blank(values: np.ndarray, start: int) -> None:
            values[start : start + width] = 0

        starts = {"of the first head is zero": 0, "of the last head is zero": size - width}
        for what, start in starts.items():

            def apply(values: np.ndarray, start: int = start) -> None:
                blank(values, start)

            yield Fault(BIASES, what, role, changing(name, apply), name)


def _exchanges(graph: Graph, places: dict[str, str]) -> Iterator[Fault]:
    """Faults that exchange two tensors of equal size, or parts of one."""
    by_role: dict[str, list[str]] = {}
    for name, role in places.items():
        by_role.setdefault(role, []).append(name)
    for role, names in by_role.items():
        for one, other in pairwise(names):
            if list(graph.tensors[one].dims) == list(graph.tensors[other].dims):
                yield Fault(EXCHANGES, "two layers'", role, _swap(one, other), f"{one} {other}")
    pairs = (("key weight", "value weight"), ("query weight", "key weight"), ("query bias", "value bias"))
    for first, second in pairs:
        for one, other in zip(by_role.get(first, ()), by_role.get(second, ()), strict=False):
            if list(graph.tensors[one].dims) == list(graph.tensors[other].dims):
                yield Fault(EXCHANGES, "each other's", f"{first} and {second}", _swap(one, other), f"{one} {other}")
    for name in by_role.get("norm scale", ()):
        other = name.replace("weight", "bias")
        if other in graph.tensors and other != name:
            yield Fault(EXCHANGES, "each other's", "norm scale and bias", _swap(name, other), name)
    for name, role in places.items():
        tensor = graph.tensors[name]
        if len(tensor.dims) == 2 and tensor.dims[0] == tensor.dims[1]:
            yield Fault(EXCHANGES, "transposed", role, _transpose(name), scope_of(graph, name))
        if len(tensor.dims) == 2 and not role.startswith("table") and tensor.dims[1] % 4 == 0:
            yield Fault(EXCHANGES, "its first two heads are each other's", role, _swap_heads(name), name)


def _swap(one: str, other: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        first, second = graph.array(one), graph.array(other)
        assert first is not None
        assert second is not None
        graph.set_array(one, second)
        graph.set_array(other, first)

    return apply


def _transpose(name: str) -> Callable[[Graph], None]:
    def apply(graph: Graph) -> None:
        array = graph.array(name)
        assert array is not None
        graph.set_array(name, array.T)

    return apply


def _swap_heads(name: str) -> Callable[[Graph], None]:
    def apply(values: np.ndarray) -> None:
        width = values.shape[1] // 4
        own = values.copy()
        values[:, :width], values[:, width : 2 * width] = own[:, width : 2 * width], own[:, :width]

    return changing(name, apply)
