"""`python -m parity.neuron --model=… output`: compile a checkpoint for Inf1, and prove it if there is a device."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.axes import TEXTS
from parity.console import (
    Console,
    checkpoint_options,
    feature_option,
    log_options,
    model_option,
    overwrite_option,
    preprocessor_option,
    print_result,
    run_guarded,
    whole_number,
)

if TYPE_CHECKING:
    import torch

    from parity.checkpoint import Checkpoint
    from parity.configs import OnnxConfig
    from parity.samples import Sample

    # The samples by length (the buckets); length 0 for a model without text.
    _Workload = tuple[Checkpoint, OnnxConfig, dict[int, Sample], torch.nn.Module]


def parser(prog: str = "python -m parity.neuron") -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = argparse.ArgumentParser(prog, description="Compile a Transformers checkpoint for AWS Inf1 in fixed shapes.")
    model_option(p)
    feature_option(p, "what the model is compiled for; default: %(default)s")
    p.add_argument("--batch", type=whole_number, default=1, help="rows of the compiled batch (default: %(default)s)")
    lengths = p.add_mutually_exclusive_group()
    lengths.add_argument(
        "--sequence-length",
        type=whole_number,
        metavar="TOKENS",
        help="length of the compiled text; shorter requests are padded to it (default: 128)",
    )
    lengths.add_argument(
        "--buckets",
        type=_counts,
        metavar="TOKENS,…",
        help="several lengths, such as 64,128: one file each; a request uses the smallest that fits",
    )
    p.add_argument("--dynamic-batch", action="store_true", help="let the first axis of every input have any size")
    p.add_argument("--cores", type=whole_number, help="compile for a pipeline of this many NeuronCores (default: 1)")
    p.add_argument(
        "--allow-fallback", action="store_true", help="report operators that fell back to the CPU, and deliver the file"
    )
    p.add_argument("--workdir", help="keep what the compiler writes in this directory")
    p.add_argument(
        "--package", choices=("torch_neuron", "torch_neuronx"), help="package of the SDK (default: the installed one)"
    )
    action = p.add_mutually_exclusive_group()
    action.add_argument("--analyze", action="store_true", help="only print the SDK's own report on the operators")
    action.add_argument(
        "--coverage",
        action="store_true",
        help="only list the operators that would run on the CPU, by AWS's list; needs no SDK",
    )
    action.add_argument(
        "--emulate", action="store_true", help="use torch.jit.trace instead of the SDK; proves nothing about Inf1"
    )
    checkpoint_options(p)
    preprocessor_option(p)
    overwrite_option(p)
    log_options(p)
    p.add_argument("output", type=Path, nargs="?", help="directory for model.pt (model-64.pt, … with --buckets)")
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.neuron") -> int:
    """Run the command; returns its exit status."""
    own = parser(prog)
    args = own.parse_args(argv)
    if args.output is None and not (args.analyze or args.coverage):
        own.error("the following arguments are required: output")
    console = Console(quiet=args.quiet, as_json=args.json)
    return run_guarded(prog, lambda: _run(args, console), as_json=args.json)


def _counts(text: str) -> list[int]:
    return sorted({whole_number(part.strip()) for part in text.split(",")})


def _run(args: argparse.Namespace, console: Console) -> int:
    from parity import opening

    started = time.perf_counter()
    source = opening.locate(args)
    console.progress("importing torch and transformers")
    from parity.environment import describe
    from parity.neuron import sdk

    if not args.coverage:
        # Report what is missing before anything is loaded.
        sdk.tracer(args.package, emulate=args.emulate)
    workload = _prepare(args, source, console)
    act = _examine if args.coverage or args.analyze else _compile
    outcome = act(args, console, workload)
    if args.json:
        summary = {
            "status": "passed",  # replaced by `outcome` if the file was only compiled, or emulated
            "checkpoint": str(workload[0]),
            "feature": args.feature,
            **outcome,
            "environment": describe(),
            "seconds": round(time.perf_counter() - started, 3),
        }
        print_result(summary)
    return 0


def _prepare(args: argparse.Namespace, source: str, console: Console) -> _Workload:
    """Checkpoint, OnnxConfig, samples by bucket, and the model."""
    from parity import opening
    from parity.errors import UsageError

    checkpoint = opening.open_checkpoint(args, source, console)
    args.feature = opening.choose_feature(checkpoint, args.feature, console)
    onnx_config = checkpoint.onnx_config(args.feature)
    inputs = checkpoint.inputs(onnx_config)
    checkpoint.report_inputs(inputs, console)
    text = [axis for axis in TEXTS if axis in inputs.axes]
    lengths = args.buckets or ([args.sequence_length] if args.sequence_length else [])
    if lengths and not text:
        raise UsageError(
            f"--sequence-length: {checkpoint.model_type} {args.feature} has no text whose length could be set"
        )
    console.progress(f"loading {checkpoint}")
    model = checkpoint.load(args.feature, inputs)
    longest = onnx_config.longest_sequence(model)
    if text and not lengths:
        lengths = [min(128, longest or 128)]
    if longest is not None and lengths and max(lengths) > longest:
        raise UsageError(f"--sequence-length: got {max(lengths)}, the model takes at most {longest} tokens")
    samples = {
        length: inputs.resize({"batch": args.batch, **dict.fromkeys(text, length)} if length else {"batch": args.batch})
        for length in lengths or [0]
    }
    return checkpoint, onnx_config, samples, model


def _examine(args: argparse.Namespace, console: Console, workload: _Workload) -> dict[str, Any]:
    """Report the operators by AWS's list, or by the SDK; nothing is compiled or written."""
    from parity import neuron
    from parity.torchscript import export

    _, onnx_config, samples, model = workload
    inputs = next(iter(samples.values())).inputs
    if args.analyze:
        report = neuron.analyze(model, inputs, feature=args.feature, onnx_config=onnx_config, package=args.package)
        console.clear()
        console.say(str(report))
        return {"analysis": str(report)}
    traced = export(model, inputs, feature=args.feature, onnx_config=onnx_config, prove=False)
    coverage = neuron.coverage(traced.module)
    console.clear()
    for line in coverage.lines():
        console.say(line)
    return {"coverage": coverage.as_json()}


