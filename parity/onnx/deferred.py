"""Export without weights, and write these into the file afterwards, which takes less memory.

Below 2 GB torch builds one message with all weights, turns it into bytes, and these into a message again: the memory
holds five times the model. Here torch gets empty tensors, and each weight goes from the model into the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from parity.dtypes import array_of, bytes_of_parameters

if TYPE_CHECKING:
    import onnx

# Bytes of a model whose weights are deferred. For larger models, torch writes a file for each weight.
SMALLEST, LARGEST = 1 << 28, 1_900_000_000
# Bytes of the smallest tensor that is deferred.
_LARGE = 1024
# Field numbers of onnx.proto, which are in ascending order in a file.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_BEFORE_GRAPH = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")
_BEFORE_INITIALIZERS = ("node", "name")


@contextlib.contextmanager
def deferred_weights(model: torch.nn.Module, path: Path) -> Iterator[None]:
    """Inside, torch exports the model to `path` without its large weights; these are written at the end."""
    size = bytes_of_parameters(model)
    if not SMALLEST <= size <= LARGEST:
        yield
        return
    own, weights = torch._C.Graph._export_onnx, {}

    def export_onnx(graph: Any, parameters: Mapping[str, torch.Tensor], *arguments: Any, **options: Any) -> Any:
        large = {name: tensor for name, tensor in parameters.items() if _bytes_of(tensor) >= _LARGE}
        weights.update(large)
        small = {**parameters, **{name: each.new_empty(0) for name, each in large.items()}}
        return own(graph, small, *arguments, **options)

    torch._C.Graph._export_onnx = export_onnx
    try:
        yield
    finally:
        torch._C.Graph._export_onnx = own
    if weights:
        insert_weights(path, weights)


@contextlib.contextmanager
def shapes_without_weights() -> Iterator[None]:
    """Inside, torch infers shapes without the values of large weights, which takes half as long.

    It makes a message of every node with the weights that the node reads, and copies them several times. Without them
    it takes their types and shapes from the graph, which are all that shapes depend on: only small tensors and whole
    numbers are sizes, axes or scales.
    """
    own = torch._C._jit_pass_onnx_graph_shape_type_inference

    def infer(graph: Any, parameters: Mapping[str, torch.Tensor], *arguments: Any, **options: Any) -> Any:
        small = {
            name: tensor
            for name, tensor in parameters.items()
            if _bytes_of(tensor) < _LARGE or not tensor.is_floating_point()
        }
        return own(graph, small, *arguments, **options)

    torch._C._jit_pass_onnx_graph_shape_type_inference = infer
    try:
        yield
    finally:
        torch._C._jit_pass_onnx_graph_shape_type_inference = own


def _bytes_of(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def insert_weights(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the weights into the empty initializers with their names in the file at `path`, as torch would."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    parts = [_Part(tensor, weights.get(tensor.name)) for tensor in model.graph.initializer]
    model.graph.ClearField("initializer")
    before, after = _split(model.graph, _BEFORE_INITIALIZERS)
    size = len(before) + len(after) + sum(len(_field(_INITIALIZER, part.size)) + part.size for part in parts)
    model.ClearField("graph")
    start, end = _split(model, _BEFORE_GRAPH)
    with path.open("wb") as stream:
        stream.write(start + _field(_GRAPH, size) + before)
        for part in parts:
            stream.write(_field(_INITIALIZER, part.size))
            part.write(stream)
        stream.write(after + end)


class _Part:
    """A tensor of the file: its message, or its message without values and the weight that has them."""

    def __init__(self, tensor: onnx.TensorProto, weight: torch.Tensor | None) -> None:
        self._weight = weight
        if weight is not None:
            tensor.dims[:] = weight.shape
            tensor.ClearField("raw_data")
        self._head = tensor.SerializeToString()
        if weight is not None:
            self._head += _field(_RAW_DATA, _bytes_of(weight))

    @property
    def size(self) -> int:
        """The number of its bytes in the file."""
        return len(self._head) + (0 if self._weight is None else _bytes_of(self._weight))

    def write(self, stream: IO[bytes]) -> None:
        """Write the tensor, without the beginning of its field."""
        stream.write(self._head)
        if self._weight is not None:
            # Its bytes without a copy.
            stream.write(array_of(self._weight.cpu().contiguous()).reshape(-1).view("uint8").data)


def _split(message: Any, first: tuple[str, ...]) -> tuple[bytes, bytes]:
    """The message in two parts: the fields with these names, and all others."""
    head, tail = type(message)(), type(message)()
    head.CopyFrom(message)
    tail.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        (tail if descriptor.name in first else head).ClearField(descriptor.name)
    return head.SerializeToString(), tail.SerializeToString()


def _field(number: int, length: int) -> bytes:
    """The beginning of a field of that many bytes."""
    content = bytearray()
    for value in (number << 3 | 2, length):
        left = value
        while left >= 128:
            content.append(left & 127 | 128)
            left >>= 7
        content.append(left)
    return bytes(content)
