"""A model and example inputs → a file compiled for Neuron; operators left to the CPU are reported."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parity import files
from parity.arguments import require_path, transformers_model
from parity.environment import version_of
from parity.errors import ExportError, SessionError, UsageError
from parity.neuron import messages, operators, sdk
from parity.neuron.sdk import EMULATION
from parity.publication import publish_file
from parity.torchscript import model as files_of_traces
from parity.torchscript import trace as torchscript
from parity.torchscript.model import TracedModel
from parity.torchscript.runner import Runner
from parity.traceable import evaluation_mode
from parity.turns import in_turn

if TYPE_CHECKING:
    from parity.configs import OnnxConfig

__all__ = ["NeuronModel", "Runner", "analyze", "load", "trace"]

logger = logging.getLogger("parity.neuron")

EMULATION_NOTE = "torch.jit.trace was used in place of Neuron's tracer; nothing was compiled, nothing ran on Inf1"


@dataclass(frozen=True)
class NeuronModel(TracedModel):
    """A model compiled for Neuron; see `TracedModel` for the other fields.

    Args:
        engine: `neuron`; `emulation` if torch traced instead.
        package: the package of the SDK that loads the file.
        sdk: its version.
        compiled: number of nodes with compiled code.
        outside: operator → count outside of them, on the CPU.
        dynamic_batch: whether the first axis of every input may have any size.
    """

    engine: str = "neuron"
    package: str = "torch_neuron"
    sdk: str = ""
    compiled: int = 0
    outside: Mapping[str, int] = field(default_factory=dict)
    dynamic_batch: bool = False

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs, a tuple, for tensors of the compiled shapes in the order of `inputs`.

        Raises:
            UsageError: another shape than the compiled one.
            SessionError: the runtime fails; the text says what to do if AWS documents that.
        """
        self._check(tensors)
        try:
            # An emulation does not need torch's own optimiser, which would take most of its time.
            with torch.jit.optimized_execution(self.engine != EMULATION):
                return super().__call__(*tensors)
        except RuntimeError as error:
            raise SessionError(messages.explain(files_of_traces.operator_text(error))) from error

    def _check(self, tensors: Sequence[torch.Tensor]) -> None:
        self.require_tensors(tensors)
        first = 1 if self.dynamic_batch else 0
        wrong = [
            f"{name} has shape {tuple(tensor.shape)}, compiled for {tuple(self.example[name].shape)}"
            for name, tensor in zip(self.inputs, tensors, strict=True)
            if tensor.shape[first:] != self.example[name].shape[first:]
        ]
        if wrong:
            may = " but for the first axis" if self.dynamic_batch else ""
            raise UsageError(
                f"inputs: {'; '.join(wrong)}: shapes are fixed when compiled{may}; pad them with parity.neuron.Runner,"
                " or compile another bucket"
            )

    def facts(self) -> dict[str, Any]:
        """The declaration in the file, as JSON data."""
        own = ("engine", "package", "sdk", "compiled", "dynamic_batch")
        return {
            **super().facts(),
            "neuron": {**{name: getattr(self, name) for name in own}, "outside": dict(self.outside)},
        }


