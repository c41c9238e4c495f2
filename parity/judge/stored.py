"""The tensors of an ONNX file as views of the files that have them: only values that are used are read.

The file is walked field by field, as a protocol buffer message: parsing it would copy all weights.
Source: protobuf.dev, "Encoding", and the field numbers of onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import onnx

# Field numbers of onnx.proto, by the message: the fields that lead to tensors.
_MODEL = {"graph": 7, "function": 25}
_GRAPH = {"node": 1, "initializer": 5}
_FUNCTION = {"node": 7}
_NODE = {"output": 2, "attribute": 5}
_ATTRIBUTE = {"tensor": 5, "graph": 6, "tensors": 10, "graphs": 11}
_TENSOR = {"raw_data": 9}
# Size in bytes from which a tensor's memory is released after use.
_BIG = 1 << 20
# Bytes of values that a message lacks if its file is read in parts.
_LARGE = 1 << 16
# Bytes of a file from which it is read in parts.
_IN_PARTS_FROM = 1 << 24

_Content: TypeAlias = "mmap.mmap | bytes"
# A name for a tensor without one of its own, and the bytes from its beginning to its end.
_Place: TypeAlias = tuple[str, int, int]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file: an initializer, or a constant under the name of the output of its node."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    content: _Content = field(repr=False)
    offset: int = field(repr=False)

    @property
    def count(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.count * self.dtype.itemsize

    @property
    def array(self) -> np.ndarray:
        """Its values, a read-only view of the file."""
        return np.frombuffer(self.content, self.dtype, self.count, self.offset).reshape(self.shape)

    def release(self) -> None:
        """Release the memory of its values; they are read again if they are used again."""
        if self.size >= _BIG:
            _release(self.content, self.offset, self.offset + self.size)


def _release(content: _Content, start: int, end: int) -> None:
    """Release the memory of a part of a file; it is read again if it is used again."""
    if isinstance(content, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        first = start - start % mmap.PAGESIZE
        content.madvise(mmap.MADV_DONTNEED, first, end - first)


def stored_tensors(path: Path) -> list[StoredTensor]:
    """The tensors of the file at `path`, with those of its subgraphs and functions, whose elements are whole bytes.

    Raises:
        OSError: the file, or a file with its data, is missing; `artifact.judge_artifact` reports that in a sentence.
    """
    contents = {path: _open(path)}
    tensors = []
    for name, start, end in _walk_model(contents[path]):
        tensor, content, offset, length = _read(contents, path, start, end)
        dtype = _dtype(tensor)
        if dtype is not None and length == math.prod(tensor.dims) * dtype.itemsize > 0:
            tensors.append(StoredTensor(tensor.name or name, dtype, tuple(tensor.dims), content, offset))
    return tensors


def read_model(path: Path) -> tuple[onnx.ModelProto, Mapping[str, memoryview]]:
    """The message in the file at `path`, and the values of its large initializers, which the message lacks.

    To parse these would copy them twice. External data is in neither; a view is read when it is used.

    Raises:
        Exception: it is no such message, of a class that depends on the release of onnx.
    """
    import onnx

    if path.stat().st_size < _IN_PARTS_FROM:
        return onnx.load(str(path), load_external_data=False), {}
    model, content, values = onnx.ModelProto(), _open(path), {}
    for number, before, first, last in _fields(content, 0, len(content)):
        if last > len(content):
            raise ValueError("a field ends after the file")
        if number != _MODEL["graph"]:
            model.MergeFromString(content[before:last])
            continue
        # A message is the merger of its parts, and a graph that of its own.
        for start, stop, place in _parts_of_graph(content, first, last):
            model.graph.MergeFromString(content[start:stop])
            if place is None:
                _release(content, start, stop)
            else:
                tensor, _, offset, length = _read({path: content}, path, *place)
                model.graph.initializer.append(tensor)
                values[tensor.name] = memoryview(content)[offset : offset + length]
    return model, values


def _parts_of_graph(content: _Content, start: int, end: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
    """Where whole fields of a graph stand, together about `_BIG` bytes, and the large initializer after them, if any.

    An initializer is large if its raw data is.
    """
    begin = start
    for number, before, first, last in _fields(content, start, end):
        if last > end:
            raise ValueError("a field ends after its message")
        if number == _GRAPH["initializer"] and last - first >= _LARGE and _has_large_values(content, first, last):
            yield begin, before, (first, last)
            begin = last
        elif last - begin >= _BIG:
            yield begin, last, None
            begin = last
    if begin < end:
        yield begin, end, None


def _has_large_values(content: _Content, start: int, end: int) -> bool:
    fields = list(_fields(content, start, end))
    if fields and fields[-1][3] != end:
        raise ValueError("a field ends after its message")
    # Of several values of one field, the last counts.
    return [last - first >= _LARGE for number, _, first, last in fields if number == _TENSOR["raw_data"]] == [True]


def _open(path: Path) -> _Content:
    with path.open("rb") as stream:
        # An empty file cannot be mapped.
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _dtype(tensor: onnx.TensorProto) -> np.dtype | None:
    import onnx

    if tensor.data_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return None
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)


def _read(
    contents: dict[Path, _Content], path: Path, start: int, end: int
) -> tuple[onnx.TensorProto, _Content, int, int]:
    """The tensor in a part of the file without its values, and where these are: content, offset, bytes."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    content = contents[path]
    raw = next((part for part in _fields(content, start, end) if part[0] == _TENSOR["raw_data"]), None)
    if raw is not None:
        _, before, first, last = raw
        # A message is the merger of its parts.
        return onnx.TensorProto.FromString(content[start:before] + content[last:end]), content, first, last - first
    tensor = onnx.TensorProto.FromString(content[start:end])
    if uses_external_data(tensor):
        info = ExternalDataInfo(tensor)
        data = path.parent / info.location
        if data not in contents:
            contents[data] = _open(data)
        offset = info.offset or 0
        return tensor, contents[data], offset, info.length or len(contents[data]) - offset
    # The older form: a list of numbers.
    values = onnx.numpy_helper.to_array(tensor).tobytes() if tensor.data_type != onnx.TensorProto.STRING else b""
    return tensor, values, 0, len(values)


