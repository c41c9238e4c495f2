"""One export from a checkpoint: load, export, load again, compare; the work behind the commands."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity import files, validation
from parity.checkpoint import Checkpoint
from parity.console import Console
from parity.environment import describe
from parity.errors import SessionError, UsageError
from parity.files import append_metadata
from parity.judge import artifact, contract
from parity.judge.findings import Finding, failures
from parity.onnx.convert import export
from parity.onnx.log import validation_lines
from parity.opsets import MINIMUM_OPSET, check_opset
from parity.reference import answers, float64
from parity.registry import architecture
from parity.samples import Source
from parity.sessions import OnnxSession
from parity.traceable import attention_of

# Inputs of other exporters' files that ours compute from the rest, with their dynamic axes.
DERIVED_INPUTS = {"position_ids": {0: "batch", 1: "sequence"}}


class Job:
    """A checkpoint and what it is to be exported as.

    Raises:
        UsageError: a feature that the model does not have, an opset that it cannot be exported at.
        CheckpointError: the checkpoint cannot be loaded, or lacks weights that the feature's outputs depend on.
    """

    def __init__(self, checkpoint: Checkpoint, feature: str, opset: int | None, console: Console):
        self.checkpoint, self.feature, self._console = checkpoint, feature, console
        self.onnx_config = checkpoint.onnx_config(feature)
        self.opset = self._checked_opset(opset)
        self._inputs = checkpoint.inputs(self.onnx_config)
        self.attention = "eager"

    def _checked_opset(self, opset):
        model_type = self.checkpoint.model_type
        floor = architecture(model_type).floor_of(self.feature)
        minimum = floor.opset if floor else MINIMUM_OPSET
        subject = f"{model_type} {self.feature}" if floor and floor.features else model_type
        if opset is None:
            return max(self.onnx_config.default_onnx_opset, minimum)
        check_opset(opset, minimum, subject, floor.reason if floor else "")
        return opset

    def prefill(self) -> Job:
        """The job of the second file, which makes the cross-attention caches.

        Raises:
            UsageError: the feature has none.
        """
        if not self.onnx_config.dead_inputs:
            raise UsageError(
                f"--prefill: {self.checkpoint.model_type} {self.feature} has no cross-attention caches to fill;"
                " it goes with the -with-past features of encoder-decoders"
            )
        second = copy.copy(self)
        second.onnx_config = self.onnx_config.prefill()
        second._inputs = self.checkpoint.inputs(second.onnx_config)
        return second

    def export(self, path: Path) -> None:
        """Write the file to `path`."""
        self._console.progress(f"loading {self.checkpoint}")
        model = self._load()
        self.attention = attention_of(model)
        self._console.progress(f"exporting to opset {self.opset}")
        export(self.checkpoint.preprocessor, model, self.onnx_config, self.opset, path)
        alive = weakref.ref(model)
        del model
        _collect_if(alive)
        self._console.progress("hashing the checkpoint")
        append_metadata(path, {"checkpoint": self.checkpoint.fingerprint})

    def _load(self):
        return self.checkpoint.load(self.feature, self._inputs)

    def validate(self, path: Path, *, atol: float | None) -> validation.Validation:
        """Compare the file with a model that is loaded anew, which the exporter has never seen."""
        return prove(
            Artifact.read(path, opset=self.opset),
            Reference(self._load, self._inputs, relations_of(self.checkpoint.model_type, self.feature)),
            atol=atol,
            progress=self._console.progress,
        )

    @property
    def _subject(self):
        return f"feature {self.feature}" + (f" ({self.onnx_config.part})" if self.onnx_config.part else "")

    def lines(self, found: validation.Validation, atol: float | None) -> list[str]:
        """The log of the validation."""
        return [
            f"Exported {self.checkpoint}: {self._subject}, opset {self.opset}, attention {self.attention}",
            "Validating ONNX model...",
            *validation_lines(found, atol=atol, expected_atol=self.onnx_config.atol_for_validation),
        ]

    def summary(self, found: validation.Validation, atol: float | None) -> dict:
        """The job and its validation as one JSON object."""
        return {
            "status": "passed" if found.passed else "failed",
            "checkpoint": self.checkpoint.source,
            "fingerprint": self.checkpoint.fingerprint,
            "architecture": self.checkpoint.model_type,
            "feature": self.feature,
            "opset": self.opset,
            "attention": self.attention,
            "atol": atol,
            **found.as_json(),
            "environment": describe(),
        }


def relations_of(model_type: str, feature: str) -> list[str]:
    """The relations on record for an architecture and feature."""
    return architecture(model_type).relations_of(feature)


@dataclass(frozen=True)
class Artifact:
    """An ONNX file that is to be judged.

    Args:
        opset: the opset that was asked for; None takes any.
        foreign: whether another exporter may have written it: then names may stand in any order, and position ids may
            be an input, which is given to the file.
    """

    path: Path
    contract: contract.Contract
    opset: int | None = None
    foreign: bool = False

    @classmethod
    def read(cls, path: Path, *, opset: int | None = None, foreign: bool = False) -> Artifact:
        """The file at `path`.

        Raises:
            ExportError: it is no readable ONNX file.
        """
        return cls(path, contract.read(path), opset, foreign)

    @property
    def derived(self) -> dict[str, dict[int, str]]:
        """Inputs of the file that ours compute from the others, with their dynamic axes."""
        names = {value.name for value in self.contract.inputs} if self.foreign else ()
        return {name: axes for name, axes in DERIVED_INPUTS.items() if name in names}

    def judge(self, source: Source) -> list[Finding]:
        """Findings on the file as it lies on the disk, against what makes its inputs."""
        claim = contract.Claim.of(source.onnx_config, source.layout.flatten(source.dummy))
        claim = claim.with_inputs(self.derived, self.contract)
        findings = contract.judge_contract(self.contract, claim, opset=self.opset, ordered=not self.foreign)
        if not any(finding.check == "data" for finding in failures(findings)):
            findings.append(artifact.judge_checker(self.path))
        return findings


@dataclass(frozen=True)
class Reference:
    """The model that a file is compared with.

    Args:
        load: a function without arguments; its models belong to the caller and are changed.
        source: makes the inputs.
        relations: those on record for the model; see `parity.judge.relations`.
        answers: `reference.answers`, or what gives the same.
    """

    load: Callable[[], Any]
    source: Source
    relations: Sequence[str] = ()
    answers: Callable[..., list] = answers

    def pool(self, progress=None) -> tuple[Sequence, list, int | None]:
        """Samples, the model's answers to them, and the longest sequence that it takes; the model is freed."""
        model, config = self.load(), self.source.onnx_config
        longest = config.longest_sequence(model)
        samples = validation.choose_samples(self.source, longest=longest)
        answered = self.answers(model, config, samples, consume=True, progress=progress)
        alive = weakref.ref(model)
        del model
        _collect_if(alive)
        return samples, answered, longest

    def float64(self):
        """The model in float64 as a backend, loaded anew: a context."""
        return float64(self.load(), self.source.onnx_config, self.source.layout)