def trace(  # noqa: PLR0913 - the signature that users call
    model: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[torch.Tensor],
    output: str | os.PathLike | None = None,
    *,
    feature: str | None = None,
    onnx_config: OnnxConfig | None = None,
    outputs: Sequence[str] | None = None,
    package: str | None = None,
    emulate: bool = False,
    allow_fallback: bool = False,
    prove: bool = True,
    checkpoint: str = "",
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> NeuronModel:
    """Compile a model for the shapes of its example inputs, save it, load it again, and prove it if there is a device.

    The model is traced with eager attention, in eval mode, in a copy that shares its weights. Operators left to the CPU
    are a failure, except embeddings and operators that only read shapes.

    Args:
        model, example_inputs, feature, onnx_config, outputs, checkpoint, say: as in `parity.torchscript.export`.
        output: the file to write, usually ending in .pt; None only compiles, in memory.
        package: `torch_neuron` for Inf1, `torch_neuronx` for Inf2 and Trn1; None takes the installed one.
        emulate: use torch.jit.trace in place of the tracer. The result is marked so, and says nothing about Inf1.
        allow_fallback: report operators that fell back to the CPU, and continue.
        prove: compare with the model at the compiled shape, if there is a device.
        options: keywords of the tracer, such as compiler_args, compiler_workdir or dynamic_batch_size.

    Raises:
        EnvironmentGap: no SDK that compiles; the text says what to install or where to run.
        UsageError: inputs, outputs, a feature or keywords that do not exist.
        ExportError: compiling fails, or operators fell back to the CPU.
        ValueMismatch: the device answers differently; nothing is written.
        OutputError: `output` cannot be written.
    """
    say = say or logger.info
    model = transformers_model(model)
    if output is not None:
        require_path(output)
    tracer = sdk.tracer(package, emulate=emulate)
    tracer.check(options)
    if emulate:
        say = emulation_log(say)
        say(EMULATION_NOTE)
    declared = torchscript.Declaration.for_model(model, example_inputs, feature=feature, onnx_config=onnx_config)
    declared = replace(declared, checkpoint=checkpoint)
    config = declared.onnx_config
    trace = torchscript.trace_model(
        model,
        example_inputs,
        lambda module, tensors: compile_module(
            module, tensors, tracer, allow_fallback=allow_fallback, say=say, **options
        ),
        declared,
        outputs=outputs,
        say=say,
    )
    neuron_model = neuron_model_of(trace, tracer, dynamic_batch=bool(options.get("dynamic_batch_size")))
    prove = prove and tracer.runs
    if output is None:
        return _with_proof(neuron_model, model, config, say) if prove else neuron_model
    output = Path(output)
    with files.staging_directory(output) as stage:
        path = stage / output.name
        files_of_traces.save(neuron_model, path)
        neuron_model = replace(neuron_model, module=load(path).module)
        if prove:
            neuron_model = _with_proof(neuron_model, model, config, say)
        elif tracer.gate is not None and not tracer.gate.runs:
            say(f"Compiled, but not run yet: {tracer.gate.sentence}")
        publish_file(path, output)
    return neuron_model


def neuron_model_of(trace: TracedModel, tracer: sdk.Tracer, *, dynamic_batch: bool = False) -> NeuronModel:
    """The trace with the facts of its compilation.

    Args:
        trace: from the tracer.
        tracer: that compiled it.
        dynamic_batch: whether the first axis of every input may have any size.
    """
    partition = operators.partition(trace.module, tracer.marker)
    own = {each.name: getattr(trace, each.name) for each in fields(TracedModel)}
    return NeuronModel(
        **{**own, "attention": "eager"},
        engine=tracer.engine,
        package=tracer.package,
        sdk="" if tracer.engine == EMULATION else version_of(tracer.package.replace("_", "-")) or "",
        compiled=partition.compiled,
        outside=partition.outside,
        dynamic_batch=dynamic_batch,
    )


@in_turn
def compile_module(
    module: torch.nn.Module,
    tensors: tuple[torch.Tensor, ...],
    tracer: sdk.Tracer,
    *,
    allow_fallback: bool = False,
    say: Callable[[str], None] = logger.info,
    **options: Any,
) -> torch.jit.ScriptModule:
    """Compile a module of positional tensors with the tracer.

    Args:
        module: takes and returns tensors.
        tensors: its example inputs.
        tracer: from `sdk.tracer`.
        allow_fallback: report operators that fell back to the CPU, and continue.
        say: takes the lines of the log.
        options: keywords of the tracer.

    Raises:
        ExportError: compiling fails, or operators fell back to the CPU and that is not allowed.
    """
    with evaluation_mode(_model_of(module), attention="eager"), _collect_warnings() as warnings:
        try:
            script = tracer(module, tensors, options)
        except Exception as error:
            why = messages.explain(f"{type(error).__name__}: {error}")
            raise ExportError(f"{_name(tracer)} failed: {why}") from error
    partition = operators.partition(script, tracer.marker)
    if tracer.engine == EMULATION or not partition.problem:
        return script
    warning = next((line for line in warnings if "falling back" in line), "")
    problem = f"{partition.problem}; {messages.explain(warning)}" if warning else partition.problem
    if not allow_fallback:
        raise ExportError(
            f"{_name(tracer)}: {problem}; allow_fallback (--allow-fallback) delivers it all the same, partly on the CPU"
        )
    say(f"warning: {problem}")
    return script


def load(path: str | os.PathLike) -> NeuronModel:
    """Load a file that `trace` has written, after importing the SDK. Load only files that you trust.

    Args:
        path: the file, usually ending in .pt.

    Raises:
        EnvironmentGap: the SDK is not installed; the message says what to install.
        UsageError: `path` is no path.
        SessionError: torch cannot load the file, or `trace` did not write it.
    """
    facts = files_of_traces.declaration_of(path)
    if "neuron" not in facts:
        raise SessionError(f"{path}: is a trace, not compiled for Neuron; parity.torchscript.load reads it")
    own = facts["neuron"]
    if own["engine"] != EMULATION:
        # The file cannot be loaded without the package.
        sdk.import_package(own["package"])
    try:
        module = files_of_traces.load_graph(Path(path))
    except SessionError as error:
        raise SessionError(messages.explain(str(error))) from error
    names = ("engine", "package", "sdk", "compiled", "outside", "dynamic_batch")
    fields_of_neuron = {name: own[name] for name in names}
    return NeuronModel(module=module, **files_of_traces.fields_of(facts), **fields_of_neuron)


def analyze(
    model: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[torch.Tensor],
    *,
    feature: str | None = None,
    onnx_config: OnnxConfig | None = None,
    package: str | None = None,
) -> Any:
    """The SDK's own report on a model's operators, before compiling: the result of `torch.neuron.analyze_model`.

    Args:
        model: a PyTorch model of transformers.
        example_inputs: tensors by name, or a list in the declaration's order.
        feature: what the model is traced for; None finds it by the model's class.
        onnx_config: an OnnxConfig in place of the declared one.
        package: `torch_neuron` or `torch_neuronx`; None takes the installed one.

    Raises:
        EnvironmentGap: no SDK is installed; the message says what to install.
        UsageError: inputs or a feature that the model does not have.
    """
    model = transformers_model(model)
    tracer = sdk.tracer(package)
    reports = []

    def analyze_and_trace(module: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.jit.ScriptModule:
        with evaluation_mode(module.model, attention="eager"):
            reports.append(sdk.analysis(tracer.package)(module, tensors))
            return torch.jit.trace(module, tensors, check_trace=False)

    declared = torchscript.Declaration.for_model(model, example_inputs, feature=feature, onnx_config=onnx_config)
    torchscript.trace_model(model, example_inputs, analyze_and_trace, declared)
    return reports[0]


def _with_proof(
    neuron_model: NeuronModel, model: torch.nn.Module, config: OnnxConfig, say: Callable[[str], None]
) -> NeuronModel:
    """The compiled model with the result of its comparison with the model.

    Args:
        neuron_model: the compiled model.
        model: the model that was compiled.
        config: names inputs and outputs.
        say: takes the lines of the log.

    Raises:
        ValueMismatch, ShapeMismatch, NameMismatch: see `parity.neuron.tolerances.validate`.
    """
    from parity.neuron.tolerances import Tolerances, validate

    emulated = neuron_model.engine == EMULATION
    tolerances = Tolerances.emulated() if emulated else Tolerances()
    findings = validate(neuron_model, model, onnx_config=config, tolerances=tolerances)
    text = tolerances.summary(findings)
    say(f"At the compiled shape: {text}")
    return replace(neuron_model, proof=f"{EMULATION}: {text}" if emulated else text)


def emulation_log(say: Callable[[str], None]) -> Callable[[str], None]:
    """Wrap `say` so that every line is marked as an emulation's."""
    return lambda line: say(line if line.startswith(EMULATION) else f"{EMULATION}: {line}")


def _model_of(module: torch.nn.Module) -> torch.nn.Module:
    return getattr(module, "model", module)


def _name(tracer: sdk.Tracer) -> str:
    return "torch.jit.trace (emulation)" if tracer.engine == EMULATION else f"{tracer.package}.trace"


@contextlib.contextmanager
def _collect_warnings() -> Iterator[list[str]]:
    """Collect the texts of warnings and errors that any logger emits inside the context."""
    texts: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    listener = Listener(logging.WARNING)
    # The SDK's own logger does not propagate its records.
    loggers = [logging.getLogger(), logging.getLogger("Neuron")]
    for each in loggers:
        each.addHandler(listener)
    try:
        yield texts
    finally:
        for each in loggers:
            each.removeHandler(listener)