def _walk_model(content: _Content) -> Iterator[_Place]:
    for number, _, start, end in _fields(content, 0, len(content)):
        if number == _MODEL["graph"]:
            yield from _walk_graph(content, start, end)
        elif number == _MODEL["function"]:
            for part, _, first, last in _fields(content, start, end):
                if part == _FUNCTION["node"]:
                    yield from _walk_node(content, first, last)


def _walk_graph(content: _Content, start: int, end: int) -> Iterator[_Place]:
    for number, _, first, last in _fields(content, start, end):
        if number == _GRAPH["initializer"]:
            yield "", first, last
        elif number == _GRAPH["node"]:
            yield from _walk_node(content, first, last)


def _walk_node(content: _Content, start: int, end: int) -> Iterator[_Place]:
    name = ""
    for number, _, first, last in _fields(content, start, end):
        if number == _NODE["output"]:
            name = name or content[first:last].decode()
        elif number == _NODE["attribute"]:
            for part, _, begin, stop in _fields(content, first, last):
                if part in (_ATTRIBUTE["tensor"], _ATTRIBUTE["tensors"]):
                    yield name, begin, stop
                elif part in (_ATTRIBUTE["graph"], _ATTRIBUTE["graphs"]):
                    yield from _walk_graph(content, begin, stop)


def _fields(content: _Content, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, start of its tag, start of its value, end of its value) of each field of a message."""
    place = start
    while place < end:
        tag, first = _varint(content, place)
        kind = tag & 7
        if kind == 2:
            length, first = _varint(content, first)
            last = first + length
        elif kind == 0:
            last = _varint(content, first)[1]
        else:
            last = first + (8 if kind == 1 else 4)
        yield tag >> 3, place, first, last
        place = last


def _varint(content: _Content, place: int) -> tuple[int, int]:
    """The number that begins there, seven bits a byte, and its end."""
    byte = content[place]
    if byte < 128:
        return byte, place + 1
    number, shift = byte & 127, 7
    while byte >= 128:
        place += 1
        byte = content[place]
        number |= (byte & 127) << shift
        shift += 7
    return number, place + 1
