"""An ONNX file and the data file next to it: joining, naming, publishing, and metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import SessionError
from parity.publication import Publication

if TYPE_CHECKING:
    import onnx

# The end of the stem of a model that failed its validation.
REJECTED = ".rejected"


# The metadata key for the data of a model: the layout of the tensors, and the hash of the bytes.
DATA = "data"
_ALIGNMENT = 4096  # needed by readers that map external data into memory


def data_file(model: Path) -> Path:
    """The path of the weights of a model over 2 GB, next to it."""
    return model.with_name(model.name + "_data")


def rejected_path(model: Path) -> Path:
    """The path of a model that failed its validation, next to its destination."""
    return model.with_name(f"{model.stem}{REJECTED}{model.suffix}")


def publish(staged_model: Path, destination: Path) -> None:
    """Move a finished model, and its data file if it has one, to its destination.

    Raises:
        UsageError, OutputError: see `publication.Publication.commit`.
    """
    publication = Publication(staged_model.parent, destination.parent)
    add_model(publication, staged_model, destination.name)
    publication.commit()


def add_model(publication: Publication, staged_model: Path, name: str) -> None:
    """Add a finished model, with its data file if it has one; otherwise an old data file of that name is removed.

    Args:
        publication: moves the files.
        staged_model: the path of the finished model.
        name: its name at the destination.
    """
    data, data_name = data_file(staged_model), data_file(Path(name)).name
    if not data.exists():
        publication.remove(data_name)
    else:
        if data.name != data_name:
            _rename_data(staged_model, data_name)
        publication.add(data, data_name)
    publication.add_entry(staged_model, name)


def remove_model(publication: Publication, name: str) -> None:
    """Remove a model and its data file."""
    publication.remove(name)
    publication.remove(data_file(Path(name)).name)


def _rename_data(path: Path, name: str) -> None:
    model = _load_graph(path)
    for tensor in _external_tensors_of(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    path.write_bytes(model.SerializeToString())


def external_tensors(path: Path) -> tuple[onnx.ModelProto | None, list[onnx.TensorProto]]:
    """The file's protocol buffer without its external data, and the tensors whose data is external.

    A file larger than 64 MB is not read, because it holds its own data.
    """
    if path.stat().st_size > 64 << 20:
        return None, []
    model = _load_graph(path)
    return model, _external_tensors_of(model)


def _load_graph(path: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(str(path), load_external_data=False)


def _external_tensors_of(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    return [tensor for tensor in _get_all_tensors(model) if uses_external_data(tensor)]


def gather_external_data(path: Path, name: str) -> str:
    """Join the data files that the exporter scattered next to the model at `path` into one file `name`.

    Works tensor by tensor, so that memory stays bounded, however large the model is.

    Returns:
        The value of the metadata key `DATA`; empty if there is no external data.
    """
    model, tensors = external_tensors(path)
    if model is None or not tensors:
        return ""
    old: set[Path] = set()
    digest = hashlib.sha256()
    with (path.parent / name).open("wb") as joined:

        def write(block: bytes) -> None:
            joined.write(block)
            digest.update(block)

        for tensor in tensors:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            source = path.parent / entries["location"]
            old.add(source)
            write(b"\0" * (-joined.tell() % _ALIGNMENT))
            start = joined.tell()
            with source.open("rb") as stream:
                stream.seek(int(entries.get("offset", 0)))
                left = int(entries.get("length", source.stat().st_size))
                while left:
                    block = stream.read(min(left, 1 << 24))
                    write(block)
                    left -= len(block)
            del tensor.external_data[:]
            for key, value in (("location", name), ("offset", start), ("length", joined.tell() - start)):
                tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(model.SerializeToString())
    for source in old:
        source.unlink()
    return f"{_layout(tensors)} sha256:{digest.hexdigest()}"


def foreign_data(model: onnx.ModelProto, directory: Path) -> str:
    """Why the data next to a model of ours is not its own; empty if it is, or if the metadata does not say.

    A tool that rewrites the data keeps the metadata, but not the offsets of the tensors: then nothing is reported.
    """
    claim = next((entry.value for entry in model.metadata_props if entry.key == DATA), "")
    layout, _, digest = claim.partition(" ")
    tensors = _external_tensors_of(model) if digest else []
    names = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    if len(names) != 1 or layout != _layout(tensors):
        return ""
    (name,) = names
    path = directory / name
    if not path.is_file() or f"sha256:{_digest_of(path)}" == digest:
        return ""
    return f"{name} is the data of another export than the model beside it; export again, or copy both files"


def require_own_data(path: Path) -> None:
    """Refuse a model that has another model's data next to it.

    Raises:
        SessionError
    """
    problem = foreign_data(_load_graph(path), path.parent)
    if problem:
        raise SessionError(f"{path}: {problem}")


def _layout(tensors: Iterable[onnx.TensorProto]) -> str:
    """A short hash of the place of each tensor in the data."""
    places = []
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        places.append((tensor.name, entries.get("offset"), entries.get("length")))
    return hashlib.sha256(repr(sorted(places, key=str)).encode()).hexdigest()[:16]


# Identity of a file, whatever its name (a judge runs a link to it) → the hash of its bytes.
_DIGESTS: dict[tuple[int, ...], str] = {}


def _digest_of(path: Path) -> str:
    status = path.stat()
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if identity not in _DIGESTS:
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        _DIGESTS[identity] = digest.hexdigest()
    return _DIGESTS[identity]


def append_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Add `metadata_props` to the ONNX file at `path` without reading it.

    A protocol buffer message followed by another is their merger, so the properties alone are appended.
    Source: protobuf.dev, "Encoding", last one wins and merging.
    """
    import onnx

    properties = onnx.ModelProto()
    for key, value in sorted(metadata.items()):
        properties.metadata_props.add(key=key, value=value)
    with path.open("ab") as stream:
        stream.write(properties.SerializeToString())
