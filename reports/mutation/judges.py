"""The judges of seeded faults: the commands, the tests of the matrix, and one shape with a tolerance."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.onnx.proof import Artifact, Reference, judge_file
from parity.reports.mutation.cases import Case

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from parity.architectures.conformance.matrix import Cell
    from parity.configs import OnnxConfig
    from parity.fixtures.subjects import TinyModel
    from parity.judge.findings import Finding
    from parity.judge.pool import Pool
    from parity.judge.weights import Weight
    from parity.samples import SampleSource

# Tests of the exporter, not of a file: a mutant never has the bytes that the exporter writes.
_NOT_OF_A_FILE = {"exported_alone", "reference_unchanged"}
# Cheap tests come first, expensive ones last, because the first failure ends the judgement.
_ORDER = ("contract", "checker", "weights", "traced_sizes", "other_sizes", "loads_alone")
_LAST = ("steps_reorder_and_crop", "boundaries", "drawn_sizes")
ATOL = 1e-5


@dataclass(frozen=True)
class Outcome:
    """The verdict of a judge on a file.

    Args:
        reason: the check or test that fails; empty for a file that passes.
        comparisons: the number of compared outputs times the number of inputs.
    """

    reason: str = ""
    comparisons: int = 0

    @property
    def rejects(self) -> bool:
        return bool(self.reason)


@dataclass(frozen=True)
class _PooledReference(Reference):
    """A reference that computes its pool only once."""

    pools: dict[str, Pool] = field(default_factory=dict)

    def pool(
        self,
        derived: Any = (),
        progress: Callable[[str], None] | None = None,
        inspect: Callable[[PreTrainedModel], None] | None = None,
    ) -> Pool:
        if not self.pools:
            self.pools[""] = super().pool(derived, progress)
        if inspect:
            inspect(self.load())
        return self.pools[""]


@dataclass(frozen=True)
class _Artifact(Artifact):
    """A file, with the weights that its model needs."""

    needed: tuple[Weight, ...] = ()

    def judge_weights(self, model: PreTrainedModel, source: SampleSource) -> list[Finding]:
        from parity.judge import weights
        from parity.judge.findings import failures
        from parity.judge.stored import stored_tensors

        if any(finding.check == "data" for finding in failures(self.contract.flaws)):
            return []
        return weights.judge_weights(weights.account_weights(self.needed, stored_tensors(self.path)))


class Command:
    """The verdict of `parity check` on a file of Parity; the reference's answers are computed once.

    For faults of the contract, it is the verdict of the export command, which knows the opset that was asked for;
    `parity check` accepts a file of any opset.
    """

    def __init__(self, reference: Reference, opset: int) -> None:
        self._reference = _PooledReference(
            reference.load, reference.source, reference.relations, reference.answers, pools={}
        )
        self._needed: tuple[Weight, ...] | None = None
        self._opset = opset

    def judge(self, path: Path, *, as_exported: bool = False) -> Outcome:
        """The first check that fails.

        Args:
            as_exported: whether to require the opset of the export.
        """
        from parity.dependence import weights_of
        from parity.errors import ParityError

        source = self._reference.source
        if self._needed is None:
            self._needed = tuple(weights_of(self._reference.load(), source.onnx_config, source.dummy))
        try:
            own = Artifact.read(path, opset=self._opset if as_exported else None)
        except ParityError as error:
            return Outcome(type(error).__name__)
        file = _Artifact(own.path, own.contract, own.opset, own.foreign, own.view, needed=self._needed)
        verdict = judge_file(file, self._reference)
        failed = verdict.failures
        compared = len(verdict.samples) * len(verdict.shapes)
        return Outcome(failed[0].check if failed else "", compared)


class OneShape:
    """The usual validation of exporters: at the shape of the export, each output within 1e-5 of float32 PyTorch."""

    def __init__(self, reference: Reference) -> None:
        from parity.reference import answers
        from parity.validation import backend_inputs

        source, config = reference.source, reference.source.onnx_config
        sample = source.generate()
        (answer,) = answers(reference.load(), config, [sample], exact=False)
        self._inputs, self._expected = backend_inputs(config, sample), answer.eager

    def judge(self, path: Path) -> Outcome:
        """The reason is `shape`, `values`, or the name of an exception."""
        from parity.reports.mutation.visibility import session_of

        try:
            session = session_of(path.read_bytes())
            names = [value.name for value in session.get_outputs()]
            answers = dict(zip(names, session.run(None, dict(self._inputs)), strict=True))
        except Exception as error:  # onnxruntime raises what it likes
            return Outcome(type(error).__name__)
        for name, expected in self._expected.items():
            actual = answers.get(name)
            if actual is None or actual.shape != expected.shape:
                return Outcome("shape")
            if not np.allclose(expected, actual, atol=ATOL):
                return Outcome("values")
        return Outcome(comparisons=len(self._expected))


class Suite:
    """The tests of the matrix that take the file of a cell, called with the fixtures that pytest would give them."""

    def __init__(self, cell: Cell, subject: TinyModel, directory: Path) -> None:
        from parity.fixtures import profiles

        profiles.load()
        self._cell, self._subject, self._directory = cell, subject, directory
        self.tests = dict(_tests_of(cell))

    def judge(self, path: Path) -> Outcome:
        """The first test that fails."""
        import pytest

        from parity.sessions import OnnxSession

        compared: list[int] = []

        def measure(**values: Any) -> None:
            compared.append(len(values.get("validated_at", ())) * len(values.get("outputs", ())))

        fixtures: dict[str, Callable[[], Any]] = {
            "cell": lambda: self._cell,
            "subject": lambda: self._subject,
            "artifact": lambda: path,
            "session": functools.cache(lambda: OnnxSession(path)),
            "measurements": lambda: measure,
            "reproductions": lambda: lambda number, example, message: path,
            "tmp_path": lambda: self._directory,
        }
        for name, test in self.tests.items():
            try:
                test(**{each: fixtures[each]() for each in inspect.signature(test).parameters})
            except pytest.skip.Exception:
                continue
            except (Exception, pytest.fail.Exception):
                return Outcome(name, sum(compared))
        return Outcome(comparisons=sum(compared))


def _tests_of(cell: Cell) -> Iterator[tuple[str, Callable[..., None]]]:
    """Name → test function, in the order in which they are called."""
    from parity.architectures import conformance
    from parity.fixtures.plugin import marks
    from parity.fixtures.selection import Selection

    tests: dict[str, Callable[..., None]] = {}
    for module in pkgutil.iter_modules(conformance.__path__):
        if not module.name.startswith("test_"):
            continue
        functions = vars(importlib.import_module(f"{conformance.__name__}.{module.name}"))
        for own, function in functions.items():
            name = own.removeprefix("test_")
            if not own.startswith("test_") or name in _NOT_OF_A_FILE:
                continue
            parameters = {*inspect.signature(function).parameters}
            if not parameters & {"artifact", "session"}:
                continue
            (keywords,) = [each.kwargs for each in getattr(function, "pytestmark", ()) if each.name == "cells"] or [{}]
            expected = {each.name for each in marks(cell, name)} & {"xfail", "skip"}
            if Selection(**keywords).has(cell) and not expected:
                tests[name] = function
    places = {name: place for place, name in enumerate(_ORDER)} | {name: 100 + n for n, name in enumerate(_LAST)}
    yield from sorted(tests.items(), key=lambda item: places.get(item[0], 50))


@dataclass
class Bench:
    """The judges of one file; `judge` calls all of them.

    Args:
        case: the file.
        reference: for the command and for one shape.
        bounds: name of an integer input → its largest valid value plus one.
        torch_model: the model, if its arguments have the names of the file's inputs; None otherwise.
        suite: None for MiniLM, which is not in the suite.
    """

    case: Case
    reference: Reference
    bounds: Mapping[str, int]
    torch_model: Any
    suite: Suite | None

    @functools.cached_property
    def command(self) -> Command:
        return Command(self.reference, self.case.opset)

    @functools.cached_property
    def one_shape(self) -> OneShape:
        return OneShape(self.reference)

    def judge(self, path: Path, *, contract: bool) -> dict[str, str]:
        """Judge → the reason why it rejects a file; empty if it passes the file.

        Args:
            path: of the file.
            contract: whether the fault is one of the contract.
        """
        reasons = {
            "one_shape": self.one_shape.judge(path).reason,
            "command": self.command.judge(path, as_exported=contract).reason,
        }
        return {**reasons, **({"suite": self.suite.judge(path).reason} if self.suite else {})}


def prepare(case: Case, path: Path) -> Bench:
    """The judges of a case; the right file is written to `path` unless it exists."""
    if not case.is_tiny:
        return _prepare_minilm(case, path)
    from parity.architectures.conformance.matrix import cells
    from parity.fixtures import subjects
    from parity.registry import architecture

    subject = subjects.subject(case.architecture, case.feature)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        subjects.artifact(subject, case.opset, path, case.attention)
    reference = Reference(
        functools.partial(subject.fresh_model, case.attention),
        subject.source,
        architecture(case.architecture).relations_of(case.feature),
    )
    (cell,) = [
        each
        for each in cells()
        if (each.architecture, each.feature, each.opset, each.attention)
        == (case.architecture, case.feature, case.opset, case.attention)
        and each.format == "onnx"
        and not each.variant
    ]
    model = subject.fresh_model(case.attention)
    suite = Suite(cell, subject, path.parent)
    bounds, direct = bounds_of(model.config, subject.onnx_config), _direct(model, subject.onnx_config)
    return Bench(case, reference, bounds, direct, suite)


def _prepare_minilm(case: Case, path: Path) -> Bench:
    from parity.checkpoint import Checkpoint
    from parity.fixtures import minilm
    from parity.onnx import export

    checkpoint = Checkpoint(str(minilm.directory()))
    config = checkpoint.onnx_config(case.feature)
    source = checkpoint.inputs(config)
    reference = Reference(lambda: checkpoint.load(case.feature, source), source, checkpoint.relations_of(case.feature))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        export(checkpoint.preprocessor, reference.load(), config, case.opset, path)
    model = reference.load()
    return Bench(case, reference, bounds_of(model.config, config), _direct(model, config), None)


def _direct(model: PreTrainedModel, onnx_config: OnnxConfig) -> Any:
    """The model, if its arguments have the names of the file's inputs; None otherwise."""
    return None if any("." in name for name in onnx_config.inputs) else model


def bounds_of(config: Any, onnx_config: OnnxConfig) -> dict[str, int]:
    """Integer input → its largest valid value plus one, from the configuration or its `text_config`."""

    def item(name: str, default: int) -> int:
        places = (config, getattr(config, "text_config", None))
        return int(next((getattr(each, name) for each in places if getattr(each, name, None)), default))

    known = {
        "input_ids": item("vocab_size", 2),
        "decoder_input_ids": item("vocab_size", 2),
        "token_type_ids": item("type_vocab_size", 2),
        "bbox": item("max_2d_position_embeddings", 2),
    }
    return {name: bound for name, bound in known.items() if name in onnx_config.inputs}
