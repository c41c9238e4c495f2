"""A file and a model → the proof that the file computes the same as the model, at every shape."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from parity import files, shapes, thorough, validation
from parity.axes import TEXTS, Axes
from parity.configs.lengths import BIG_CHECKPOINT, Lengths, lengths_to_try
from parity.dependence import weights_of
from parity.dtypes import bytes_of_parameters
from parity.errors import SessionError
from parity.judge import artifact, contract, weights
from parity.judge.branches import Branch
from parity.judge.findings import Finding, failures
from parity.judge.foreign import View, drop_fixed, soften
from parity.judge.pool import Answers, Pool
from parity.judge.relations import Run
from parity.judge.stored import StoredTensor, stored_tensors
from parity.onnx.foreign import DERIVED_INPUTS, at_fixed_sizes
from parity.reference import answers, float64
from parity.reruns import RerunClaims
from parity.samples import SampleSource
from parity.sessions import OnnxSession

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Artifact:
    """An ONNX file to judge.

    Args:
        path: the file.
        contract: of the file.
        opset: the requested opset; None takes any.
        foreign: whether another exporter may have written it: then names may be in any order, and position ids may be
            an input, which the file is given.
        view: the model's names for its own, if they differ; `contract` then has the model's.
        branch: the inputs and outputs of the part of the model that is judged.
    """

    path: Path
    contract: contract.Contract
    opset: int | None = None
    foreign: bool = False
    view: View | None = None
    branch: Branch | None = None

    @classmethod
    def read(cls, path: Path, *, opset: int | None = None, foreign: bool = False) -> Artifact:
        """Read the file at `path`.

        Args:
            path: the file.
            opset, foreign: see `Artifact`.

        Raises:
            ExportError: it is not a readable ONNX file.
        """
        return cls(path, contract.read(path), opset, foreign)

    @property
    def derived_inputs(self) -> dict[str, dict[int, str]]:
        """Inputs of the file that ours compute from other inputs, with their dynamic axes."""
        names = {value.name for value in self.contract.inputs} if self.foreign else ()
        return {name: axes for name, axes in DERIVED_INPUTS.items() if name in names}

    def judge(self, source: SampleSource) -> list[Finding]:
        """Findings on the file on disk, compared with the source of its inputs."""
        claim = contract.Claim.from_config(source.onnx_config, source.layout.flatten(source.dummy))
        claim = claim.with_inputs(self.derived_inputs, self.contract)
        findings = contract.judge_contract(self.contract, claim, opset=self.opset, ordered=not self.foreign)
        if not any(finding.check == "data" for finding in failures(findings)):
            findings.append(artifact.judge_checker(self.path))
        if self.view is None:
            return findings
        # The view reports names, one by one.
        own = [finding for finding in findings if finding.check != "names" or finding.passed]
        return [*self.view.failures(), *drop_fixed(soften(own)), *self.view.remarks()]

    def adapt(self, run: Run) -> Run:
        """A run of the file, under the model's names."""
        whole = self.branch.complete(run) if self.branch else run
        return self.view.adapt(whole) if self.view else whole

    @property
    def widened(self) -> Artifact:
        """The artifact with float32 in place of inputs in half precision."""
        view = self.view and replace(self.view, contract=_widen(self.view.contract))
        branch = self.branch and replace(self.branch, contract=_widen(self.branch.contract))
        return replace(self, view=view, branch=branch)

    def judge_weights(self, model: PreTrainedModel, source: SampleSource) -> list[Finding]:
        """Findings on the weights of the file, compared with those of an unchanged model; see `judge.weights`."""
        if any(finding.check == "data" for finding in failures(self.contract.flaws)):
            # Some are missing.
            return []
        needed = weights_of(model, source.onnx_config, source.dummy)
        return weights.judge_weights(weights.account_weights(needed, self.tensors()))

    def tensors(self) -> list[StoredTensor]:
        """The tensors that the file holds, or that the branch reads."""
        tensors = stored_tensors(self.path)
        return self.branch.choose_tensors(tensors, self.path) if self.branch else tensors


def _widen(whole: contract.Contract) -> contract.Contract:
    halves = ("float16", "bfloat16")
    inputs = [replace(value, dtype="float32") if value.dtype in halves else value for value in whole.inputs]
    return replace(whole, inputs=tuple(inputs))


