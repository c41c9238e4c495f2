"""An ONNX file on disk: the checker's verdict, weights that are written twice, and external data.

A weight written twice is a pair of initializers of one dtype and shape with equal bytes: the result if an exporter
ignores that a weight is tied. Small weights do not count, nor do constant ones, such as the gains of fresh norms. A
transposed copy does not count either: constant folding makes one of every tied embedding that a matrix product reads,
in TorchScript's exporter and in those built on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from parity import stages
from parity.judge import stored
from parity.judge.findings import Finding
from parity.onnx_files import foreign_data

if TYPE_CHECKING:
    import onnx

SMALLEST = 1024  # bytes; a smaller weight does not count
_PREFIX = 64
# Location, offset and length of an external tensor.
_Place = tuple[str, int, int]


@dataclass(frozen=True)
class Data:
    """One file of external data: its location in the model, and the least number of bytes that it must have."""

    location: str
    size: int


def external_files(model: onnx.ModelProto) -> tuple[Data, ...]:
    """The files of a ModelProto's external tensors, by location."""
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    sizes: dict[str, int] = {}
    for tensor in _get_all_tensors(model):
        if uses_external_data(tensor):
            location, offset, length = _place(tensor)
            sizes[location] = max(sizes.get(location, 0), offset + length)
    return tuple(Data(location, size) for location, size in sorted(sizes.items()))


def _place(tensor: onnx.TensorProto) -> _Place:
    """(location, offset, length) of an external tensor; the length is that of its values if the model gives none."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    length = int(entries.get("length", _size(tensor)))
    return entries.get("location", ""), int(entries.get("offset", 0)), length


def _size(tensor: onnx.TensorProto) -> int:
    """The bytes of a tensor's values; 0 for text, which has no fixed width."""
    import onnx

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return 0 if dtype.hasobject else math.prod(tensor.dims) * dtype.itemsize


def judge_artifact(
    model: onnx.ModelProto, directory: Path, values: Mapping[str, memoryview] | None = None
) -> tuple[Finding, ...]:
    """Findings on a ModelProto in a directory: one for each external file, one on weights that are written twice.

    An external file must be in the directory or below, be long enough, and be the one that the model was exported with,
    if the model says so.

    Args:
        model: the ModelProto.
        directory: of its file.
        values: those of initializers that lack them, by name.
    """
    findings = _judge_data(external_files(model), directory)
    if foreign := foreign_data(model, directory):
        findings.append(Finding("data", "file", False, f"external data: {foreign}"))
    return (*findings, _judge_copies(duplicate_weights(model, directory, values)))


def _judge_copies(pairs: Sequence[tuple[str, str, int]]) -> Finding:
    if not pairs:
        return Finding("duplicates", "file", True)
    first, name, size = max(pairs, key=lambda pair: pair[2])
    message = (
        f"file: {len(pairs)} weights are written twice, should be once each; the largest is {first}, again as {name},"
        f" {size} bytes"
    )
    return Finding("duplicates", "file", False, message)


def _judge_data(data: Iterable[Data], directory: Path) -> list[Finding]:
    findings = []
    for each in data:
        problem = _data_problem(each, directory)
        message = f"external data {each.location}: {problem}; keep it beside the model and name it by its file name"
        findings.append(Finding("data", "file", not problem, message if problem else ""))
    return findings


def _data_problem(data: Data, directory: Path) -> str:
    foreign: tuple[PurePath, ...] = (PurePosixPath(data.location), PureWindowsPath(data.location))
    if any(path.is_absolute() or path.drive or ".." in path.parts for path in foreign):
        return "is outside the model's directory, so that a copy of the directory would lack it"
    path = directory / data.location
    if not data.location or not path.is_file():
        return "does not exist"
    size = path.stat().st_size
    return "" if size >= data.size else f"has {size} bytes, should have at least {data.size}"


def judge_checker(path: Path) -> Finding:
    """The verdict of the ONNX project's checker, with shape inference; by path, so that any size works.

    The checker does not look at the values of weights, but copies them. So it gets a copy of the file without the large
    ones; if it refuses that, the file itself decides.
    """
    import onnx

    with contextlib.suppress(Exception), stages.fresh_directory(Path(tempfile.gettempdir())) as directory:
        copy = directory / "model.onnx"
        if _write_without_values(path, copy):
            onnx.checker.check_model(str(copy), full_check=True)
            return Finding("checker", "file", True)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        message = f"file: the checker of ONNX refuses it: {' '.join(str(error).split())[:300]}"
        return Finding("checker", "file", False, message)
    return Finding("checker", "file", True)


