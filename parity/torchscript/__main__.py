"""`python -m parity.torchscript --model=… output`: trace a checkpoint, prove the file, and report where it is right."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from parity.axes import FIRST_TEXTS
from parity.console import (
    ATTENTIONS,
    Console,
    checkpoint_options,
    complain,
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
    from parity.samples import Sample, SampleSource
    from parity.torchscript.verdicts import Verdict


def parser(prog: str = "python -m parity.torchscript") -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = argparse.ArgumentParser(
        prog, description="Trace a Transformers checkpoint to a TorchScript file, prove it, and try it at other sizes."
    )
    model_option(p)
    feature_option(p, "what the model is traced for; default: %(default)s")
    p.add_argument("--batch", type=whole_number, help="rows of the traced batch (default: 2)")
    p.add_argument(
        "--sequence-length",
        type=whole_number,
        metavar="TOKENS",
        help="length of the traced text; shorter requests can be padded to it (default: 8)",
    )
    p.add_argument(
        "--attention", choices=ATTENTIONS, default="eager", help="implementation of attention (default: %(default)s)"
    )
    p.add_argument(
        "--check-trace", action="store_true", help="let torch trace twice and compare; takes 2 to 3 times as long"
    )
    checkpoint_options(p)
    preprocessor_option(p)
    overwrite_option(p)
    log_options(p)
    p.add_argument("output", type=Path, help="directory for model.pt and its companions, or a path ending in .pt")
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.torchscript") -> int:
    """Run the command; returns its exit status."""
    args = parser(prog).parse_args(argv)
    console = Console(quiet=args.quiet, as_json=args.json)
    return run_guarded(prog, lambda: _export(args, console), as_json=args.json)


def _export(args: argparse.Namespace, console: Console) -> int:
    from parity import files, opening

    started = time.perf_counter()
    output = args.output
    destination = output if output.suffix == ".pt" or output.is_file() else output / "model.pt"
    source = opening.locate(args)
    with files.staging_directory(destination) as stage:
        console.progress("importing torch and transformers")
        with opening.without_collections():
            from parity.companions import Companions
            from parity.environment import describe, version_of
            from parity.publication import Publication
            from parity.torchscript import export, table, verdict

            checkpoint = opening.open_checkpoint(args, source, console)
            feature = args.feature = opening.choose_feature(checkpoint, args.feature, console)
        onnx_config = checkpoint.onnx_config(feature)
        inputs = checkpoint.inputs(onnx_config)
        checkpoint.report_inputs(inputs, console)
        companions = Companions.write(checkpoint, stage, [destination], overwrite=args.overwrite, say=console.say)
        with checkpoint.unchanged():
            sample, model = _prepare(args, console, checkpoint, inputs)
            console.say(
                f"Tracing {checkpoint}: feature {feature}, attention {args.attention}, torch {version_of('torch')}"
                + checkpoint.cast_note()
            )
            console.progress("tracing")
            path = stage / destination.name
            trace = export(
                model,
                {name: value for name, value in sample.inputs.items() if value is not None},
                path,
                feature=feature,
                onnx_config=onnx_config,
                check_trace=args.check_trace,
                checkpoint=checkpoint.fingerprint,
                say=console.say,
            )
            verdicts = (
                verdict(
                    trace,
                    model,
                    preprocessor=checkpoint.preprocessor,
                    onnx_config=onnx_config,
                    progress=console.progress,
                )
                if trace.sizes
                else []
            )
        console.clear()
        console.say("At other sizes:")
        for line in table(verdicts):
            console.say(f"    {line}")
        console.say(f"Needs torch>={trace.minimum_torch}")
        _warn(verdicts)
        publication = Publication(stage, destination.parent)
        companions.add_to(publication)
        publication.add_entry(path, destination.name)
        publication.commit()
    console.say(f"All good, model saved at: {destination.as_posix()}")
    if args.json:
        summary = {
            "status": "passed",
            "checkpoint": str(checkpoint),
            "model": destination.as_posix(),
            **trace.facts(),
            "proof": trace.proof,
            "verdicts": [each.as_json() for each in verdicts],
            "environment": describe(),
            "seconds": round(time.perf_counter() - started, 3),
        }
        print_result(summary)
    return 0


def _prepare(
    args: argparse.Namespace, console: Console, checkpoint: Checkpoint, inputs: SampleSource
) -> tuple[Sample, torch.nn.Module]:
    """The sample to trace with, and the model.

    Args:
        args: of the command.
        console: for progress.
        checkpoint: the model's.
        inputs: source of samples.

    Raises:
        UsageError: a length is given, but the model has no text.
    """
    from parity import loading
    from parity.errors import UsageError

    text = next((axis for axis in FIRST_TEXTS if axis in inputs.axes), None)
    if args.sequence_length is not None and text is None:
        raise UsageError(
            f"--sequence-length: {checkpoint.model_type} {args.feature} has no text whose length could be set"
        )
    console.progress(f"loading {args.model}")
    model = checkpoint.load(args.feature, inputs, attention=args.attention)
    with loading.quiet_transformers():
        sample = _sample(args, inputs, text, inputs.onnx_config.longest_sequence(model))
    return sample, model


def _sample(args: argparse.Namespace, source: SampleSource, text: str | None, longest: int | None) -> Sample:
    """The sample at the sizes of the options.

    Args:
        args: of the command.
        source: of samples.
        text: the axis of the tokens; not None if a length is given.
        longest: the most tokens that the model takes; None for any number.

    Raises:
        UsageError: the length is too large, or too small for the special tokens.
    """
    from parity.errors import UsageError

    sample = source.generate(batch_size=args.batch or -1, seq_length=args.sequence_length or -1)
    tokens, length = sample.tokens, args.sequence_length
    if length is not None and text is not None:
        if longest is not None and max(tokens, length) > longest:
            with_past = f" ({tokens} with the past)" if tokens > length else ""
            raise UsageError(f"--sequence-length: got {length}{with_past}, the model takes at most {longest} tokens")
        if sample.sizes[text] != length:
            raise UsageError(f"--sequence-length: got {length}, should leave room for the tokenizer's special tokens")
    return sample


def _warn(verdicts: Iterable[Verdict]) -> None:
    """Print one line for each axis along which the file would be silently wrong."""
    from parity.torchscript.verdicts import SILENTLY_WRONG

    for each in verdicts:
        if each.outcome == SILENTLY_WRONG:
            sizes = (
                f"{each.axis} other than {each.traced}" if each.traced is not None else "several axes changed at once"
            )
            complain(
                f"warning: the file is silently wrong at {sizes}; run it at its traced sizes only, for example through"
                " parity.torchscript.Runner, which pads to them"
            )


if __name__ == "__main__":
    from parity.supervision import run_process

    run_process("python -m parity.torchscript", main)
