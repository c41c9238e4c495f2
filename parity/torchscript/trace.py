"""A model and example inputs → a TorchScript file with its declaration, read back and proven equal to the model."""

from __future__ import annotations

import inspect
import logging
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parity import files, loading, releases
from parity.arguments import (
    own_numerics,
    require_config,
    require_example,
    require_model,
    require_path,
    transformers_model,
)
from parity.axes import Role, role_of
from parity.configs.tokens import padding_token
from parity.errors import (
    ExportError,
    SessionError,
    UsageError,
    ValueMismatch,
)
from parity.judge.findings import error_of
from parity.publication import publish_file
from parity.releases import PAST, parameters_of
from parity.torchscript.comparisons import SizeComparisons
from parity.torchscript.model import TracedModel, load_graph, nested_inputs, save
from parity.torchscript.needs import minimum_torch
from parity.torchscript.untying import tied_embeddings, twin, untie
from parity.traceable import Layout, Traceable, attention_of, call, evaluation_mode
from parity.turns import in_turn, shared

if TYPE_CHECKING:
    from parity.configs import OnnxConfig

# Module of positional tensors and its example inputs → ScriptModule.
TraceFunction = Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], torch.jit.ScriptModule]

logger = logging.getLogger("parity.torchscript")

# Known axes of outputs that models return in addition to the declared ones.
_FURTHER = {"pooler_output": {0: "batch"}, "encoder_last_hidden_state": {0: "batch", 1: "encoder_sequence"}}


@dataclass(frozen=True)
class Declaration:
    """The facts that are known before tracing.

    Args:
        onnx_config: names inputs and outputs of the model.
        feature: of the model.
        checkpoint: the fingerprint of the checkpoint; empty if unknown.
    """

    onnx_config: OnnxConfig
    feature: str
    checkpoint: str = ""

    @classmethod
    def for_model(
        cls,
        model: torch.nn.Module,
        example_inputs: Mapping[str, Any] | Sequence[torch.Tensor],
        *,
        feature: str | None = None,
        onnx_config: OnnxConfig | None = None,
    ) -> Declaration:
        """The declaration of a model, with a past if the example has one; or the given configuration.

        Args:
            model: a PyTorch model of transformers.
            example_inputs: see `export`.
            feature: None finds it by the model's class.
            onnx_config: replaces the declared one.

        Raises:
            UsageError: no model of transformers, an unsupported model type, or a feature that it does not have.
        """
        require_model(model)
        require_example(example_inputs)
        if onnx_config is not None:
            require_config(onnx_config, "onnx_config")
            past = "-with-past" if getattr(onnx_config, "use_past", False) else ""
            return cls(onnx_config, feature or f"{onnx_config.task}{past}")
        from parity.features import FeaturesManager, constructor

        try:
            features = FeaturesManager.get_supported_features_for_model_type(model.config.model_type)
        except KeyError as error:
            raise UsageError(f"model: {error.args[0]}; or give export an onnx_config") from error
        names = list(example_inputs) if isinstance(example_inputs, Mapping) else []
        feature = feature or _feature_of(model, features, any(name.startswith(PAST) for name in names))
        return cls(constructor(model.config.model_type, feature)(model.config), feature)


def export(  # noqa: PLR0913 - the signature that users call
    model: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[torch.Tensor],
    output: str | os.PathLike | None = None,
    *,
    feature: str | None = None,
    onnx_config: OnnxConfig | None = None,
    outputs: Sequence[str] | None = None,
    check_trace: bool = False,
    prove: bool = True,
    checkpoint: str = "",
    say: Callable[[str], None] | None = None,
) -> TracedModel:
    """Trace a model, write it as a TorchScript file, load that again, and prove that it answers like the model.

    The model is traced in eval mode and without gradients, in a copy that shares its weights. The model itself stays
    unchanged, its output embedding still tied; in the file it is untied.

    Args:
        model: a PyTorch model of transformers; a PeftModel is traced with its adapter.
        example_inputs: tensors by name, past key values as `past_key_values` (a list of tuples, or a Cache) or flat, as
            the declaration names them. A list is in the declaration's order; the log shows the assignment.
        output: the file to write, usually ending in .pt; None only traces, in memory.
        feature: what the model is traced for; None finds it by the model's class.
        onnx_config: an OnnxConfig in place of the declared one, for custom models.
        outputs: names of the outputs; None means the declared ones and then all others that the model returns.
        check_trace: let torch trace a second time and compare, which takes two to three times as long.
        prove: compare with the model at the traced shape.
        checkpoint: the fingerprint of the model's checkpoint, which the file keeps: a `Runner` refuses files
            with different fingerprints.
        say: takes the lines of the log; None sends them to the logger `parity.torchscript`.

    Raises:
        UsageError: inputs, outputs or a feature that the model does not have.
        ExportError: tracing fails.
        OutputError: `output` cannot be written.
        ValueMismatch, ShapeMismatch, DtypeMismatch: the trace answers differently; nothing is written.
    """
    say = say or logger.info
    model = transformers_model(model)
    if output is not None:
        require_path(output)
    if check_trace:
        say("check_trace is on: torch traces a second time and compares, which takes two to three times as long")

    def tracer(module: torch.nn.Module, tensors: tuple[torch.Tensor, ...]) -> torch.jit.ScriptModule:
        return torch.jit.trace(module, tensors, check_trace=check_trace)

    declared = Declaration.for_model(model, example_inputs, feature=feature, onnx_config=onnx_config)
    declared = replace(declared, checkpoint=checkpoint)
    trace = trace_model(model, example_inputs, tracer, declared, outputs=outputs, say=say)
    if output is None:
        return _with_proof(trace, model, declared.onnx_config, say) if prove else trace
    output = Path(output)
    with files.staging_directory(output) as stage:
        path = stage / output.name
        save(trace, path)
        if prove:
            trace = _with_proof(replace(trace, module=load_graph(path)), model, declared.onnx_config, say)
        publish_file(path, output)
    return trace


