"""`python -m parity.check MODEL_DIR model.onnx`: judge an ONNX file that somebody else exported."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parity import interruptions
from parity.axes import Role, role_of
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
from parity.errors import ExportError, UsageError
from parity.paths import require_regular

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from transformers import PretrainedConfig, PreTrainedModel

    from parity.checkpoint import Checkpoint
    from parity.configs import OnnxConfig
    from parity.judge.contract import Contract
    from parity.judge.names import Explicit
    from parity.onnx.directories import PartFile
    from parity.onnx.foreign import Adaptation
    from parity.onnx.proof import Artifact
    from parity.onnx.rounded import Verdict
    from parity.validation import Validation


def parser(prog: str = "python -m parity.check") -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog, description="Judge an ONNX file against the checkpoint it was exported from.")
    p.add_argument("model", help="directory of the checkpoint, or model id on the Hub")
    text = "the ONNX file, or a directory with the files of one model, as optimum and transformers.js have it"
    p.add_argument("file", type=Path, help=text)
    feature_option(p, "what the file was exported for; default: read from the file", None)
    p.add_argument("--atol", type=tolerance, help="hard limit on the absolute difference, besides the error ratio")
    thorough_option(p)
    p.add_argument(
        "--max-ratio",
        type=tolerance,
        help="largest error ratio that passes: how many times as far from float64 as PyTorch itself (default: 4)",
    )
    p.add_argument("--names", type=Path, help="JSON file that maps the file's input and output names to the model's")
    p.add_argument(
        "--timeout",
        type=whole_number,
        default=3600,
        metavar="SECONDS",
        help="stop a file that runs longer than this (default: %(default)s)",
    )
    p.add_argument(
        "--max-drift",
        type=tolerance,
        help="largest drift of a float16 or integer file from the unquantised model, relative to the answer"
        " (default: by its precision and by how sensitive the model is)",
    )
    checkpoint_options(p)
    log_options(p)
    return p


def main(argv: list[str] | None = None, prog: str = "python -m parity.check") -> int:
    """Run the command and return its exit status."""
    args = parser(prog).parse_args(argv)
    console = Console(quiet=args.quiet, as_json=args.json)
    return run_guarded(prog, lambda: _check(args, console), as_json=args.json)


def _check(args: argparse.Namespace, console: Console) -> int:
    from parity import opening

    if not args.file.is_dir():
        require_regular(args.file, "file", "give the ONNX file to judge")
    interruptions.limit_time(args.timeout)
    interruptions.limit_memory()
    source = opening.locate(args)
    console.progress("importing torch and transformers")
    with opening.without_collections():
        from parity.onnx import directories, foreign

        explicit = foreign.read_names(args.names)
        files = directories.find_files(args.file)
        checkpoint = opening.open_checkpoint(args, source, console)
        features = [args.feature] if args.feature else checkpoint.saved_features
    if not args.file.is_dir() and not any(_has_part(checkpoint, each, files[0].part) for each in features):
        # The file of a whole model may have any name.
        files = [directories.PartFile(args.file)]
    _require_names(explicit, files)
    outcomes, results = {}, []
    for file in files:
        try:
            outcomes[file] = _check_file(args, _Source(file, explicit), checkpoint, console)
            results.append(outcomes[file].result)
        except ExportError as error:
            if len(files) == 1:
                raise
            # The others are judged all the same.
            complain(f"error: {error}")
            failure = {"check": "load", "subject": "file", "message": str(error)}
            results.append({"status": "failed", "file": str(file.path), "failures": [failure]})
    results += _check_directory(files, outcomes, checkpoint, console) if args.file.is_dir() else []
    failed = [each for each in results if each["status"] == "failed"]
    if args.json:
        whole = {"status": "failed" if failed else "passed", "file": str(args.file), "files": results}
        print_result(whole if args.file.is_dir() or len(files) > 1 else results[0])
    return 1 if failed else 0


def _require_names(explicit: Explicit, files: Sequence[PartFile]) -> None:
    """Refuse a table of `--names` with a name that no file has.

    Raises:
        UsageError
    """
    from parity.judge import contract

    for side, names in (("inputs", explicit.inputs), ("outputs", explicit.outputs)):
        own = {value.name for file in files for value in getattr(contract.read(file.path), side)} if names else set()
        if wrong := [name for name in names if name not in own]:
            raise UsageError(
                f"--names {side}.{wrong[0]}: is no name of the file's, should be one of {', '.join(sorted(own))}"
            )


def _check_directory(
    files: Sequence[PartFile], outcomes: Mapping[PartFile, _Outcome], checkpoint: Checkpoint, console: Console
) -> list[dict[str, Any]]:
    """Run the files of a directory together, as far as they pass, and log the outcomes; warn of parts that cannot."""
    from parity.onnx import directories

    results, done = [], set()
    for group in directories.groups_of(files):
        own = {part: outcomes[file] for part, file in group.items() if file in outcomes and outcomes[file].passed}
        if len(own) < len(group):
            # A failure says enough.
            done |= {*group.values()}
        elif result := _check_together(own, checkpoint, console):
            results.append(result)
            done |= {*group.values()}
    for alone, missing in directories.alone(files, done):
        console.warn(
            f"{', '.join(alone)}: judged alone, not together with the rest of the model, because"
            f" {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    return results


@dataclass(frozen=True)
class _Source:
    """A file, and the table of `--names`."""

    file: PartFile
    explicit: Explicit


@dataclass(frozen=True)
class _Outcome:
    """The result of judging a file, and the values for running it together with others."""

    result: dict[str, Any]
    feature: str
    judgement: _Judgement

    @property
    def passed(self) -> bool:
        return self.result["status"] == "passed"


def _check_file(args: argparse.Namespace, own: _Source, checkpoint: Checkpoint, console: Console) -> _Outcome:
    """Judge one file and log the outcome."""
    from parity import opening
    from parity.judge import contract

    path, part = own.file.path, own.file.part
    file = contract.read(path)
    feature = opening.choose_feature(checkpoint, args.feature or _feature_of(file, own, checkpoint), console)
    target = _Target(own, file, feature, _config_of(own.file, file, checkpoint, feature))
    judgement = _judge(args, target, checkpoint, console)
    console.clear()
    _report(args, target, checkpoint, judgement, console)
    validation, other = judgement.validation, _other_checkpoint(file.metadata, checkpoint)
    about: dict[str, Any] = {"status": "passed" if validation.passed else "failed", "file": str(path)}
    about.update({"part": part} if part else {})
    about.update({} if own.file.branch is None else {"use_cache_branch": own.file.branch})
    cause = {"cause": other} if other and not validation.passed else {}
    result = {**about, "feature": feature, "opset": file.opset, **judgement.as_json(), **cause}
    outcome = _Outcome(result, feature, judgement)
    if not validation.passed:
        lines = "\n".join(filter(None, [other, validation.message()]))
        complain(f"error: {lines}")
        return outcome
    if other:
        console.warn(f"{other}; it computes the same")
    only = f", at {judgement.scope} only" if judgement.scope else ""
    console.say(f"All good: {own.file} computes what {f'the {part} of ' if part else ''}{checkpoint} computes{only}")
    return outcome


def _has_part(checkpoint: Checkpoint, feature: str, part: str) -> bool:
    from parity.onnx import parts

    return bool(part) and parts.has_part(checkpoint.onnx_config(checkpoint.feature(feature)), part)


def _feature_of(file: Contract, own: _Source, checkpoint: Checkpoint) -> str:
    """The feature of a file, from its metadata, its outputs or its part of the model.

    Raises:
        UsageError: these do not determine it.
    """
    from parity import sentences

    if checkpoint.modules and {value.name for value in file.outputs} == {*sentences.OUTPUTS}:
        return sentences.FEATURE
    if not own.file.part or file.metadata.get("feature"):
        return guess_feature(file, checkpoint.config, own.explicit.outputs)
    saved = [each for each in checkpoint.saved_features if _has_part(checkpoint, each, own.file.part)]
    if len(saved) != 1:
        raise UsageError(
            f"feature: {checkpoint} was saved for {', '.join(checkpoint.saved_features) or 'none'}; name the one that"
            f" has {own.file.path.name} with --feature"
        )
    return saved[0]


def _check_together(
    outcomes: Mapping[str, _Outcome], checkpoint: Checkpoint, console: Console
) -> dict[str, Any] | None:
    """Run files together and log the outcome; None if these parts do not run together."""
    from parity.onnx import proof, together

    feature = next(iter(outcomes.values())).feature
    config = checkpoint.onnx_config(feature)
    if not together.runs_together([*outcomes], config):
        return None
    artifacts = {part: outcome.judgement.artifact for part, outcome in outcomes.items()}
    runs = {part: proof.load_artifact(artifact) for part, artifact in artifacts.items()}
    drift = max(outcome.judgement.max_drift for outcome in outcomes.values())
    inputs = checkpoint.inputs(config)
    console.progress("running the files together")
    answer = together.judge_together(together.Together(runs, drift), checkpoint.load(feature, inputs), inputs)
    console.clear()
    failed = [finding for finding in answer.findings if not finding.passed]
    for finding in failed:
        complain(f"error: {finding.subject}: {finding.message}")
    if not failed:
        names = dict.fromkeys(artifact.path.name for artifact in artifacts.values())
        console.say(f"Together, {' and '.join(names)}: {answer.note}")
    failures = [{"check": each.check, "subject": each.subject, "message": each.line} for each in failed]
    return {
        "status": "failed" if failed else "passed",
        "together": [part or "model" for part in outcomes],
        "files": [str(each.path) for each in artifacts.values()],
        "compared": answer.note,
        "failures": failures,
    }


@dataclass(frozen=True)
class _Target:
    """A file to judge, its contract, and its configuration."""

    source: _Source
    contract: Contract
    feature: str
    onnx_config: OnnxConfig


@dataclass(frozen=True)
class _Judgement:
    """The judgement of a file.

    Args:
        adaptation: for a file of another exporter.
        verdict: for a file that does not compute in float32.
        expected_atol: of the configuration.
        artifact: the file as it was judged.
    """

    feature: str
    artifact: Artifact
    validation: Validation
    adaptation: Adaptation | None
    verdict: Verdict | None
    expected_atol: float

    @property
    def scope(self) -> str:
        return self.adaptation.scope if self.adaptation else ""

    @property
    def max_drift(self) -> float:
        """The largest drift that passes; 0 for a file in float32."""
        return self.verdict.max_drift if self.verdict else 0.0

    @property
    def rule(self) -> str:
        """The rule that decided."""
        return self.verdict.rule if self.verdict else self.validation.rule

    def as_json(self) -> dict[str, Any]:
        more = {"fixed": dict(self.adaptation.fixed)} if self.adaptation and self.scope else {}
        return {**self.validation.as_json(), **(self.verdict.as_json() if self.verdict else {}), **more}


def _config_of(own: PartFile, file: Contract, checkpoint: Checkpoint, feature: str) -> OnnxConfig:
    """The configuration of the file, if this release can judge it.

    Raises:
        UsageError
    """
    from parity.dtypes import exported_dtypes
    from parity.exporters import EXPORTERS
    from parity.judge.foreign import OWN
    from parity.onnx import parts

    for name, valid in {"exporter": tuple(EXPORTERS), "dtype": exported_dtypes()}.items():
        if OWN in file.metadata and name in file.metadata and file.metadata[name] not in valid:
            raise UsageError(
                f"file {own.path}: its {name} is {file.metadata[name]}, should be one of {', '.join(valid)}"
            )
    onnx_config, part = checkpoint.onnx_config(feature), file.metadata.get("part") or own.part
    if part == "prefill" and not onnx_config.dead_inputs:
        raise UsageError(
            f"file {own.path}: it fills cross-attention caches, which {checkpoint.model_type} {feature} does not have;"
            " name the -with-past feature of an encoder-decoder with --feature"
        )
    return parts.config_of_part(onnx_config, part) if part else onnx_config


def _judge(args: argparse.Namespace, target: _Target, checkpoint: Checkpoint, console: Console) -> _Judgement:
    from parity.dtypes import DEFAULT_DTYPE
    from parity.judge import ratio
    from parity.judge.branches import Branch
    from parity.judge.foreign import OWN
    from parity.onnx import foreign, parts, proof
    from parity.onnx.rounded import judge_rounded
    from parity.registry import architecture
    from parity.validation import Criteria

    file, feature, onnx_config, own = target.contract, target.feature, target.onnx_config, target.source.file
    dtype = dtype_of(file.metadata)
    inputs = checkpoint.inputs(onnx_config, dtype)
    checkpoint.report_inputs(inputs, console)
    named, declaration = file.metadata.get("attention"), architecture(checkpoint.model_type)
    has_sdpa = named == "sdpa" and declaration.has_sdpa(checkpoint.declared_feature(feature))
    attention = "sdpa" if has_sdpa else "eager"

    def load() -> PreTrainedModel:
        model = checkpoint.load(feature, inputs, attention=attention, dtype=dtype)
        return parts.wrap(model, checkpoint.onnx_config(feature), own.part) if own.part else model

    limit = ratio.LIMIT if args.max_ratio is None else args.max_ratio
    # In halves, a row that attends to nothing returns the rounding errors of its scores, which differ between runtimes.
    same_attention = attention == named and dtype == DEFAULT_DTYPE
    criteria = Criteria(args.atol, limit, same_attention=same_attention)
    with checkpoint.unchanged():
        # Tools that round our files keep their metadata.
        is_rounded = not file.precision.is_full and dtype == DEFAULT_DTYPE
        foreign_file = OWN not in file.metadata or is_rounded
        artifact, adaptation = proof.Artifact(own.path, file, foreign=foreign_file), None
        if foreign_file:
            branch = Branch(file, own.part, own.branch) if own.part in ("decoder", "step") else None
            explicit = parts.with_names(target.source.explicit, own.part)
            adaptation = foreign.adapt(branch.narrowed if branch else file, inputs, load(), explicit)
            foreign.require_model_names(target.source.explicit, adaptation.view)
            inputs = checkpoint.inputs(adaptation.onnx_config)
            view = adaptation.view
            artifact = proof.Artifact(own.path, view.renamed, foreign=True, view=view, branch=branch)
        fixed = adaptation.fixed if adaptation else {}
        relations = () if own.part not in ("", "prefill") else checkpoint.relations_of(feature)
        reference = proof.Reference(load, inputs, relations, fixed=fixed, thorough=args.thorough)
        verdict = None
        if not is_rounded:
            validation = proof.judge_file(artifact, reference, criteria=criteria, progress=console.progress)
        else:
            verdict = judge_rounded(
                artifact,
                reference,
                file.precision,
                criteria=criteria,
                max_drift=args.max_drift,
                progress=console.progress,
            )
            validation = verdict.validation
    return _Judgement(feature, artifact, validation, adaptation, verdict, onnx_config.atol_for_validation)


def dtype_of(metadata: Mapping[str, str]) -> str:
    """The dtype of a file of ours, by its metadata; float32 for other files, whose tensors show their types."""
    from parity.dtypes import DEFAULT_DTYPE
    from parity.judge.foreign import OWN

    return metadata.get("dtype", DEFAULT_DTYPE) if OWN in metadata else DEFAULT_DTYPE


def _report(
    args: argparse.Namespace, target: _Target, checkpoint: Checkpoint, judgement: _Judgement, console: Console
) -> None:
    """Log a judgement, without its last lines."""
    from parity.onnx.log import validation_lines

    file = target.contract
    unusual = [f"{name} {file.metadata[name]}" for name in ("exporter", "dtype") if name in file.metadata]
    note = checkpoint.cast_note(dtype_of(file.metadata), "compared")
    about = ", ".join([f"feature {judgement.feature}", f"opset {file.opset}", *unusual])
    console.say(f"Judging {target.source.file}: {about}{note}")
    console.say("Validating ONNX model...")
    for line in validation_lines(judgement.validation, atol=args.atol, expected_atol=judgement.expected_atol):
        console.say(line)
    for line in judgement.verdict.notes if judgement.verdict else ():
        console.say(f"        - {line}")
    console.say(f"Decided by: {judgement.rule}")


def _other_checkpoint(metadata: Mapping[str, str], checkpoint: Checkpoint) -> str:
    """A sentence if the file was made from another checkpoint; empty if it names this one or none."""
    named = metadata.get("checkpoint")
    if not named or named == checkpoint.fingerprint:
        return ""
    return (
        f"checkpoint: the file was exported from one whose hash is {named[:12]}…, {checkpoint} has"
        f" {checkpoint.fingerprint[:12]}…"
    )


def guess_feature(file: Contract, config: PretrainedConfig, names: Mapping[str, str] | None = None) -> str:
    """The feature of a file: by its metadata, else by its outputs and the class that the model was saved as.

    A file of another exporter may have more outputs than the feature, or generated names.

    Args:
        file: its contract.
        config: the model's configuration.
        names: the file's outputs → the model's, by the table of `--names`.

    Raises:
        UsageError: no feature of the architecture has the file's outputs, or several have them and nothing decides.
    """
    from parity import features
    from parity.checkpoint import features_of
    from parity.onnx import foreign

    if file.metadata.get("feature"):
        return file.metadata["feature"]
    by_model = foreign.model_outputs(file.outputs, names or {})
    outputs = sorted(by_model)
    declared = {feature: {*build(config).outputs} for feature, build in features_of(config.model_type).items()}
    fitting = [feature for feature, own in declared.items() if sorted(own) == outputs]
    saved = features.features_saved(config)
    if not fitting:
        past = any(role_of(name) is Role.CACHE for name in foreign.model_inputs(getattr(file, "inputs", ())))
        fitting = [
            feature
            for feature, own in declared.items()
            if (own & {*outputs} or not outputs) and feature.endswith("-with-past") is past
        ]
        if not outputs:
            fitting = [feature for feature in fitting if feature in saved]
    likely = [feature for feature in fitting if feature in saved]
    candidates = likely or fitting
    if len(candidates) != 1:
        shown = ", ".join(value.name for value in file.outputs)
        problem = f"fits {', '.join(candidates)}" if candidates else f"has the outputs {shown}, which fit none"
        raise UsageError(f"feature: the file {problem}; name it with --feature")
    return candidates[0]


if __name__ == "__main__":
    from parity.supervision import run_process

    run_process("python -m parity.check", main)
