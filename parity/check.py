"""`python -m parity.check MODEL_DIR model.onnx`: judge an ONNX file that somebody else exported."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from parity import interruptions
from parity.console import (
    Console,
    checkpoint_options,
    complain,
    feature_option,
    log_options,
    print_result,
    run_guarded,
    thorough_option,
    tolerance,
    whole_number,
)
from parity.errors import UsageError
from parity.paths import require_regular

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from parity.judge.contract import Contract


def parser(prog: str = "python -m parity.check") -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog, description="Judge an ONNX file against the checkpoint it was exported from.")
    p.add_argument("model", help="directory of the checkpoint, or model id on the Hub")
    p.add_argument("file", type=Path, help="the ONNX file")
    feature_option(p, "what the file was exported for; default: read from the file", None)
    p.add_argument("--atol", type=tolerance, help="hard limit on the absolute difference, besides the error ratio")
    thorough_option(p)
    p.add_argument(
        "--timeout",
        type=whole_number,
        default=3600,
        metavar="SECONDS",
        help="stop a file that runs longer than this (default: %(default)s)",
    )
    checkpoint_options(p)
    log_options(p)
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.check") -> int:
    """Run the command; returns its exit status."""
    args = parser(prog).parse_args(argv)
    console = Console(quiet=args.quiet, as_json=args.json)
    return run_guarded(prog, lambda: _check(args, console), as_json=args.json)


def _check(args: argparse.Namespace, console: Console) -> int:
    from parity import opening

    require_regular(args.file, "file", "give the ONNX file to judge")
    interruptions.limit_time(args.timeout)
    interruptions.limit_memory()
    source = opening.locate(args)
    console.progress("importing torch and transformers")
    from parity import sentences
    from parity.configs import OnnxSeq2SeqConfigWithPast
    from parity.dtypes import DEFAULT_DTYPE, DTYPES
    from parity.exporters import EXPORTERS
    from parity.judge import contract
    from parity.onnx import proof
    from parity.onnx.log import validation_lines
    from parity.registry import architecture

    file = contract.read(args.file)
    checkpoint = opening.open_checkpoint(args, source, console)
    whole = checkpoint.modules and {value.name for value in file.outputs} == {*sentences.OUTPUTS}
    name = args.feature or (sentences.FEATURE if whole else guess_feature(file, checkpoint.config))
    feature = opening.choose_feature(checkpoint, name, console)
    onnx_config = checkpoint.onnx_config(feature)
    if file.metadata.get("part") == "prefill":
        if not isinstance(onnx_config, OnnxSeq2SeqConfigWithPast) or not onnx_config.dead_inputs:
            raise UsageError(
                f"file {args.file}: it fills cross-attention caches, which {checkpoint.model_type} {feature} does not"
                " have; name the -with-past feature of an encoder-decoder with --feature"
            )
        onnx_config = onnx_config.prefill()
    for name, valid in {"exporter": tuple(EXPORTERS), "dtype": tuple(DTYPES)}.items():
        if name in file.metadata and file.metadata[name] not in valid:
            raise UsageError(
                f"file {args.file}: its {name} is {file.metadata[name]}, should be one of {', '.join(valid)}"
            )
    dtype = file.metadata.get("dtype", DEFAULT_DTYPE)
    inputs = checkpoint.inputs(onnx_config, dtype)
    checkpoint.report_inputs(inputs, console)
    attention_of_file, declaration = file.metadata.get("attention"), architecture(checkpoint.model_type)
    attention = (
        "sdpa"
        if attention_of_file == "sdpa" and declaration.has_sdpa(checkpoint.declared_feature(feature))
        else "eager"
    )

    def load() -> PreTrainedModel:
        return checkpoint.load(feature, inputs, attention=attention, dtype=dtype)

    with checkpoint.unchanged():
        validation = proof.judge_file(
            proof.Artifact(args.file, file, foreign=True),
            proof.Reference(load, inputs, checkpoint.relations_of(feature), thorough=args.thorough),
            atol=args.atol,
            same_attention=attention == attention_of_file,
            progress=console.progress,
        )
    console.clear()
    unusual = [f"{name} {file.metadata[name]}" for name in ("exporter", "dtype") if name in file.metadata]
    note = checkpoint.cast_note(dtype, "compared")
    console.say(f"Judging {args.file}: {', '.join([f'feature {feature}', f'opset {file.opset}', *unusual])}{note}")
    console.say("Validating ONNX model...")
    for line in validation_lines(validation, atol=args.atol, expected_atol=onnx_config.atol_for_validation):
        console.say(line)
    if args.json:
        status = "passed" if validation.passed else "failed"
        about = {"status": status, "file": str(args.file), "feature": feature, "opset": file.opset}
        print_result({**about, **validation.as_json()})
    if not validation.passed:
        complain(f"error: {validation.message()}")
        return 1
    console.say(f"All good: {args.file} computes what {checkpoint} computes")
    return 0


def guess_feature(file: Contract, config: PretrainedConfig) -> str:
    """The feature of a file: what its metadata says, else the one whose outputs it has and that the model was saved as.

    Raises:
        UsageError: no feature of the architecture has the file's outputs, or several have and nothing decides.
    """
    from parity import features
    from parity.checkpoint import features_of

    if file.metadata.get("feature"):
        return file.metadata["feature"]
    outputs = sorted(value.name for value in file.outputs)
    fitting = [
        feature for feature, build in features_of(config.model_type).items() if sorted(build(config).outputs) == outputs
    ]
    saved = features.features_saved(config)
    likely = [feature for feature in fitting if feature in saved]
    candidates = likely or fitting
    if len(candidates) != 1:
        problem = (
            f"fits {', '.join(candidates)}" if candidates else f"has the outputs {', '.join(outputs)}, which fit none"
        )
        raise UsageError(f"feature: the file {problem}; name it with --feature")
    return candidates[0]


if __name__ == "__main__":
    from parity.supervision import run_process

    run_process("python -m parity.check", main)
