"""A session and the reference's answers → findings at many shapes; one implementation for every caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.axes import Axes
from parity.causes import cause_of
from parity.dtypes import array_of, is_floating
from parity.errors import SessionError
from parity.extent import Extent
from parity.judge import decisions, ratio, relations, undefined, vacuity, values
from parity.judge.findings import Finding, error_of, failures, remarks
from parity.judge.pool import Answers, Arrays, Pool
from parity.judge.relations import Run
from parity.judge.spool import Spool
from parity.reruns import RerunClaims, padded_signature
from parity.samples import Sample, SampleSource
from parity.shapes import similar_sample
from parity.traceable import Layout

if TYPE_CHECKING:
    from parity.configs import OnnxConfig


@dataclass(frozen=True)
class Validation:
    """The result of comparing one file with its reference.

    Args:
        samples: the inputs of the comparison, the export's own shape first.
        shapes: output shapes of the first sample, by name.
        findings: all of them.
        traced: the size of every named axis at the export.
        values: the number of output values that were compared, also those that only have to be finite.
        masked: the number of values that only have to be finite: see `parity.judge.undefined`.
        outputs: the named axes of the outputs.
        limit, atol: the largest error ratio that passes, and the hard limit on differences, if there is one.
    """

    samples: Sequence[Sample]
    shapes: Mapping[str, tuple[int, ...]]
    findings: Sequence[Finding]
    traced: Mapping[str, int] = field(default_factory=dict)
    values: int = 0
    masked: int = 0
    outputs: Axes = field(default_factory=dict)
    limit: float = ratio.LIMIT
    atol: float | None = None

    @property
    def failures(self) -> list[Finding]:
        return failures(self.findings)

    @property
    def remarks(self) -> list[Finding]:
        return remarks(self.findings)

    @property
    def passed(self) -> bool:
        return not self.failures

    def worst(self, output: str | None = None, sizes: str | None = None) -> float | None:
        """The largest absolute difference from float32 PyTorch, over all outputs and shapes or the given ones.

        None if nothing was compared.
        """
        return max(
            (
                each.measurements["worst"]
                for each in self.findings
                if each.check == "values" and output in (None, each.subject) and sizes in (None, each.where)
            ),
            default=None,
        )

    @property
    def compared(self) -> list[Sample]:
        """The samples at which values were compared."""
        places = {each.where for each in self.findings if each.check == "values"}
        return [sample for sample in self.samples if str(sample) in places]

    @property
    def rule(self) -> str:
        """The rule that decides on values, as text."""
        decided = f"error ratio at most {self.limit:g}" if self.ratios() else ""
        hard = f"no difference above {self.atol:g}" if self.atol is not None else ""
        return " and ".join(filter(None, [decided, hard])) or "none: no values were compared with it"

    def ratios(self) -> dict[str, float]:
        """The pooled error ratio of each floating output, the largest if there are several pools."""
        largest: dict[str, float] = {}
        for each in self.findings:
            if each.check == "ratio":
                largest[each.subject] = max(each.measurements["ratio"], largest.get(each.subject, 0.0))
        return largest

    @property
    def weights(self) -> dict[str, Any]:
        """The numbers of found and needed weights, and the names of absent weights and unexplained tensors.

        Empty if weights were not compared; see `parity.judge.weights`.
        """
        files = [each for each in self.findings if each.check == "weights" and each.subject == "file"]
        told = ("found", "needed", "absent", "unexplained")
        return {name: files[0].measurements[name] for name in told} if files else {}

    @property
    def extent(self) -> Extent:
        """The range of the samples at which values were compared."""
        return Extent.of_samples(self.compared)

    def joined(self, other: Validation) -> Validation:
        """The validation on the samples of both."""
        samples, findings = (*self.samples, *other.samples), (*self.findings, *other.findings)
        values, masked = self.values + other.values, self.masked + other.masked
        return replace(self, samples=samples, findings=findings, values=values, masked=masked)

    def raise_on_failure(self) -> None:
        """Raise the first failure's error class, with every failure in its message.

        Raises:
            SessionError, NameMismatch, DtypeMismatch, ShapeMismatch, ValueMismatch
        """
        if failed := self.failures:
            raise error_of(failed, self.message())

    @property
    def cause(self) -> str:
        """The one cause that explains the failures, see `causes`; empty if there is no single cause."""
        return cause_of(self.findings, self.samples, self.traced, self.outputs)

    def message(self) -> str:
        """The cause, if there is one, then every other failure as one line; empty if all passed."""
        cause = self.cause
        return "\n".join(filter(None, [cause, *(each.line for each in self.failures if each.line != cause)]))

    def as_json(self) -> dict[str, Any]:
        """Shapes, differences, ratios and failures."""
        return {
            "validated_at": [{"sizes": dict(s.sizes), "padding": s.padding} for s in self.compared],
            "outputs": {name: {"shape": list(shape), **self._measured(name)} for name, shape in self.shapes.items()},
            **({"tried": extent} if (extent := self.extent.as_json()) else {}),
            **({"values": self.values, "judged": self.values - self.masked} if self.values else {}),
            **({"masked": self.masked} if self.values else {}),
            **({"rule": self.rule} if self.values else {}),
            **({"cause": self.cause} if self.cause else {}),
            **({"weights": self.weights} if self.weights else {}),
            "remarks": [each.line for each in self.remarks],
            "failures": [
                {"check": each.check, "subject": each.subject, "message": each.line} for each in self.failures
            ],
        }

    def _measured(self, output: str) -> dict[str, float]:
        """The measurements of an output that were made."""
        measured = {"worst": self.worst(output), "ratio": self.ratios().get(output)}
        return {name: value for name, value in measured.items() if value is not None}


def claims_of(
    source: SampleSource,
    samples: Sequence[Sample],
    exactly: Callable[[], AbstractContextManager[Run]],
    *,
    relations: Sequence[str] = (),
    longest: int | None = None,
    derived: Axes | None = None,
) -> RerunClaims:
    """The claims on a file beyond its answers to the samples of `choose_samples`.

    Args:
        source: of the samples.
        samples: from `choose_samples`.
        exactly: a function without arguments that returns a context with the float64 model as a backend.
        relations: the relations on record.
        longest: the longest sequence that the model takes, in tokens.
        derived: inputs of the file that the configuration does not declare, with their axes.
    """
    config = source.onnx_config
    places = (index for index, sample in enumerate(samples) if index and not sample.padding and sample.tokens != 1)
    # A model of one token has no such sample.
    place = next(places, None)

    def others() -> list[dict[str, np.ndarray]]:
        if place is None:
            return []
        similar = [similar_sample(source, samples[place], longest, seed) for seed in (1001, 1002)]
        return [backend_inputs(config, sample, list(derived or ())) for sample in similar]

    return RerunClaims(
        padded_signature(config, source.preprocessor, derived),
        exactly,
        relations=relations,
        dead=tuple(config.dead_inputs),
        place=place,
        others=others,
        longest=longest,
        allowed=source.axis_sizes,
    )


@dataclass(frozen=True)
class Criteria:
    """The criteria for a correct file.

    Args:
        atol: a hard limit on the absolute difference; None leaves values to the error ratio.
        limit: the largest error ratio that passes.
        same_attention: whether the file has the attention implementation of the reference; if not, or if unknown,
            positions that attend to nothing only have to be finite.
        claims: the claims on the file beyond single answers; judged only if the error ratio is.
    """

    atol: float | None = None
    limit: float = ratio.LIMIT
    same_attention: bool = True
    claims: RerunClaims | None = None


def pool_of(
    source: SampleSource,
    samples: Sequence[Sample],
    answers: Sequence[Answers],
    derived: Sequence[str] = (),
    longest: int | None = None,
) -> Pool:
    """A pool of samples and the reference's answers to them.

    Args:
        source: of the samples.
        samples: the inputs.
        answers: the reference's answers, in the order of the samples.
        derived: inputs of the file that `complete_inputs` computes from the others.
        longest: the longest sequence that the model takes, in tokens.
    """
    inputs = [backend_inputs(source.onnx_config, sample, derived) for sample in samples]
    return Pool(tuple(samples), tuple(answers), inputs, traced=source.axes, longest=longest)


def compare(
    run: Run,
    onnx_config: OnnxConfig,
    pool: Pool,
    criteria: Criteria | None = None,
    *,
    first: Sequence[Finding] = (),
    progress: Callable[[str], None] | None = None,
) -> Validation:
    """Run the backend on every sample and judge its answers; the first failure is the reason.

    The order: the earlier findings, two equal runs of the first sample, names, dtypes, shapes and the pattern of NaN
    and inf, then over the complete pool the error ratio and the decisions; if all of that holds, the claims beyond
    single answers. Nothing is run if the reference itself overflows.

    Args:
        run: named arrays → named arrays, as `OnnxSession.run`.
        onnx_config: names inputs, outputs and their axes.
        pool: inputs and the reference's answers; the error ratio is judged if it holds the float64 answers.
        criteria: None takes the defaults.
        first: earlier findings.
        progress: called with one line for each run.
    """
    criteria = criteria or Criteria()
    tell = progress or (lambda line: None)
    findings: list[Finding] = list(first)
    judgements: list[_Answer] = []
    spool = Spool()
    overflows = _judge_overflow(onnx_config, pool, criteria)
    findings.extend(overflows)
    for index, sample in enumerate(() if overflows else pool.samples):
        tell(f"ONNX Runtime at {sample}")
        try:
            answer = _answer(run, onnx_config, pool, index, criteria, spool)
        except SessionError as error:
            findings.append(Finding("run", "session", False, str(error), str(sample)))
            continue
        judgements.append(answer)
        findings.extend(answer.findings)
    if len(judgements) == len(pool) and all(answer.sound for answer in judgements) and pool.has_exact:
        defined = replace(pool, answers=[a.reference for a in judgements], actual=[a.defined for a in judgements])
        findings.extend(_judge_pool(defined, criteria, failures(findings)))
        if criteria.claims is not None and not failures(findings):
            tell("relations and effects")
            # Undefined values are left out of the unit.
            scale = criteria.limit / ratio.LIMIT
            unit = {name: scale * noise for name, noise in defined.noise.items()}
            whole = replace(pool, actual=[answer.actual for answer in judgements], unit=unit)
            findings.extend(criteria.claims.judge(run, whole))
            findings.extend(vacuity.judge_outputs(pool.answers))
    shapes = {name: array.shape for name, array in pool.answers[0].eager.items()}
    return Validation(
        pool.samples,
        shapes,
        tuple(findings),
        dict(pool.traced),
        values=sum(answer.values for answer in judgements),
        masked=sum(answer.masked for answer in judgements),
        outputs=onnx_config.outputs,
        limit=criteria.limit,
        atol=criteria.atol,
    )


@dataclass(frozen=True)
class _Answer:
    """The backend's answer to one input, and the findings on that answer alone.

    Args:
        actual: as returned.
        defined, reference: the backend's answer and the reference's, without undefined values.
        sound: whether names, dtypes, shapes and the pattern of NaN and inf are right.
        values, masked: the number of values, and the number of undefined values.
    """

    actual: Arrays
    defined: Arrays
    reference: Answers
    findings: Sequence[Finding]
    sound: bool
    values: int
    masked: int


def _answer(run: Run, onnx_config: OnnxConfig, pool: Pool, index: int, criteria: Criteria, spool: Spool) -> _Answer:
    """Run one input and judge the answer; raises SessionError if the backend refuses it."""
    inputs, answer, sizes = pool.inputs[index], pool.answers[index], pool.sizes[index]
    actual = spool.keep(run(inputs))
    repeated = relations.judge_determinism(actual, run(inputs), sizes) if index == 0 else []
    places = _undefined_places(onnx_config, pool, index, criteria)
    reference, defined = _defined_answers(answer, places), undefined.blank_undefined(actual, places, answer.eager)
    findings = undefined.judge_undefined(actual, places, sizes)
    findings += values.judge_values(reference.eager, defined, atol=criteria.atol, sizes=sizes)
    return _Answer(
        actual,
        defined,
        reference,
        [*repeated, *findings],
        all(each.check == "values" for each in failures(findings)),
        sum(np.size(array) for array in answer.eager.values()),
        sum(int(place.sum()) for place in places.values()),
    )


def _undefined_places(onnx_config: OnnxConfig, pool: Pool, index: int, criteria: Criteria) -> dict[str, np.ndarray]:
    if criteria.same_attention:
        return {}
    axes = onnx_config.outputs, onnx_config.pooled_tokens
    return undefined.places(pool.inputs[index], onnx_config.inputs, pool.answers[index].eager, *axes)


def _judge_overflow(onnx_config: OnnxConfig, pool: Pool, criteria: Criteria) -> list[Finding]:
    halves = any(is_floating(array.dtype) and array.dtype.itemsize == 2 for array in pool.answers[0].eager.values())
    if not (halves and pool.has_exact):
        return []
    return values.judge_overflow(
        [
            _defined_answers(answer, _undefined_places(onnx_config, pool, index, criteria))
            for index, answer in enumerate(pool.answers)
        ]
    )


def _judge_pool(pool: Pool, criteria: Criteria, failed: Sequence[Finding]) -> list[Finding]:
    """Findings on the complete pool: the error ratio, then the decisions."""
    located = any(finding.check == "values" for finding in failed)
    return [
        *ratio.judge_ratio(pool, limit=criteria.limit, locate=not located),
        *decisions.judge_decisions(pool, limit=criteria.limit),
    ]


def _defined_answers(answer: Answers, places: Mapping[str, np.ndarray]) -> Answers:
    """The reference's answers without undefined values."""
    if not places:
        return answer
    sides = {side: getattr(answer, side) for side in ("eager", "exact", "jittered")}
    return replace(
        answer,
        **{side: arrays and undefined.blank_undefined(arrays, places, answer.eager) for side, arrays in sides.items()},
    )


def backend_inputs(onnx_config: OnnxConfig, sample: Sample, derived: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The sample in the backend's form: through `generate_dummy_inputs_onnxruntime`, flat, as numpy arrays.

    Args:
        onnx_config: names the inputs.
        sample: the sample.
        derived: inputs of the file that `complete_inputs` computes from the others.
    """
    nested = onnx_config.generate_dummy_inputs_onnxruntime(sample.inputs)
    flat = Layout.from_inputs(onnx_config, nested).flatten(nested)
    if derived:
        complete = onnx_config.complete_inputs(sample.inputs, derived)
        flat.update({name: complete[name] for name in derived if name in complete})
    return {name: array_of(tensor) for name, tensor in flat.items()}
