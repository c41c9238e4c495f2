"""The declaration in a TorchScript archive of ours, read as data: the graph is code and is not loaded for this."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from parity import schema
from parity.aws import NEURON
from parity.paths import require_regular
from parity.schema import LARGEST_TENSOR, SchemaError

# Entry of the archive with its declaration, next to code and weights.
FACTS = "parity.json"
# The types of tensors that an input may have, by their names in PyTorch.
TENSOR_TYPES = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)
EMULATION = "emulation"
# Exceptions of the library for a damaged archive, including those for names that are not text.
_DAMAGES = (
    *(ArithmeticError, EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)
_LARGEST = 1 << 22  # bytes of the declaration
_SIZE = (1 << 31) - 1

_AXES = schema.entries(schema.choice(*map(str, range(16))), schema.text(200))
_COUNTS = schema.entries(schema.text(), schema.whole(0))
_DECLARATION = schema.table(
    {
        "parity": schema.text(),
        "model_type": schema.text(),
        "feature": schema.text(),
        "attention": schema.text(),
        "minimum_torch": schema.text(),
        "untied": schema.items(schema.text()),
        "pad": schema.whole(-_SIZE, _SIZE),
        "padding": schema.maybe(schema.flag),
        "inputs": schema.items(
            schema.table(
                {
                    "name": schema.text(),
                    "axes": _AXES,
                    "dtype": schema.choice(*TENSOR_TYPES),
                    "shape": schema.items(schema.whole(0, _SIZE), largest=16),
                }
            ),
            smallest=1,
        ),
        "outputs": schema.items(schema.table({"name": schema.text(), "axes": _AXES}), smallest=1),
    },
    {
        "checkpoint": schema.text(),
        "neuron": schema.table(
            {
                "engine": schema.choice("neuron", EMULATION),
                "package": schema.choice(*NEURON),
                "sdk": schema.text(),
                "compiled": schema.whole(0),
                "dynamic_batch": schema.flag,
                "outside": _COUNTS,
            }
        ),
    },
)


# The facts that name the owner of a file; all versions of parity have written them.
_OWNER = schema.table({"parity": schema.text(), "model_type": schema.text()}, {"checkpoint": schema.text()})


def read_owner(path: Path) -> dict[str, Any]:
    """Who wrote a file and from what; empty if it is not a file of parity.

    Raises:
        UsageError: the path is not that of a regular file.
    """
    try:
        content = _entry(path)
        facts: dict[str, Any] = schema.parse_json(content or b"null")
        _OWNER(facts, FACTS)
    except SchemaError:
        return {}
    return facts


def read_declaration(path: Path) -> dict[str, Any] | None:
    """The declaration in a file; None if it is an archive that has none.

    Raises:
        UsageError: the path is not that of a regular file.
        SchemaError: it is not an archive, or its declaration has values that parity does not write.
    """
    content = _entry(path)
    if content is None:
        return None
    declaration = schema.parse_json(content)
    _DECLARATION(declaration, FACTS)
    _require_consistent(declaration)
    return declaration


def _entry(path: Path) -> bytes | None:
    """The bytes of the declaration; None if the archive has no such entry."""
    require_regular(path, "file")
    if not zipfile.is_zipfile(path):
        raise SchemaError("torch.jit.load cannot load it: it is no archive, or its end is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{FACTS}")]
            if not names:
                return None
            if len(names) > 1 or archive.getinfo(names[0]).file_size > _LARGEST:
                raise SchemaError(f"{FACTS}: is in the archive {len(names)} times or too large, should be there once")
            return archive.read(names[0])
    except SchemaError:
        raise
    except _DAMAGES as error:
        raise SchemaError("the archive is damaged") from error


def _require_consistent(declaration: dict[str, Any]) -> None:
    for kind in ("inputs", "outputs"):
        names = [value["name"] for value in declaration[kind]]
        if len(set(names)) < len(names):
            raise SchemaError(f"{FACTS}.{kind}: names one twice, should name each once")
    elements = 0
    for index, value in enumerate(declaration["inputs"]):
        place, shape = f"{FACTS}.inputs[{index}]", value["shape"]
        if any(int(axis) >= len(shape) for axis in value["axes"]):
            raise SchemaError(f"{place}.axes: names an axis that the shape does not have, should be below {len(shape)}")
        elements += math.prod(shape)
        if elements > LARGEST_TENSOR:
            raise SchemaError(
                f"{place}.shape: has {math.prod(shape)} elements, should have at most {LARGEST_TENSOR} in all"
            )
