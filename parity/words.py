"""The words that a declaration may use, as data; tests compare them with the judge, the fixtures and the matrix."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement

KINDS = ("encoder", "decoder", "encoder-decoder", "vision", "multimodal", "speech")
FORMATS = ("onnx", "torchscript", "neuron")
ATTENTIONS = ("eager", "sdpa")
TRACE_OUTCOMES = ("raises", "fixed by the model", "silently wrong")
RELATIONS = ("batch-permutation", "batch-of-one", "padding-right", "padding-left")
# Each is a test of the matrix, without `test_`; `parity.judge.findings.CHECKS` are the checks of a finding.
TESTS = (
    "attention_of_file",
    "attention_on_record",
    "beyond_the_maximum",
    "boundaries",
    "checker",
    "contract",
    "determinism",
    "drawn_configurations",
    "drawn_sizes",
    "exported_alone",
    "float64_has_the_recorded_relations",
    "generation_without_pytorch",
    "greedy_tokens",
    "inputs_have_effect",
    "loads_alone",
    "neuron_answers",
    "neuron_graph",
    "neuron_translation",
    "neuron_translation_graph",
    "optimisations",
    "other_sizes",
    "outputs_say_something",
    "python_api",
    "python_api_eager",
    "python_api_sdpa",
    "reference_unchanged",
    "relations",
    "split_decoding",
    "static_axes",
    "steps_reorder_and_crop",
    "trace",
    "trace_at_drawn_sizes",
    "trace_verdicts",
    "traced_sizes",
    "verdict_of_the_commands",
    "weights",
    "without_optional_inputs",
)
# Each is a class of `parity.errors`.
EXCEPTIONS = (
    "CheckpointError",
    "ContractMismatch",
    "DtypeMismatch",
    "EnvironmentGap",
    "ExportError",
    "Mismatch",
    "NameMismatch",
    "OutputError",
    "ParityError",
    "SessionError",
    "ShapeMismatch",
    "UsageError",
    "ValueMismatch",
)
# Each is a preprocessor of `parity.fixtures.preprocessors`; so are `image32` and `sound20`, with any number.
PREPROCESSORS = (
    "bart",
    "bert",
    "clip",
    "detr",
    "distilbert",
    "gpt2",
    "layoutlmv3",
    "owlvit",
    "palette",
    "roberta",
    "t5",
)
_SIZED = re.compile(r"(image|sound)\d+")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# The packages that a requirement may name.
PACKAGES = (
    *("huggingface-hub", "numpy", "onnx", "onnxruntime", "safetensors", "tokenizers", "torch", "torchvision"),
    "transformers",
)


def require(subject: str, words: Iterable[str], valid: Sequence[str]) -> None:
    """Refuse a word that is not among the valid ones.

    Args:
        subject: the kind of the words, for the message.
        words: the words to check.
        valid: the valid words.

    Raises:
        ValueError: one of them is unknown; the message lists the valid ones.
    """
    unknown = [word for word in words if word not in valid]
    if unknown:
        raise ValueError(
            f"{subject}: got {', '.join(map(repr, unknown))}, should be among {', '.join(map(str, valid))}"
        )


def require_exception(subject: str, name: str) -> None:
    """Refuse anything but an exception of `parity.errors` or a built-in; `Exception` would match all of them.

    Raises:
        ValueError: the message lists the valid ones.
    """
    built_in = getattr(builtins, name, None)
    is_one = isinstance(built_in, type) and issubclass(built_in, Exception) and built_in is not Exception
    require(subject, [] if is_one else [name], (*EXCEPTIONS, "the exceptions of Python, such as TypeError"))


def require_pattern(subject: str, text: str) -> None:
    """Refuse anything but a regular expression.

    Raises:
        ValueError
    """
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{subject}: got {text!r}, should be a regular expression: {error}") from error


def require_preprocessor(subject: str, name: str) -> None:
    """Refuse a preprocessor that is neither known, nor joined from known ones, nor a dotted name.

    Raises:
        ValueError: the message lists the valid ones.
    """
    if _DOTTED.fullmatch(name):
        return
    unknown = [part for part in name.split("+") if part not in PREPROCESSORS and not _SIZED.fullmatch(part)]
    require(f"{subject}: preprocessor", unknown, (*PREPROCESSORS, "image<size>", "sound<frames>", "package.function"))


def require_versions(subject: str, requirements: str) -> None:
    """Refuse anything but requirements such as `transformers>=5; torch<2.14`, and unknown packages.

    Raises:
        ValueError
    """
    for text in re.split(r";| or ", requirements):
        try:
            name = Requirement(text).name
        except InvalidRequirement as error:
            raise ValueError(
                f"{subject}: {text.strip()!r} is no requirement such as transformers>=5: {error}"
            ) from error
        require(f"{subject}: requirement", [name], PACKAGES)