def prove(
    file: Artifact, reference: Reference, *, atol: float | None = None, alike: bool = True, progress=None
) -> validation.Validation:
    """Compare a file with a model, at every shape, against float64.

    The file is run from a directory that holds nothing but the files that it names. The model is freed before ONNX
    Runtime loads it: the two are never in memory together, unless the file fails what the model must be asked about.

    Args:
        atol, alike: see `validation.Criteria`.
    """
    source = reference.source
    findings = file.judge(source)
    samples, answered, longest = reference.pool(progress)
    try:
        session = alone(file.path, file.contract.data)
    except SessionError as error:
        shapes = {name: array.shape for name, array in answered[0].eager.items()}
        refused = Finding("load", "session", False, str(error))
        return validation.Validation((), shapes, (*findings, refused), source.axes)
    claims = validation.claims_of(
        source,
        samples,
        reference.float64,
        relations=reference.relations,
        longest=longest,
        derived=file.derived,
    )
    return validation.compare(
        session.run,
        source.onnx_config,
        validation.pool_of(source, samples, answered, list(file.derived)),
        validation.Criteria(atol, alike=alike, claims=claims),
        first=findings,
        progress=progress,
    )


def alone(path: Path, names) -> OnnxSession:
    """A session of the file at `path` in a directory that holds nothing else but the files of these names.

    Raises:
        SessionError: it does not load there.
    """
    with files.alone(path, names) as copy:
        try:
            return OnnxSession(copy)
        except SessionError as error:
            raise SessionError(str(error).replace(str(copy), f"{path} (alone with the files that it names)")) from error


def _collect_if(alive):
    """Free a model that only reference cycles keep; a full collection takes a third of a second, so not for nothing."""
    if alive() is not None:
        gc.collect()