def _compile(args: argparse.Namespace, console: Console, workload: _Workload) -> dict[str, Any]:
    from parity import files, neuron
    from parity.companions import Companions
    from parity.environment import version_of
    from parity.neuron import tracing
    from parity.publication import Publication

    checkpoint, onnx_config, samples, model = workload
    single = args.output.suffix == ".pt" or args.output.is_file()
    options: dict[str, Any] = {"dynamic_batch_size": True} if args.dynamic_batch else {}
    if args.cores:
        options["compiler_args"] = ["--neuroncore-pipeline-cores", str(args.cores)]
    if args.workdir:
        options["compiler_workdir"] = args.workdir
    directory = args.output.parent if single else args.output
    say = tracing.emulation_log(console.say) if args.emulate else console.say
    name = args.output.name if single else "model.pt"
    names = {length: f"{Path(name).stem}-{length}.pt" if args.buckets else name for length in samples}
    neuron_models, note = [], checkpoint.cast_note()
    destinations = [directory / each for each in names.values()]
    with files.staging_directory(destinations[0]) as stage:
        companions = Companions.write(checkpoint, stage, destinations, overwrite=args.overwrite, say=say)
        with checkpoint.unchanged():
            for length, sample in samples.items():
                name = names[length]
                sizes = " × ".join(f"{axis} {size}" for axis, size in sample.sizes.items())
                say(f"Compiling {checkpoint}: feature {args.feature}, {sizes}, torch {version_of('torch')}{note}")
                console.progress("compiling, which takes minutes")
                neuron_model = neuron.trace(
                    model,
                    {key: value for key, value in sample.inputs.items() if value is not None},
                    stage / name,
                    feature=args.feature,
                    onnx_config=onnx_config,
                    package=args.package,
                    emulate=args.emulate,
                    allow_fallback=args.allow_fallback,
                    checkpoint=checkpoint.fingerprint,
                    say=say,
                    **options,
                )
                console.clear()
                if neuron_model.engine == "neuron":
                    outside = ", ".join(f"{key} ({count})" for key, count in neuron_model.outside.items()) or "none"
                    say(f"Compiled code in {neuron_model.compiled} nodes; operators beside them: {outside}")
                neuron_models.append(neuron_model)
        publication = Publication(stage, directory)
        companions.add_to(publication)
        for name in names.values():
            publication.add_entry(stage / name, name)
        publication.commit()
    paths = [path.as_posix() for path in destinations]
    say(f"saved at: {', '.join(paths)}")
    proven = all(each.proof for each in neuron_models)
    return {
        "status": "emulation" if args.emulate else "passed" if proven else "compiled",
        "engine": neuron_models[0].engine,
        "models": [
            {"model": path, "proof": each.proof, **each.facts()}
            for path, each in zip(paths, neuron_models, strict=True)
        ],
    }


if __name__ == "__main__":
    from parity.supervision import run_process

    run_process("python -m parity.neuron", main)
