"""Checks of a ModelProto that somebody else may have written: refused if no judgement of it would mean anything."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from parity import schema
from parity.errors import ExportError
from parity.schema import SchemaError

if TYPE_CHECKING:
    import onnx

# Initializers and nodes: the largest graphs of language models have a tenth of that.
LARGEST_GRAPH = 100_000
_OPSET = schema.whole(1, 1000)
_NAME = schema.text(1000)
_PLACE = schema.pattern(r"\d{1,18}", "a whole number of bytes")
_METADATA = schema.text(10_000)


def require_sane(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file that cannot be judged, before anything of the size that it names is allocated.

    Raises:
        ExportError: names the place, its value, and what it should be.
    """
    try:
        _check_size(model)
        for entry in model.opset_import:
            _OPSET(entry.version, f"opset_import {entry.domain or 'ai.onnx'}")
        _check_names(model.graph)
        for tensor in _tensors(model):
            _check_tensor(tensor, path)
        _check_metadata(model.metadata_props)
    except SchemaError as error:
        raise ExportError(f"{path}: {error}; export it again, or ask whoever wrote it") from None


def _check_size(model: onnx.ModelProto) -> None:
    for name, count in (("initializers", len(model.graph.initializer)), ("nodes", len(model.graph.node))):
        if count > LARGEST_GRAPH:
            raise SchemaError(f"graph: has {count} {name}, should have at most {LARGEST_GRAPH}")


def _check_names(graph: onnx.GraphProto) -> None:
    for kind, values in (("input", graph.input), ("output", graph.output)):
        _check_once(kind, (value.name for value in values))
        for value in values:
            number = value.type.tensor_type.elem_type
            if number not in _types():
                raise SchemaError(
                    f"{kind} {value.name}: is of type {number}, should be a tensor of one that ONNX defines"
                )
    _check_once("initializer", (tensor.name for tensor in graph.initializer))


@functools.cache
def _types() -> frozenset[int]:
    """The numbers of the types of tensors that ONNX defines."""
    import onnx

    return frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


def _check_once(kind: str, names: Iterable[str]) -> None:
    counts = Counter(names)
    for name, count in counts.items():
        _NAME(name, f"the name of an {kind}")
        if not name or count > 1:
            what = f"{kind} {name}: is there {count} times" if name else f"an {kind}: has no name"
            raise SchemaError(f"{what}, should be there once, under a name")


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    from onnx.external_data_helper import _get_all_tensors

    yield from _get_all_tensors(model)


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    from onnx.external_data_helper import uses_external_data

    place = f"tensor {tensor.name if tensor.name.isprintable() else ascii(tensor.name)}"
    if tensor.data_type not in _types():
        raise SchemaError(f"{place}: is of type {tensor.data_type}, should be of one that ONNX defines")
    if any(size < 0 for size in tensor.dims):
        raise SchemaError(f"{place}: has the shape {list(tensor.dims)[:8]}, should have no negative size")
    if not uses_external_data(tensor):
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    for key in ("offset", "length"):
        if key in entries:
            _PLACE(entries[key], f"{place}: {key}")
    location = entries.get("location", "")
    _NAME(location, f"{place}: location")
    try:
        is_own = os.path.samefile(path.parent / location, path)
    except OSError:
        return  # `artifact.judge_artifact` reports a missing file
    if is_own:
        raise SchemaError(f"{place}: its data is in {location}, the model itself, should be in a file of its own")


def _check_metadata(properties: Iterable[onnx.StringStringEntryProto]) -> None:
    values: dict[str, str] = {}
    for entry in properties:
        # Metadata of others may be of any kind.
        if entry.key in _OWN:
            _METADATA(entry.value, f"metadata {entry.key}")
            if values.setdefault(entry.key, entry.value) != entry.value:
                both = f"{values[entry.key]} and {entry.value}"
                raise SchemaError(f"metadata {entry.key}: is {both}, should have one value")


# The keys that parity writes and reads.
_OWN = ("attention", "checkpoint", "data", "dtype", "exporter", "feature", "model_type", "parity", "part")
