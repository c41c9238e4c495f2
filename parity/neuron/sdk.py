"""The tracer: torch_neuron for Inf1, torch_neuronx for Inf2 and Trn1, or torch as an emulation."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from parity import aws
from parity.archives import EMULATION
from parity.aws import NEURON
from parity.errors import EnvironmentGap, UsageError

# The keywords of the tracers, in addition to those of torch.jit.trace, which torch_neuron passes on.
KEYWORDS = {
    "torch_neuron": (
        "compiler_args",
        "compiler_timeout",
        "compiler_workdir",
        "subgraph_builder_function",
        "minimum_segment_size",
        "single_fusion_ratio_threshold",
        "fallback",
        "dynamic_batch_size",
        "optimizations",
        "separate_weights",
    ),
    "torch_neuronx": (
        "compiler_args",
        "compiler_workdir",
        "partitioner_config",
        "inline_weights_to_neff",
        "input_output_aliases",
        "dynamic_batch_size",
    ),
}
# Prefixes of the kinds of nodes with compiled code.
_MARKERS = {"torch_neuron": "neuron::forward", "torch_neuronx": "neuron::"}
_NOT_TRACED = ("func", "example_inputs", "example_kwarg_inputs")


@dataclass(frozen=True)
class Tracer:
    """The compiler: a package of the SDK, or torch.jit.trace if nothing is compiled.

    Args:
        package: a key of `aws.NEURON`.
        engine: `neuron`, or `emulation`.
        marker: prefix of the kinds of nodes with compiled code.
        gate: the answer of the gate; None for the emulation, which needs none.
    """

    package: str
    engine: str
    marker: str
    gate: aws.Neuron | None

    @property
    def runs(self) -> bool:
        """Whether compiled models can run here."""
        return self.gate is None or self.gate.runs

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse keywords that the tracer does not have.

        Raises:
            UsageError: lists them.
        """
        keywords = list(KEYWORDS[self.package])
        if self.package == "torch_neuron":
            keywords += [name for name in inspect.signature(torch.jit.trace).parameters if name not in _NOT_TRACED]
        unknown = [name for name in options if name not in keywords]
        if unknown:
            raise UsageError(f"options: {', '.join(unknown)}: {self.package}.trace has {', '.join(keywords)}")

    def __call__(
        self, module: torch.nn.Module, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]
    ) -> torch.jit.ScriptModule:
        """Trace a module of positional tensors.

        Args:
            module: takes and returns tensors.
            tensors: its example inputs.
            options: keywords of the tracer.
        """
        if self.gate is None:
            own = {name: value for name, value in options.items() if name not in KEYWORDS[self.package]}
            return torch.jit.trace(module, tensors, **{"check_trace": False, **own})
        home = import_package(self.package)
        if self.package == "torch_neuron":
            return home.trace(module, tensors, **options)
        own = dict(options)
        dynamic = own.pop("dynamic_batch_size", False)
        script = home.trace(module, tensors, **own)
        return home.dynamic_batch(script) if dynamic else script


def tracer(package: str | None = None, *, emulate: bool = False) -> Tracer:
    """The tracer of a package; None means the installed package.

    Raises:
        UsageError: no such package.
        EnvironmentGap: nothing can be compiled here; the text is the sentence of the gate.
    """
    package = package or default_package()
    _require_known(package)
    if emulate:
        return Tracer(package, EMULATION, _MARKERS[package], None)
    gate = aws.neuron(package)
    if not gate.compiles:
        raise EnvironmentGap(gate.sentence)
    return Tracer(package, "neuron", _MARKERS[package], gate)


def _require_known(package: str) -> None:
    """Refuse a name that is no package of the SDK, before anything is imported."""
    if package not in NEURON:
        raise UsageError(f"package: got {package}, should be one of {', '.join(NEURON)}")


def default_package() -> str:
    """The installed package of the SDK; that of Inf1 if neither or both are installed."""
    return next((package for package in NEURON if aws.neuron(package).imports), "torch_neuron")


def import_package(package: str) -> Any:
    """The module that has `trace`; importing it registers the classes in compiled files with torch.

    Raises:
        UsageError: it is no package of the SDK.
        EnvironmentGap: the SDK is not installed; the text is the sentence of the gate.
    """
    _require_known(package)
    gate = aws.neuron(package)
    if not gate.imports:
        raise EnvironmentGap(gate.sentence)
    module = importlib.import_module(package)
    return torch.neuron if package == "torch_neuron" else module


def analysis(package: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], Any]:
    """The SDK's own report on operators: `analyze_model`, which torch_neuronx calls `analyze`."""
    home = import_package(package)
    return home.analyze_model if package == "torch_neuron" else home.analyze
