"""A traced model, and the TorchScript file that says what it is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from parity import __version__, releases
from parity.axes import Role, role_of
from parity.dtypes import array_of, tensor_of
from parity.environment import version_of
from parity.errors import ExportError, SessionError, UsageError
from parity.releases import PAST
from parity.samples import Sizes

if TYPE_CHECKING:
    from parity.configs import OnnxConfig

# What a file says of itself, beside its code and weights.
FACTS = "parity.json"


# Free bytes below which a failure to write is put down to the disk: the writer does not say.
_LITTLE = 1 << 20


@dataclass(frozen=True)
class TracedModel:
    """A trace, and what is known of it.

    Args:
        module: the ScriptModule; it takes the tensors by position, in the order of `inputs`, and returns a tuple in
            the order of `outputs`.
        inputs, outputs: names with their named axes, as an OnnxConfig has them. The outputs are the declared ones, then
            whatever else the model returns.
        example: the tensors that it was traced with, by name; their values are made up where it was read from a file.
        model_type, feature, attention: of the model.
        untied: the input embeddings that shared the output embedding's weights in the model.
        minimum_torch: the oldest torch that loads it, as far as known.
        pad: the id of the padding token.
        padding: whether the model's answers stay the same under padding on the right; None where nothing is known.
        proof: what the comparison with the model at the traced shape has shown; empty where there was none.
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

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The traced size of every named axis."""
        return Sizes(self.inputs, self.example).traced

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, a tuple, for tensors in the order of `inputs`; that of the ScriptModule, errors included."""
        with torch.no_grad():
            return self.module(*tensors)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Named arrays in, named arrays out.

        Raises:
            SessionError: the trace raises; the text is that of the operator, without the interpreter's traceback.
        """
        tensors = [tensor_of(inputs[name]) for name in self.inputs]
        try:
            results = self(*tensors)
        except Exception as error:
            raise SessionError(operator_text(error)) from error
        return {name: array_of(result) for name, result in zip(self.outputs, results, strict=True)}

    def facts(self) -> dict[str, Any]:
        """What the file says of itself, as JSON."""
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


def load(path: str | os.PathLike) -> TracedModel:
    """A file that `export` has written.

    Raises:
        SessionError: torch cannot load it, or it does not say what its inputs are: `torch.jit.load` reads it then.
    """
    module, facts = read(path)
    return TracedModel(module=module, **fields_of(facts))


def read(path: str | os.PathLike) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """The ScriptModule of a file that parity wrote, and what the file says of itself.

    Raises:
        SessionError: see `load`.
    """
    extra = {FACTS: ""}
    module = _load(Path(path), extra)
    try:
        return module, json.loads(extra[FACTS])
    except ValueError:
        raise SessionError(
            f"{path}: does not name its inputs, so parity did not write it; torch.jit.load reads it"
        ) from None


def fields_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TracedModel`, all but the module, from what a file says of itself."""
    names = ("model_type", "feature", "attention", "minimum_torch", "pad", "padding")
    return {
        "inputs": {value["name"]: _axes(value) for value in facts["inputs"]},
        "outputs": {value["name"]: _axes(value) for value in facts["outputs"]},
        "example": {value["name"]: _placeholder(value) for value in facts["inputs"]},
        "untied": tuple(facts["untied"]),
        **{name: facts[name] for name in names},
    }


def operator_text(error: Exception) -> str:
    """The message of the operator that failed, without the interpreter's traceback around it."""
    parts = re.split(r"^\w*(?:Error|Exception): ", str(error), flags=re.MULTILINE)
    return parts[-1].strip()


def nested_inputs(
    config: OnnxConfig, example: Mapping[str, Any] | Sequence[torch.Tensor] | torch.Tensor
) -> dict[str, Any]:
    """The example as the model's nested arguments."""
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
    """Write the trace, with what it says of itself.

    Raises:
        ExportError, OSError: it cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.jit.save(trace.module, str(path), _extra_files={FACTS: json.dumps(trace.facts())})
        except OSError:
            raise
        except Exception as error:
            if shutil.disk_usage(path.parent).free < _LITTLE:
                raise OSError(errno.ENOSPC, "No space left on device") from error
            text = " ".join(str(error).split())[:300]
            raise ExportError(f"torch.jit.save failed: {type(error).__name__}: {text}") from error


def _load(path: Path, extra: dict[str, str]) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise SessionError(f"{path}: no such file; give a file that parity.torchscript wrote")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise SessionError(f"{path}: torch.jit.load cannot load it: {text}") from error


def _axes(value: Mapping[str, Any]) -> dict[int, str]:
    return {int(axis): axis_name for axis, axis_name in value["axes"].items()}


def _placeholder(value: Mapping[str, Any]) -> torch.Tensor:
    """A tensor of the example's shape and dtype, whose values the file does not have."""
    dtype = getattr(torch, value["dtype"])
    if dtype.is_floating_point:
        return torch.randn(value["shape"], generator=torch.Generator().manual_seed(0)).to(dtype)
    return (torch.ones if role_of(value["name"]) is Role.MASK else torch.zeros)(value["shape"], dtype=dtype)
