"""A traced model, and its TorchScript file with a declaration of inputs and outputs."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from parity import __version__, releases
from parity.archives import FACTS, read_declaration
from parity.arguments import own_numerics
from parity.axes import Role, role_of
from parity.dtypes import array_of, tensor_of
from parity.environment import version_of
from parity.errors import ExportError, SessionError, UsageError
from parity.files import require_room
from parity.releases import PAST
from parity.samples import Sizes
from parity.schema import SchemaError
from parity.turns import without_warnings

if TYPE_CHECKING:
    from parity.configs import OnnxConfig

# With less free space, a failed write is taken as a full disk: the writer does not report it.
_LITTLE = 1 << 20
# Files with fewer bytes of weights are measured before writing; larger ones get this much room for code.
_MEASURED = 1 << 26


@dataclass(frozen=True)
class TracedModel:
    """A trace and the facts about it.

    Args:
        module: the ScriptModule; it takes the tensors by position, in the order of `inputs`, and returns a tuple in
            the order of `outputs`.
        inputs, outputs: names with their named axes, as in an OnnxConfig. The outputs are the declared ones, then all
            others that the model returns.
        example: the tensors that it was traced with, by name; after loading from a file, their values are placeholders.
        model_type, feature, attention: of the model.
        untied: the input embeddings that shared the output embedding's weights in the model.
        minimum_torch: the oldest torch that loads it, as far as known.
        pad: the id of the padding token.
        padding: whether padding on the right leaves the model's answers unchanged; None if unknown.
        proof: the result of the comparison with the model at the traced shape; empty if there was none.
        checkpoint: the fingerprint of the checkpoint that the model was loaded from; empty if unknown.
        compared: numbers that the model's code compared sizes with in the trace; empty after loading from a file.
    """

    module: Any = field(repr=False)
    inputs: Mapping[str, Mapping[int, str]]
    outputs: Mapping[str, Mapping[int, str]]
    example: Mapping[str, torch.Tensor] = field(repr=False)
    model_type: str
    feature: str
    attention: str
    untied: tuple[str, ...] = ()
    minimum_torch: str = ""
    pad: int = 0
    padding: bool | None = None
    proof: str = ""
    checkpoint: str = ""
    compared: tuple[int, ...] = ()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The traced size of every named axis."""
        return Sizes(self.inputs, self.example).traced

    def __call__(self, *tensors: torch.Tensor, **by_name: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, a tuple, for tensors in the order of `inputs`, or by name, as tokenizers return them.

        Raises:
            UsageError: the names are not those of the inputs. Other errors are the ScriptModule's own.
        """
        if by_name:
            if tensors or by_name.keys() != self.inputs.keys():
                given = ", ".join([*by_name, *(["tensors without a name"] if tensors else [])])
                raise UsageError(
                    f"inputs: got {given}, should be {', '.join(self.inputs)}, all by name or all in order"
                )
            tensors = tuple(by_name[name] for name in self.inputs)
        self.require_tensors(tensors)
        with torch.no_grad():
            return self.module(*tensors)

    def require_tensors(self, tensors: Sequence[Any]) -> None:
        """Refuse tensors that no trace of these inputs can take; any sizes are accepted.

        Raises:
            UsageError: names the input, its value, and the expected value.
        """
        if len(tensors) != len(self.inputs):
            raise UsageError(
                f"inputs: got {len(tensors)} tensors, should be {len(self.inputs)}: {', '.join(self.inputs)}"
            )
        for (name, axes), tensor in zip(self.inputs.items(), tensors, strict=True):
            _require_tensor(name, tensor, self.example[name], axes)

    def by_output(self, results: Any) -> dict[str, torch.Tensor]:
        """The module's results, by the names of the outputs.

        Raises:
            SessionError: they do not match the declaration in the file.
        """
        given = results if isinstance(results, tuple) else (results,)
        if len(given) != len(self.outputs) or not all(isinstance(each, torch.Tensor) for each in given):
            raise SessionError(
                f"outputs: the trace returns {len(given)}, should return {len(self.outputs)} tensors:"
                f" {', '.join(self.outputs)}; its description does not match its graph, trace the model again"
            )
        return dict(zip(self.outputs, given, strict=True))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named arrays in, named arrays out.

        Raises:
            SessionError: the trace raises; the text is that of the operator, without the interpreter's traceback.
        """
        tensors = [tensor_of(inputs[name]) for name in self.inputs]
        try:
            with own_numerics():
                results = self(*tensors)
        except Exception as error:
            raise SessionError(operator_text(error)) from error
        return {name: array_of(result) for name, result in self.by_output(results).items()}

    def facts(self) -> dict[str, Any]:
        """The declaration in the file, as JSON data."""
        return {
            "parity": __version__,
            "torch": version_of("torch"),
            "transformers": version_of("transformers"),
            "model_type": self.model_type,
            "feature": self.feature,
            "attention": self.attention,
            "minimum_torch": self.minimum_torch,
            "untied": list(self.untied),
            "pad": self.pad,
            "padding": self.padding,
            **({"checkpoint": self.checkpoint} if self.checkpoint else {}),
            "inputs": [
                {
                    "name": name,
                    "axes": {str(axis): axis_name for axis, axis_name in axes.items()},
                    "dtype": str(self.example[name].dtype).removeprefix("torch."),
                    "shape": list(self.example[name].shape),
                }
                for name, axes in self.inputs.items()
            ],
            "outputs": [
                {"name": name, "axes": {str(axis): axis_name for axis, axis_name in axes.items()}}
                for name, axes in self.outputs.items()
            ],
        }


def _require_tensor(name: str, tensor: Any, example: torch.Tensor, axes: Mapping[int, str]) -> None:
    """Require a tensor with values, of the example's kind and number of axes.

    Args:
        name: of the input.
        tensor: the value to check.
        example: the traced tensor.
        axes: names of its axes, for the message.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(tensor, torch.Tensor):
        raise UsageError(f"inputs: {name} is a {type(tensor).__name__}, should be a torch tensor")
    if tensor.device.type == "meta" or tensor.layout is not torch.strided or tensor.is_quantized:
        where = "on the device meta" if tensor.device.type == "meta" else "sparse or quantised"
        raise UsageError(f"inputs: {name} is {where}, should be a dense tensor with values")
    if tensor.ndim != example.ndim:
        named = ", ".join(axes.get(axis, str(size)) for axis, size in enumerate(example.shape))
        raise UsageError(f"inputs: {name} has shape {tuple(tensor.shape)}, should have the axes {named}")
    if tensor.is_complex() or tensor.is_floating_point() != example.is_floating_point():
        dtypes = [str(each.dtype).removeprefix("torch.") for each in (tensor, example)]
        raise UsageError(f"inputs: {name} is of {dtypes[0]}, should be of {dtypes[1]}")


def load(path: str | os.PathLike) -> TracedModel:
    """Load a file that `export` has written. Its graph is code: load only files that you trust.

    Args:
        path: the file, usually ending in .pt.

    Raises:
        UsageError: `path` is no path.
        SessionError: torch cannot load it, or it does not name its inputs: use `torch.jit.load` then.
    """
    module, facts = read(path)
    return TracedModel(module=module, **fields_of(facts))


def declaration_of(path: str | os.PathLike) -> dict[str, Any]:
    """The declaration in a file that parity wrote; does not load the graph, which is code.

    Raises:
        UsageError: `path` is no path.
        SessionError: it is no regular file, or its declaration is missing or was not written by parity.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"path: got {type(path).__name__}, should be the path of a file that parity.torchscript wrote")
    try:
        facts = read_declaration(Path(path))
    except UsageError as error:
        raise SessionError(str(error)) from None
    except SchemaError as error:
        raise SessionError(f"{path}: is damaged, or parity did not write it: {error}; trace the model again") from error
    if facts is None:
        raise SessionError(
            f"{path}: does not name its inputs, so parity did not write it; torch.jit.load reads it, if you trust it"
        )
    return facts


