"""A model and its OnnxConfig → an ONNX file; the file and a reference model → its validation.

Drop-in for `transformers.onnx.convert`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version, parse

from parity import __version__
from parity.axes import Axes, Signature
from parity.configs.base import OnnxConfig, one_preprocessor
from parity.dtypes import DEFAULT_DTYPE, array_of, cast_floats, dtype_name, is_floating, torch_dtype
from parity.environment import version_of
from parity.errors import ExportError, UsageError
from parity.exporters import DEFAULT_EXPORTER, EXPORTERS
from parity.files import staging_directory
from parity.judge import contract
from parity.judge.findings import failures
from parity.onnx_files import DATA, append_metadata, data_file, gather_external_data, publish
from parity.opsets import SDPA_MINIMUM_OPSET, check_opset
from parity.turns import in_turn

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import FeatureExtractionMixin, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    from parity.configs.base import Preprocessor

    from .exporter import TraceExporter

logger = logging.getLogger("parity.onnx")

# The first ONNX Runtime that quantizes; a constant of the old package.
ORT_QUANTIZE_MINIMUM_VERSION = parse("1.4.0")


def check_onnxruntime_requirements(minimum_version: Version) -> None:
    """Refuse an environment without ONNX Runtime, or with one older than `minimum_version`.

    Raises:
        ImportError
    """
    installed = version_of("onnxruntime")
    if installed is None:
        raise ImportError("onnxruntime is not installed: pip install onnxruntime")
    if parse(installed) < minimum_version:
        raise ImportError(
            f"onnxruntime: {installed} is installed, should be at least {minimum_version}:"
            " pip install --upgrade onnxruntime"
        )


def export(  # noqa: PLR0913 - the signature that users call
    preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin | ProcessorMixin,
    model: PreTrainedModel,
    config: OnnxConfig,
    opset: int,
    output: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str = "cpu",
) -> tuple[list[str], list[str]]:
    """Write the model as an ONNX file of exactly that opset.

    Afterwards the model is as before: training flags, configuration, device, weights and ties. The file appears whole
    or not at all; an older file is replaced only by a finished one.

    Args:
        preprocessor: makes the dummy inputs, through `config.generate_dummy_inputs`.
        model: a PyTorch model of transformers; a PeftModel is exported with its adapter.
        config: names inputs, outputs and dynamic axes of the file.
        opset: 11 to 20.
        output: the file to write; weights over 2 GB go next to it, into `<output>_data`.
        tokenizer: deprecated name of `preprocessor`.
        device: the device of the model while it is traced, `cpu` or `cuda`.

    Returns:
        The names of `forward`'s parameters that are inputs, in its order, and the names of the outputs.

    Raises:
        UsageError: an opset out of range; inputs that the model does not take; weights of another type
            than float32 and float16.
        ExportError: the exporter fails, or its file is not as requested.
        OutputError: `output` cannot be written.
    """
    if not hasattr(model, "named_parameters"):
        raise UsageError(
            f"model: got {type(model).__name__}, should be a PyTorch model; load TensorFlow weights with"
            " from_pretrained(…, from_tf=True)"
        )
    return export_pytorch(preprocessor, model, config, opset, output, tokenizer=tokenizer, device=device)


def export_pytorch(  # noqa: PLR0913 - the signature that users call
    preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin | ProcessorMixin,
    model: PreTrainedModel,
    config: OnnxConfig,
    opset: int,
    output: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    device: str = "cpu",
) -> tuple[list[str], list[str]]:
    """`export` of a PyTorch model.

    Args:
        preprocessor, model, config, opset, output, tokenizer, device: see `export`.
    """
    from parity import arguments
    from parity.onnx.exporter import TraceExporter

    model = arguments.transformers_model(model)
    arguments.require_model(model)
    arguments.require_config(config)
    arguments.require_opset(opset)
    arguments.require_path(output)

    return export_with(TraceExporter(device), one_preprocessor(preprocessor, tokenizer), model, config, opset, output)


@in_turn
def export_with(
    exporter: TraceExporter,
    preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin | ProcessorMixin,
    model: PreTrainedModel,
    config: OnnxConfig,
    opset: int,
    output: Path,
) -> tuple[list[str], list[str]]:
    """`export` with an exporter.

    Args:
        exporter: the exporter.
        preprocessor, model, config, opset, output: see `export`.
    """
    from parity.arguments import own_numerics, require_dtype
    from parity.checkpoint import require_exportable
    from parity.traceable import Layout, Traceable, attention_of, evaluation_mode

    if hasattr(model.config, "model_type"):
        require_exportable(model.config)
    check_opset(opset, EXPORTERS[exporter.name].opsets)
    require_dtype(model)
    if refusal := getattr(config, "refusal", ""):
        raise UsageError(refusal)
    if not config.is_torch_support_available:
        logger.warning(
            "torch %s is older than this model needs: %s", version_of("torch"), config.torch_onnx_minimum_version
        )
    output, before = Path(output), model.device
    attention = "eager" if opset < SDPA_MINIMUM_OPSET else None
    evaluation = evaluation_mode(model, config.values_override, attention)
    with staging_directory(output) as stage, own_numerics(), evaluation:
        implementation = attention_of(model)
        logger.info("Using framework PyTorch: %s", version_of("torch"))
        for name, value in (config.values_override or {}).items():
            logger.info("Overriding configuration item %s -> %s", name, value)
        nested = _accepted_inputs(model, config, _generate(config, preprocessor, model.dtype))
        _, names = ensure_model_and_config_inputs_match(model, nested)
        layout = Layout.from_inputs(config, nested)
        undeclared = [name for name in layout.names if name not in config.inputs]
        if undeclared:
            logger.info("Left out, because the configuration does not declare them: %s", ", ".join(undeclared))
        layout = layout.select(config.inputs)
        if not layout.slots:
            raise UsageError(f"inputs: {type(config).__name__} declares none of {', '.join(nested)}")
        signature = Signature.from_config(config, layout.names)
        flat = layout.flatten(nested)
        path = stage / output.name
        try:
            model.to(exporter.device)
            config.patch_ops()
            tensors = tuple(flat[name].to(exporter.device) for name in layout.names)
            traceable = Traceable(model, config, layout, list(signature.outputs))
            exporter.export(traceable, tensors, signature, opset, path)
        finally:
            config.restore_ops()
            model.to(before)
        data = gather_external_data(path, data_file(output).name)
        _restore_dead_inputs(path, signature.inputs, flat, config.dead_inputs)
        _require_contract(path, opset, contract.Claim.from_config(config, flat, traceable.dtypes))
        metadata = _metadata(model, config, opset, implementation, exporter.name)
        append_metadata(path, {**metadata, **({DATA: data} if data else {})})
        publish(path, output)
    return names, list(signature.outputs)


def export_tensorflow(
    preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin,
    model: PreTrainedModel,
    config: OnnxConfig,
    opset: int,
    output: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[list[str], list[str]]:
    """`export`, under the name that the old package had for TensorFlow models: load their weights with `from_tf=True`.

    Args:
        preprocessor, model, config, opset, output, tokenizer: see `export`.

    Raises:
        UsageError: the model is a TensorFlow model; and all that `export` raises.
    """
    return export(preprocessor, model, config, opset, output, tokenizer=tokenizer)


def _generate(config: OnnxConfig, preprocessor: Preprocessor, dtype: torch.dtype) -> dict[str, Any]:
    from transformers.utils import TensorType

    try:
        inputs = dict(config.generate_dummy_inputs(preprocessor, framework=TensorType.PYTORCH))
    except (AttributeError, TypeError, ValueError) as error:
        # A user's own configuration may need no preprocessor.
        if preprocessor is not None:
            raise
        raise UsageError(
            "preprocessor: is None, should be the checkpoint's tokenizer, image processor or processor"
        ) from error
    return inputs if dtype_name(dtype) == DEFAULT_DTYPE else cast_floats(inputs, dtype)


def _accepted_inputs(model: PreTrainedModel, config: OnnxConfig, nested: Mapping[str, Any]) -> dict[str, Any]:
    """The generated inputs that `forward` takes; the others, which no file should have, are left out.

    Tokenizers make token types for models that lack them: transformers 5 reads a `tokenizer_config.json` without a
    class as BERT's.

    Raises:
        UsageError: the configuration declares an input that the model does not take.
    """
    fits, names = ensure_model_and_config_inputs_match(model, nested)
    others = [] if fits else [name for name in nested if name not in names]
    declared = [name for name in others if any(flat.partition(".")[0] == name for flat in config.inputs)]
    if declared:
        raise UsageError(
            f"inputs: {', '.join(declared)} declared by {type(config).__name__}, but {type(model).__name__}.forward"
            " does not take them"
        )
    if others:
        logger.info("Left out, because %s does not take them: %s", type(model).__name__, ", ".join(others))
    return {name: value for name, value in nested.items() if name not in others}


def _restore_dead_inputs(path: Path, inputs: Axes, flat: Mapping[str, torch.Tensor], dead: Iterable[str]) -> None:
    """Restore the inputs that are declared dead, in their places: the exporter drops inputs that it never reads."""
    if not dead:
        return
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    present = {value.name: value for value in model.graph.input}
    for name in dead:
        if name in inputs and name not in present:
            tensor = flat[name]
            shape = [inputs[name].get(axis, size) for axis, size in enumerate(tensor.shape)]
            dtype = onnx.helper.np_dtype_to_tensor_dtype(array_of(tensor).dtype)
            present[name] = onnx.helper.make_tensor_value_info(name, dtype, shape)
    ordered = [present[name] for name in inputs if name in present]
    del model.graph.input[:]
    model.graph.input.extend(ordered)
    path.write_bytes(model.SerializeToString())


def _require_contract(path: Path, opset: int, claim: contract.Claim) -> None:
    findings = contract.judge_contract(contract.read(path), claim, opset=opset)
    wrong = [finding.message for finding in failures(findings)]
    if wrong:
        raise ExportError("the exporter did not deliver what was asked for:\n" + "\n".join(wrong))


def _metadata(model: PreTrainedModel, config: OnnxConfig, opset: int, attention: str, exporter: str) -> dict[str, str]:
    past = "-with-past" if getattr(config, "use_past", False) else ""
    dtype = dtype_name(model.dtype)
    return {
        "parity": __version__,
        "torch": version_of("torch") or "",
        "transformers": version_of("transformers") or "",
        "model_type": getattr(model.config, "model_type", ""),
        "feature": config.task + past,
        "opset": str(opset),
        "attention": attention,
        **({"part": config.part} if config.part else {}),
        # Default values are left out.
        **({"exporter": exporter} if exporter != DEFAULT_EXPORTER else {}),
        **({"dtype": dtype} if dtype != DEFAULT_DTYPE else {}),
    }


def validate_model_outputs(  # noqa: PLR0913 - the signature that users call
    config: OnnxConfig,
    preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin | ProcessorMixin,
    reference_model: PreTrainedModel,
    onnx_model: Path,
    onnx_named_outputs: list[str],
    atol: float,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    """Compare the file with the model at several shapes; `atol` is a hard limit on every difference.

    The shapes come from `config.generate_dummy_inputs` with other sizes; the first is that of the export. If the file
    does not say that it has the model's attention implementation, masked positions only have to be finite, because
    implementations differ there.

    A float16 model differs from its file by more than any `atol` for float32, because runtimes round at other places.
    The error ratio decides there, in units of float16's own rounding (see `parity.judge.ratio`), and `atol` is only
    reported.

    Args:
        config: the configuration that the file was exported with.
        preprocessor: makes the dummy inputs, through `config.generate_dummy_inputs`.
        reference_model: the model that was exported, in float32 or float16.
        onnx_model: the file.
        onnx_named_outputs: the names of its outputs, as `export` returns them.
        atol: the largest absolute difference allowed.
        tokenizer: deprecated name of `preprocessor`.

    Raises:
        NameMismatch, DtypeMismatch, ShapeMismatch, ValueMismatch: names, dtypes, shapes or values differ; each is a
            ValueError, and its message names every bad output with count, worst difference and index.
        UsageError: an argument is wrong, or the model's weights are of another type.
        SessionError: ONNX Runtime refuses the file.
    """
    from parity import arguments, shapes, validation
    from parity.onnx.log import validation_lines
    from parity.reference import answers
    from parity.samples import SampleSource
    from parity.sessions import OnnxSession
    from parity.traceable import attention_of

    reference_model = arguments.transformers_model(reference_model)
    for check, argument in (
        (arguments.require_config, config),
        (arguments.require_model, reference_model),
        (arguments.require_tolerance, atol),
        (arguments.require_names, onnx_named_outputs),
    ):
        check(argument)
    arguments.require_dtype(reference_model)
    arguments.require_path(onnx_model, "onnx_model")
    preprocessor = one_preprocessor(preprocessor, tokenizer)
    logger.info("Validating ONNX model...")
    source = SampleSource(config, preprocessor, reference_model.config, dtype_name(reference_model.dtype))
    samples = shapes.choose_samples(source, longest=config.longest_sequence(reference_model), resize=False)
    is_half = source.dtype != DEFAULT_DTYPE
    references = answers(reference_model, config, samples, exact=is_half)
    require_outputs(onnx_named_outputs, references[0].eager)
    session = OnnxSession(Path(onnx_model))
    _require_types(session.floating, {**validation.backend_inputs(config, samples[0]), **references[0].eager})
    # In halves, a row that attends to nothing returns the rounding errors of its scores.
    same_attention = session.metadata.get("attention") == attention_of(reference_model) and not is_half
    result = validation.compare(
        lambda inputs: session.run(inputs, onnx_named_outputs),
        config,
        validation.pool_of(source, samples, [answer.select(onnx_named_outputs) for answer in references]),
        validation.Criteria(None if is_half else atol, same_attention=same_attention),
    )
    for line in validation_lines(result, atol=None if is_half else atol, expected_atol=atol):
        logger.info(line)
    result.raise_on_failure()


def _require_types(types: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a file of another floating type than the reference model.

    Args:
        types: the file's, by name of the input or output.
        arrays: the inputs and outputs of the model.

    Raises:
        DtypeMismatch
    """
    from parity.errors import DtypeMismatch
    from parity.releases import dtype_option

    for name, dtype in types.items():
        if name in arrays and is_floating(arrays[name].dtype) and arrays[name].dtype.name != dtype:
            option = next(iter(dtype_option(torch_dtype(DEFAULT_DTYPE))))
            raise DtypeMismatch(
                f"{name}: is {dtype} in the file, should be {arrays[name].dtype.name} as in the reference model; give"
                f" the model that was exported, loaded with from_pretrained(…, {option}=torch.{dtype})"
            )


def require_outputs(names: Iterable[str], returned: Mapping[str, object]) -> None:
    """Refuse output names that the reference model does not return.

    Raises:
        NameMismatch
    """
    from parity.errors import NameMismatch

    absent = [name for name in names if name not in returned]
    if absent:
        raise NameMismatch(
            f"output names: {', '.join(absent)} in the file, but the reference model returns {', '.join(returned)}"
        )


def ensure_model_and_config_inputs_match(model: PreTrainedModel, model_inputs: Iterable[str]) -> tuple[bool, list[str]]:
    """Whether the model's `forward` takes all of `model_inputs`, and those that it takes, in its own order."""
    from parity.releases import parameters_of

    names = set(model_inputs)
    model_class: type = type(model)
    parameters = parameters_of(model_class)
    return names <= set(parameters), [name for name in parameters if name in names]