def _write_without_values(path: Path, copy: Path) -> bool:
    """Write the file at `path` with its large initializers in an empty file next to it.

    Returns:
        Whether it was written: there are large initializers, and each has as many bytes as its type and shape need.
    """
    model, values = stored.read_model(path)
    large = [tensor for tensor in model.graph.initializer if tensor.name in values]
    if not large or [len(values[tensor.name]) for tensor in large] != [_size(tensor) for tensor in large]:
        return False
    for tensor in large:
        tensor.data_location = tensor.EXTERNAL
        for key, value in (("location", "values"), ("length", str(_size(tensor)))):
            tensor.external_data.add(key=key, value=value)
    with copy.with_name("values").open("wb") as stream:
        stream.truncate(max(map(len, values.values())))
    copy.write_bytes(model.SerializeToString())
    return True


def duplicate_weights(
    model: onnx.ModelProto, directory: Path, values: Mapping[str, memoryview] | None = None
) -> list[tuple[str, str, int]]:
    """(name, name of its copy, bytes) of every weight that the file has again under another name.

    Args:
        model, directory, values: see `judge_artifact`.
    """
    groups: dict[tuple[int, tuple[int, ...], int], list[tuple[str, _Bytes]]] = defaultdict(list)
    for tensor in model.graph.initializer:
        content = _Bytes(tensor, directory, (values or {}).get(tensor.name))
        if content.size >= SMALLEST:
            groups[tensor.data_type, tuple(tensor.dims), content.size].append((tensor.name, content))
    pairs: list[tuple[str, str, int]] = []
    for group in groups.values():
        if len(group) > 1:
            pairs.extend(_copies(group))
    return pairs


def _copies(group: Iterable[tuple[str, _Bytes]]) -> Iterator[tuple[str, str, int]]:
    """Pairs of one group; whole tensors are compared only if they begin alike."""
    beginnings: dict[bytes, list[tuple[str, _Bytes]]] = defaultdict(list)
    for name, values in group:
        beginnings[values.read(_PREFIX)].append((name, values))
    for alike in beginnings.values():
        seen: dict[bytes, tuple[str, _Place | None]] = {}
        for name, values in alike if len(alike) > 1 else ():
            first, place = seen.setdefault(values.digest(), (name, values.place))
            if first != name and not (place and place == values.place) and not values.has_one_value():
                yield first, name, values.size


class _Bytes:
    """The bytes of an initializer, read from the file that has them; a missing file has none."""

    def __init__(self, tensor: onnx.TensorProto, directory: Path, values: memoryview | None = None) -> None:
        from onnx.external_data_helper import uses_external_data

        self._tensor, self._values, self.size = tensor, values, _size(tensor)
        self.place: _Place | None = None
        self._path: Path | None = None
        if uses_external_data(tensor):
            location, self._offset, self.size = self.place = _place(tensor)
            self._path = directory / location
            if not self._path.is_file():
                self.size = 0

    def read(self, count: int) -> bytes:
        """The first `count` bytes."""
        return next(self.blocks(count), b"")[:count]

    def blocks(self, size: int = 1 << 24) -> Iterator[bytes]:
        """All bytes, at most `size` at a time if the message lacks them."""
        if self._path is None and self._values is not None:
            for start in range(0, len(self._values), size):
                yield bytes(self._values[start : start + size])
            return
        if self._path is None:
            import onnx

            raw = self._tensor.HasField("raw_data")
            yield self._tensor.raw_data if raw else onnx.numpy_helper.to_array(self._tensor).tobytes()
            return
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            left = self.size
            while left > 0 and (block := stream.read(min(left, size))):
                left -= len(block)
                yield block

    def digest(self) -> bytes:
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.digest()

    def has_one_value(self) -> bool:
        """Whether all its values are equal."""
        width = self.size // (math.prod(self._tensor.dims) or 1) or 1
        first = self.read(width)
        return all(block == first * (len(block) // width) for block in self.blocks(width << 20))
