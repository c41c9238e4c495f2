"""`python -m parity.onnx --model=… output`: export one checkpoint to ONNX and prove the file before it is delivered."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.console import (
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
    thorough_option,
    tolerance,
)

if TYPE_CHECKING:
    from parity.onnx.checkpoint_export import CheckpointExport
    from parity.publication import Publication


def parser(prog: str = "python -m parity.onnx") -> argparse.ArgumentParser:
    """The command line, that of `transformers.onnx` and more."""
    p = argparse.ArgumentParser(prog, description="Export a Transformers checkpoint to ONNX and prove the file.")
    model_option(p)
    feature_option(p, "what the model is exported for; default: %(default)s")
    p.add_argument("--opset", type=int, help="ONNX opset of the file (default: the architecture's own)")
    p.add_argument("--atol", type=tolerance, help="hard limit on the absolute difference, besides the error ratio")
    p.add_argument(
        "--framework", choices=("pt", "tf"), help="read PyTorch or TensorFlow weights (default: those that exist)"
    )
    thorough_option(p)
    checkpoint_options(p)
    preprocessor_option(p)
    p.add_argument(
        "--prefill",
        action="store_true",
        help="for an encoder-decoder with a past: also write prefill.onnx, which computes the cross-attention caches",
    )
    overwrite_option(p)
    # Accepted for scripts written for transformers.onnx, where it chose between two exporters.
    p.add_argument("--export_with_transformers", action="store_true", help=argparse.SUPPRESS)
    log_options(p)
    p.add_argument("output", type=Path, help="directory for model.onnx and its companions, or a path ending in .onnx")
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.onnx") -> int:
    """Run the command and return its exit status."""
    args = parser(prog).parse_args(argv)
    console = Console(quiet=args.quiet, as_json=args.json)
    return run_guarded(prog, lambda: _export(args, console), as_json=args.json)


def _export(args: argparse.Namespace, console: Console) -> int:
    from parity import files, onnx_files, opening
    from parity.opsets import check_opset
    from parity.publication import Publication

    start = time.perf_counter()
    destination = files.output_file(args.output)
    if args.opset is not None:
        check_opset(args.opset)
    source = opening.locate(args)
    with files.staging_directory(destination) as stage:
        console.progress("importing torch and transformers")
        with opening.without_collections():
            from parity.companions import Companions
            from parity.onnx.checkpoint_export import CheckpointExport

            checkpoint = opening.open_checkpoint(args, source, console)
            feature = opening.choose_feature(checkpoint, args.feature, console)
            export = CheckpointExport(checkpoint, feature, args.opset, console)
        exports = {destination.name: export}
        if args.prefill:
            exports = {"prefill.onnx": export.prefill(), **exports}
        outputs = [destination.with_name(name) for name in exports]
        rejected = [*map(onnx_files.rejected_path, outputs)]
        companions = Companions.write(
            checkpoint, stage, outputs, instead=rejected, overwrite=args.overwrite, say=console.say
        )
        summaries = {name: _export_and_judge(each, stage / name, args, console) for name, each in exports.items()}
        passed = all(each["status"] == "passed" for each in summaries.values())
        publication = Publication(stage, destination.parent)
        if passed:
            companions.add_to(publication)
        for name, summary in summaries.items():
            _add(publication, stage / name, destination.with_name(name), summary, deliver=passed)
        publication.commit()
        for name, summary in summaries.items():
            _tell(destination.with_name(name), summary, console)
        summary = summaries[destination.name]
        if args.prefill:
            summary["prefill"] = summaries["prefill.onnx"]
        summary["seconds"] = round(time.perf_counter() - start, 3)
        if args.json:
            print_result(summary)
    return 0 if passed else 1


def _export_and_judge(
    export: CheckpointExport, path: Path, args: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Export one file to `path` and judge it; the outcome as a JSON object."""
    with export.checkpoint.unchanged():
        export.export(path)
        validation = export.validate(path, atol=args.atol, thorough=args.thorough)
    console.clear()
    for line in export.lines(validation, args.atol):
        console.say(line)
    if not validation.passed:
        complain(f"error: {validation.message()}")
    return export.summary(validation, args.atol)


def _add(publication: Publication, path: Path, destination: Path, summary: dict[str, Any], *, deliver: bool) -> None:
    """Publish a good file; keep a rejected one under another name; drop a good file that goes with a rejected one."""
    from parity import onnx_files

    rejected = onnx_files.rejected_path(destination)
    if deliver:
        onnx_files.add_model(publication, path, destination.name)
        onnx_files.remove_model(publication, rejected.name)
        summary["model"] = destination.as_posix()
    elif summary["status"] == "failed":
        onnx_files.add_model(publication, path, rejected.name)
        summary["rejected"] = rejected.as_posix()


def _tell(destination: Path, summary: dict[str, Any], console: Console) -> None:
    """Report the outcome of one file."""
    if "model" in summary:
        console.say(f"All good, model saved at: {summary['model']}")
    elif "rejected" in summary:
        complain(f"The rejected file is kept as {summary['rejected']}; {destination.name} was not written.")
    else:
        complain(f"{destination.name} passed, but was not written, because it belongs with the rejected file.")


if __name__ == "__main__":
    from parity.supervision import run_process

    run_process("python -m parity.onnx", main)