@dataclass(frozen=True)
class Reference:
    """The model that a file is compared with.

    Args:
        load: a function without arguments; its models belong to the caller, which changes them.
        source: of the inputs.
        relations: the relations on record for the model; see `parity.judge.relations`.
        answers: `reference.answers`, or a function with the same results.
        thorough: whether to try every id and every position, also those of a big checkpoint.
        fixed: axis → size, for the axes that the file takes at one size only.
    """

    load: Callable[[], PreTrainedModel]
    source: SampleSource
    relations: Sequence[str] = ()
    answers: Callable[..., list[Answers]] = answers
    thorough: bool = False
    fixed: Mapping[str, int] = field(default_factory=dict)

    def lengths(self, model: PreTrainedModel) -> Lengths:
        """The lengths of the texts to try."""
        longest, big = self.source.onnx_config.longest_sequence(model), bytes_of_parameters(model) > BIG_CHECKPOINT
        return lengths_to_try(model.config, longest, big=big, thorough=self.thorough)

    def pool(
        self,
        derived: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
        inspect: Callable[[PreTrainedModel], None] | None = None,
    ) -> Pool:
        """Samples and the model's answers to them; the model is freed afterwards.

        Args:
            derived: see `validation.pool_of`.
            progress: called with one line for each stage.
            inspect: called with the model before it runs.
        """
        model, config = self.load(), self.source.onnx_config
        if inspect:
            inspect(model)
        longest = config.longest_sequence(model)
        choose = functools.partial(shapes.choose_samples, lengths=self.lengths(model))
        samples = at_fixed_sizes(choose, self.source, longest, self.fixed)
        references = self.answers(model, config, samples, consume=True, progress=progress)
        alive = weakref.ref(model)
        del model
        free(alive)
        return validation.pool_of(self.source, samples, references, derived, longest)

    def float64(self) -> AbstractContextManager[Run]:
        """A context with the model in float64 as a backend, loaded anew."""
        return float64(self.load(), self.source.onnx_config, self.source.layout)

    def claims(self, pool: Pool, derived: Axes) -> RerunClaims:
        """The claims on a file beyond its answers to a pool; see `validation.claims_of`."""
        return validation.claims_of(
            self.source,
            pool.samples,
            self.float64,
            # They need other sizes.
            relations=() if self.fixed else self.relations,
            longest=pool.longest,
            derived=derived,
        )


def judge_file(
    file: Artifact,
    reference: Reference,
    *,
    criteria: validation.Criteria | None = None,
    progress: Callable[[str], None] | None = None,
) -> validation.Validation:
    """Compare a file with a model, at every shape, against float64.

    The file is run from a directory that contains only the files that it names. The model is freed before ONNX Runtime
    loads the file: the two are never in memory together, unless a check fails that the model has to repeat.

    Args:
        file: the file.
        reference: the model.
        criteria: without claims, which are made here.
        progress: called with one line for each stage.
    """
    source = reference.source
    findings = file.judge(source)

    def account(model: PreTrainedModel) -> None:
        if progress:
            progress("looking for the weights in the file")
        findings.extend(file.judge_weights(model, source))
        findings.extend(untried_lengths(reference.lengths(model), source))

    pool = reference.pool(list(file.derived_inputs), progress, account)
    try:
        run = load_artifact(file)
    except SessionError as error:
        shapes = {name: array.shape for name, array in pool.answers[0].eager.items()}
        refusal = Finding("load", "session", False, str(error))
        return validation.Validation((), shapes, (*findings, refusal), source.axes)
    criteria = criteria or validation.Criteria()
    whole = replace(criteria, claims=reference.claims(pool, file.derived_inputs))
    verdict = validation.compare(run, source.onnx_config, pool, whole, first=findings, progress=progress)
    if reference.thorough and verdict.passed:
        verdict = _judge_vocabulary(verdict, run, reference, criteria, progress)
    return verdict


def _judge_vocabulary(
    verdict: validation.Validation,
    run: Run,
    reference: Reference,
    criteria: validation.Criteria,
    progress: Callable[[str], None] | None,
) -> validation.Validation:
    """The verdict, extended to every id of the vocabulary; each pool is freed before the next."""
    source, model = reference.source, reference.load()
    longest = source.onnx_config.longest_sequence(model)
    for samples in thorough.vocabulary_pools(source, longest):
        pool = validation.pool_of(source, samples, answers(model, source.onnx_config, samples))
        verdict = verdict.joined(validation.compare(run, source.onnx_config, pool, criteria, progress=progress))
        if not verdict.passed:
            break
    return verdict


def untried_lengths(lengths: Lengths, source: SampleSource) -> list[Finding]:
    """Remarks on the lengths at which the model changes its behaviour and that no text has."""
    if not any(name in TEXTS for name in source.axes):
        return []
    return [
        Finding("run", "lengths", True, f"{change.item} is {change.length:,}: {reason}, so no text shows longer ones")
        for change, reason in lengths.untried.items()
    ]


def load_isolated(path: Path, names: Iterable[str]) -> OnnxSession:
    """A session of the file at `path`, in a directory that contains only the file and the files with these names.

    Raises:
        SessionError: it does not load there.
    """
    with files.isolated_copy(path, names) as copy:
        try:
            return OnnxSession(copy)
        except SessionError as error:
            raise SessionError(str(error).replace(str(copy), f"{path} (alone with the files that it names)")) from error


def load_artifact(file: Artifact) -> Run:
    """A run of a file, isolated with the files that it names, under the model's names.

    Raises:
        SessionError: it does not load.
    """
    return file.adapt(load_isolated(file.path, file.contract.data).run)


def free(alive: weakref.ReferenceType[PreTrainedModel]) -> None:
    """Free a model that only reference cycles keep; a full collection takes a third of a second, so only if needed."""
    if alive() is not None:
        gc.collect()