@in_turn
def trace_model(
    model: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[torch.Tensor],
    tracer: TraceFunction,
    declared: Declaration,
    *,
    outputs: Sequence[str] | None = None,
    say: Callable[[str], None] = logger.info,
) -> TracedModel:
    """Trace the model with `tracer`, without saving or proving.

    Args:
        model, example_inputs, outputs, say: as in `export`.
        tracer: a module of positional tensors and its example inputs → a ScriptModule.
        declared: from `Declaration.for_model`.

    Raises:
        UsageError, ExportError: see `export`.
    """
    config, feature = declared.onnx_config, declared.feature
    nested = nested_inputs(config, example_inputs)
    _check(model, config, Layout.from_inputs(config, nested).flatten(nested))
    layout = Layout.from_inputs(config, nested).select(config.inputs)
    flat = layout.flatten(nested)
    for position, (name, tensor) in enumerate(flat.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        say(f"Input {position}: {name}, {dtype} {tuple(tensor.shape)}")
    reference = twin(model)
    names = _output_names(reference, config, nested, outputs)
    own = untie(model)
    with SizeComparisons() as comparisons:
        module = _trace(own, config, layout, names, tuple(flat.values()), tracer)
    trace = TracedModel(
        module=module,
        inputs={name: dict(config.inputs[name]) for name in flat},
        outputs={name: dict({**_FURTHER, **config.outputs}.get(name, {})) for name in names},
        example=flat,
        model_type=getattr(model.config, "model_type", ""),
        feature=feature,
        attention=attention_of(model),
        untied=tuple(tied_embeddings(model)),
        pad=padding_token(model.config),
        padding=_keeps_padding(getattr(model.config, "model_type", ""), feature),
        checkpoint=declared.checkpoint,
        compared=comparisons.numbers,
    )
    trace = replace(trace, minimum_torch=minimum_torch(trace.module))
    if trace.untied:
        say(f"Untied from {', '.join(trace.untied)}: the output embedding, which has weights of its own in the file")
    return trace


def _feature_of(model: torch.nn.Module, features: Iterable[str], past: bool) -> str:
    from parity.features import heads

    for name in features:
        # A custom model is often a subclass of one of transformers.
        if name.endswith("-with-past") == past and isinstance(model, heads(model.config, name)):
            return name
    with_past = " with past key values" if past else ""
    raise UsageError(
        f"feature: none of {', '.join(features)} loads a {type(model).__name__}{with_past}; name the one it is traced"
        " for, or give export an onnx_config"
    )


def _check(model: torch.nn.Module, config: OnnxConfig, flat: Mapping[str, torch.Tensor]) -> None:
    model_class: type = type(model)
    declared, parameters = config.inputs, parameters_of(model_class)
    unknown = [name for name in flat if name not in declared]
    unknown += [name for name in flat if name.partition(".")[0] not in parameters]
    if unknown or not flat:
        raise UsageError(
            f"example_inputs: {', '.join(unknown) or 'nothing'} given, should be some of {', '.join(declared)}, which"
            f" {model_class.__name__} takes"
        )
    for name, tensor in flat.items():
        if declared[name] and tensor.dim() <= max(declared[name]):
            axes = ", ".join(declared[name].values())
            raise UsageError(f"example_inputs: {name} has shape {tuple(tensor.shape)}, should have the axes {axes}")


def _output_names(
    model: torch.nn.Module, config: OnnxConfig, nested: Mapping[str, Any], request: Sequence[str] | None
) -> list[str]:
    """The outputs of `request`; or the declared ones that the model returns, then all others.

    Args:
        model: is called once.
        config: declares outputs.
        nested: arguments of the model.
        request: names of outputs, or None.

    Raises:
        UsageError: the model refuses the inputs, or does not return an output.
    """
    with own_numerics(), evaluation_mode(model, config.values_override):
        try:
            returned = call(model, config, nested)
        except Exception as error:
            text = " ".join(str(error).split())[:400]
            raise UsageError(
                f"example_inputs: the model itself refuses them: {type(error).__name__}: {text}"
            ) from error
    names = [name for name in config.outputs if name in returned] if request is None else list(request)
    missing = [name for name in request or config.outputs if name not in returned]
    if missing:
        raise UsageError(f"outputs: {', '.join(missing)} asked for, the model returns {', '.join(returned)}")
    if request is not None:
        return names
    past = nested.get(PAST)
    # With a cross-attention cache the encoder does not run.
    absent = ("encoder_last_hidden_state",) if past and len(past[0]) == 4 else ()
    tensors = [name for name, value in returned.items() if isinstance(value, torch.Tensor)]
    # Some models return caches although use_cache is off.
    further = [name for name in tensors if name not in (*names, *absent) and role_of(name) is not Role.CACHE]
    return [*names, *further]


def _trace(
    model: torch.nn.Module,
    config: OnnxConfig,
    layout: Layout,
    names: Sequence[str],
    tensors: tuple[torch.Tensor, ...],
    tracer: TraceFunction,
) -> torch.jit.ScriptModule:
    # Tracing reads every property of the model, including those that warn.
    masks = releases.traceable_masks()
    with (
        own_numerics(),
        evaluation_mode(model, config.values_override),
        loading.quiet_transformers(),
        _inline_functions(),
        masks,
    ):
        try:
            config.patch_ops()
            return tracer(_with_argument_names(Traceable(model, config, layout, names)), tensors)
        except ExportError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise ExportError(f"torch.jit.trace failed: {type(error).__name__}: {text}") from error
        finally:
            config.restore_ops()


def _with_argument_names(traceable: Traceable) -> Traceable:
    """The same module, whose trace can be called by the names of its tensors, as a tokenizer makes them.

    A cache's have dots, which TorchScript does not take: such a trace is called in order only.
    """
    names = ("self", *traceable.layout.names)
    if all(map(str.isidentifier, names)):

        def forward(self: Traceable, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return Traceable.forward(self, *tensors)

        # The tracer reads it there.
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        own = {"forward": forward, "__module__": Traceable.__module__}
        traceable.__class__ = type(Traceable.__name__, (Traceable,), own)
    return traceable


@shared
def _inline_functions() -> Iterator[None]:
    """Replace autograd functions (bloom's GELU) by their forward: a file cannot hold a call to Python."""
    base = torch.autograd.Function
    own = base.__dict__.get("apply")
    nothing = dict.fromkeys(("save_for_backward", "mark_non_differentiable", "mark_dirty"), lambda *tensors: None)

    def apply(cls: type[torch.autograd.Function], *arguments: Any, **options: Any) -> Any:
        if getattr(cls, "setup_context", None) is not getattr(base, "setup_context", None):
            return cls.forward(*arguments, **options)
        return cls.forward(types.SimpleNamespace(**nothing, needs_input_grad=()), *arguments, **options)

    base.apply = classmethod(apply)
    try:
        yield
    finally:
        if own is None:
            del base.apply  # restores the inherited one
        else:
            base.apply = own


def _with_proof(
    trace: TracedModel, model: torch.nn.Module, config: OnnxConfig, say: Callable[[str], None]
) -> TracedModel:
    """The trace with the result of its comparison with the model.

    Args:
        trace: the trace.
        model: the model that was traced.
        config: names inputs and outputs.
        say: takes the lines of the log.

    Raises:
        SessionError, ValueMismatch, ShapeMismatch, DtypeMismatch: it raises, or answers differently.
    """
    from parity.torchscript.verdicts import RAISES, RIGHT, at_traced_shape

    trial = at_traced_shape(trace, model, config)
    if trial.outcome == RAISES:
        raise SessionError(f"at the traced shape: {trial.text}")
    if trial.outcome != RIGHT:
        message = f"at the traced shape: {trial.text}"
        raise error_of(list(trial.findings), message) if trial.findings else ValueMismatch(message)
    say(f"At the traced shape: {trial.text}")
    return replace(trace, proof=trial.text)


def _keeps_padding(model_type: str, feature: str) -> bool | None:
    from parity.registry import architecture

    try:
        return "padding-right" in architecture(model_type).relations_of(feature)
    except KeyError:
        return None