def read(path: str | os.PathLike) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """The ScriptModule and the declaration of a file that parity wrote.

    Raises:
        UsageError, SessionError: see `load`.
    """
    facts = declaration_of(path)
    return load_graph(Path(path)), facts


def fields_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TracedModel` without the module, from the declaration in a file."""
    names = ("model_type", "feature", "attention", "minimum_torch", "pad", "padding")
    return {
        "inputs": {value["name"]: _axes(value) for value in facts["inputs"]},
        "outputs": {value["name"]: _axes(value) for value in facts["outputs"]},
        "example": {value["name"]: _placeholder(value) for value in facts["inputs"]},
        "untied": tuple(facts["untied"]),
        "checkpoint": facts.get("checkpoint", ""),
        **{name: facts[name] for name in names},
    }


def operator_text(error: Exception) -> str:
    """The message of the operator that failed, without the interpreter's traceback around it."""
    parts = re.split(r"^\w*(?:Error|Exception): ", str(error), flags=re.MULTILINE)
    return parts[-1].strip()


def nested_inputs(
    config: OnnxConfig, example: Mapping[str, Any] | Sequence[torch.Tensor] | torch.Tensor
) -> dict[str, Any]:
    """The example as the model's nested arguments.

    Raises:
        UsageError: it has more tensors than the configuration declares.
    """
    declared = list(config.inputs)
    if isinstance(example, torch.Tensor):
        example = [example]
    if not isinstance(example, Mapping):
        if len(example) > len(declared):
            raise UsageError(
                f"example_inputs: {len(example)} are given, {len(declared)} declared: {', '.join(declared)}"
            )
        example = dict(zip(declared, example))  # noqa: B905 - the last ones may be left out
    nested = releases.with_our_names(example)
    if releases.is_cache(nested.get(PAST)):
        nested[PAST] = releases.from_cache(nested[PAST])
    layers: dict[str, list[torch.Tensor]] = {}
    for name in [name for name in declared if name.startswith(f"{PAST}.") and name in nested]:
        layers.setdefault(name.split(".")[1], []).append(nested.pop(name))
    if layers:
        nested[PAST] = [tuple(tensors) for tensors in layers.values()]
    for name, value in nested.items():
        tensors = [tensor for layer in value for tensor in layer] if name == PAST else [value]
        wrong = next((each for each in tensors if not isinstance(each, torch.Tensor)), None)
        if wrong is not None:
            raise UsageError(f"example_inputs: {name} is a {type(wrong).__name__}, should be a torch tensor")
    return nested


def save(trace: TracedModel, path: Path) -> None:
    """Write the trace, with its declaration.

    Raises:
        ExportError, OSError: it cannot be written.
    """
    facts = {FACTS: json.dumps(trace.facts())}
    with without_warnings():
        try:
            # torch's writer ends the process when the disk is full.
            require_room(path, _room_for(trace.module, facts))
            torch.jit.save(trace.module, str(path), _extra_files=facts)
        except OSError:
            raise
        except Exception as error:
            if shutil.disk_usage(path.parent).free < _LITTLE:
                raise OSError(errno.ENOSPC, "No space left on device") from error
            text = " ".join(str(error).split())[:300]
            raise ExportError(f"torch.jit.save failed: {type(error).__name__}: {text}") from error


def _room_for(module: torch.jit.ScriptModule, facts: Mapping[str, str]) -> int:
    """The most bytes that a file of the module takes; a small one is measured in memory."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in chain(module.parameters(), module.buffers()))
    if weights > _MEASURED:
        return weights + _MEASURED
    size = len(module.save_to_buffer(_extra_files=dict(facts)))
    return size + size // 16 + 4096  # each part begins with the file's name


def load_graph(path: Path) -> torch.jit.ScriptModule:
    """The ScriptModule of a file, on the CPU; loading it may run code in it.

    Raises:
        SessionError: torch cannot load it.
    """
    with without_warnings():
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise SessionError(f"{path}: torch.jit.load cannot load it: {text}") from error


def _axes(value: Mapping[str, Any]) -> dict[int, str]:
    return {int(axis): axis_name for axis, axis_name in value["axes"].items()}


def _placeholder(value: Mapping[str, Any]) -> torch.Tensor:
    """A tensor of the example's shape and dtype, because the file has no values."""
    dtype = getattr(torch, value["dtype"])
    if dtype.is_floating_point:
        return torch.randn(value["shape"], generator=torch.Generator().manual_seed(0)).to(dtype)
    return (torch.ones if role_of(value["name"]) is Role.MASK else torch.zeros)(value["shape"], dtype=dtype)
