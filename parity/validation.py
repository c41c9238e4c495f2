"""A session and the reference's answers → verdict rows over many shapes; one implementation for every caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from parity.claims import Claims, form_of
from parity.errors import DtypeMismatch, Mismatch, NameMismatch, SessionError, ShapeMismatch, ValueMismatch
from parity.judge import decisions, ratio, relations, undefined, vacuity, values
from parity.judge.rows import Row, failures
from parity.reference import Answers
from parity.samples import Sample, Source, default_sizes
from parity.traceable import Layout

_ERRORS = {
    "load": SessionError,
    "run": SessionError,
    "names": NameMismatch,
    "dtype": DtypeMismatch,
    "shape": ShapeMismatch,
}
# Batch and length of the first sample that a source makes by itself where its axes cannot be resized.
_FIRST = (1, 9)


@dataclass(frozen=True)
class Validation:
    """What came out of comparing one file with its reference.

    Args:
        samples: the inputs compared on, the export's own shape first.
        shapes: output shapes of the first sample, by name.
        rows: all verdict rows.
        traced: the size of every named axis at the export.
        values: how many values of the outputs were compared, those included of which only finiteness was judged.
        masked: how many of them those were: see `parity.judge.undefined`.
    """

    samples: Sequence[Sample]
    shapes: Mapping[str, tuple[int, ...]]
    rows: Sequence[Row]
    traced: Mapping[str, int] = field(default_factory=dict)
    values: int = 0
    masked: int = 0

    @property
    def failures(self) -> list[Row]:
        return failures(self.rows)

    @property
    def passed(self) -> bool:
        return not self.failures

    def worst(self, output: str | None = None, where: str | None = None) -> float:
        """The largest absolute difference from float32 PyTorch, over all outputs and shapes or the given ones."""
        rows = [
            r for r in self.rows if r.check == "values" and output in (None, r.subject) and where in (None, r.where)
        ]
        return max((row.figures["worst"] for row in rows), default=0.0)

    def ratios(self) -> dict[str, float]:
        """The pooled error ratio of each floating output."""
        return {row.subject: row.figures["ratio"] for row in self.rows if row.check == "ratio"}

    def raise_on_failure(self) -> None:
        """Raise the first failure's error class, with every failure in its message.

        Raises:
            SessionError, NameMismatch, DtypeMismatch, ShapeMismatch, ValueMismatch
        """
        failed = self.failures
        if failed:
            error = _ERRORS.get(failed[0].check, ValueMismatch)
            raise error(self.message(), failed) if issubclass(error, Mismatch) else error(self.message())

    def message(self) -> str:
        """Every failure as one line, and the axis that explains them where one does; empty when all passed."""
        lines = [told(row) for row in self.failures]
        diagnosis = self.baked_axis()
        return "\n".join([*lines, diagnosis] if diagnosis else lines)

    def as_json(self) -> dict:
        """Shapes, differences, ratios and failures."""
        return {
            "validated_at": [{"sizes": dict(s.sizes), "padding": s.padding} for s in self.samples],
            "outputs": {
                name: {"shape": list(shape), "worst": self.worst(name), "ratio": self.ratios().get(name)}
                for name, shape in self.shapes.items()
            },
            "values": self.values,
            "masked": self.masked,
            "failures": [{"check": row.check, "subject": row.subject, "message": told(row)} for row in self.failures],
        }

    def baked_axis(self) -> str | None:
        """The sentence that names the axis when the file is right at one size of it only; else None.

        Of several axes that would explain it, one that is right at the size of our own export is told.
        """
        bad = {row.where for row in self.failures if row.where}
        right, wrong = ([s for s in self.samples if (str(s) in bad) is fails] for fails in (False, True))
        if not right or not wrong:
            return None
        found = []
        for name, traced in self.traced.items():
            sizes = {sample.sizes.get(name) for sample in right}
            size = next(iter(sizes)) if len(sizes) == 1 else None
            if size is not None and all(sample.sizes.get(name) != size for sample in wrong):
                found.append((size != traced, name, size))
        if not found:
            return None
        foreign, name, size = min(found)
        known = "" if foreign else ", the size of the export,"
        return (
            f"axis {name}: the file is right where {name} is {size}{known} and wrong at every other size tried; {name}"
            " is baked in, though the file declares it dynamic"
        )


def told(row: Row) -> str:
    """A failed row as one line."""
    return f"at {row.where}: {row.message}" if row.where else row.message


def choose_samples(source: Source, *, longest: int | None = None, resize: bool = True) -> list[Sample]:
    """The export's own shape with the dummy values first, then varied values at other shapes.

    Args:
        longest: the longest sequence that the model takes.
        resize: also take shapes that the preprocessor cannot make (sequence 1, lengths that differ from each other);
            needs axis names that do not contradict themselves.
    """
    samples = [source.generated()]
    if resize and source.resizable:
        samples += [
            source.resized(sizes, padding=padding, seed=seed)
            for seed, (sizes, padding) in enumerate(
                default_sizes(source.axes, longest, source.axis_sizes, source.masked), start=1
            )
        ]
        return samples
    limit = longest or 10**6
    rows = [
        (*_FIRST, ""),
        (3, 9, ""),
        (2, 8, ""),
        (3, 11, "left"),
        (3, 16, "right"),
        (1, 5, ""),
        (2, 31, ""),
        (2, 7, "left"),
    ]
    samples += [
        _generated_within(limit, source, batch, min(length, limit), padding, seed)
        for seed, (batch, length, padding) in enumerate(rows, start=1)
    ]
    return samples


def _generated_within(limit, source, batch, length, padding, seed):
    """A generated sample of that length, or of the next shorter one whose past leaves it room within the limit."""
    sample = source.generated(batch_size=batch, seq_length=length, padding=padding, seed=seed)
    while sample.tokens > limit and length > 1:
        length = min(length - 1, length * limit // sample.tokens)
        sample = source.generated(batch_size=batch, seq_length=length, padding=padding, seed=seed)
    return sample


def claims_of(
    source: Source,
    samples: Sequence[Sample],
    exactly,
    *,
    relations: Sequence[str] = (),
    longest: int | None = None,
    derived: Mapping[str, Mapping[int, str]] | None = None,
) -> Claims:
    """The claims on a file beyond its answers to the samples, which `choose_samples` has chosen.

    Args:
        exactly: a function without arguments; its result is a context that gives the float64 model as a backend.
        relations: the relations on record.
        derived: inputs of the file that the configuration does not declare, with their axes.
    """
    config = source.onnx_config
    place = next(index for index, sample in enumerate(samples) if index and not sample.padding and sample.tokens != 1)

    def others():
        return [backend_inputs(config, _alike(source, samples[place], longest, seed)) for seed in (1001, 1002)]

    return Claims(
        form_of(config, source.preprocessor, derived),
        exactly,
        relations=relations,
        dead=tuple(config.dead_inputs),
        place=place,
        others=others,
        longest=longest,
        allowed=source.axis_sizes,
    )


def _alike(source, sample, longest, seed):
    """A sample as large as one without padding that `choose_samples` has chosen, with other values."""
    if source.resizable:
        return source.resized(sample.sizes, seed=seed)
    limit = longest or 10**6
    return _generated_within(limit, source, _FIRST[0], min(_FIRST[1], limit), "", seed)


def compare(
    run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]],
    onnx_config,
    samples: Sequence[Sample],
    references: Sequence[Answers],
    *,
    atol: float | None = None,
    limit: float = ratio.LIMIT,
    traced: Mapping[str, int] | None = None,
    first: Sequence[Row] = (),
    derived: Sequence[str] = (),
    claims: Claims | None = None,
    alike: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Validation:
    """Run the backend on every sample and judge what it returns; the first failure is the reason.

    The order: the rows judged before, two equal runs of the first sample, names, dtypes, shapes and the pattern of NaN
    and inf, then over the complete pool the error ratio, then what the numbers decide; where all of that holds, the
    claims beyond single answers.

    Args:
        run: named arrays → named arrays, as `OnnxSession.run`.
        references: what `reference.answers` gave for the same samples; the error ratio is judged when it holds the
            float64 answers.
        atol: a hard limit on the absolute difference; None leaves the verdict on values to the error ratio.
        limit: the largest error ratio that passes.
        traced: the axis sizes of the export, to name a baked axis.
        first: rows that were judged before.
        derived: inputs of the file that `complete_inputs` computes from the others.
        claims: what is claimed of the file beyond single answers; judged with the error ratio only.
        alike: whether the file has the attention implementation of the reference; where it has not, or nobody knows,
            what attends to nothing is judged for being finite alone.
    """
    tell = progress or (lambda line: None)
    found: list[Row] = list(first)
    # What each input was answered by reference and file, and the same without what is not defined.
    pool: list[tuple[Answers, Mapping[str, np.ndarray]]] = []
    judged: list[tuple[Answers, Mapping[str, np.ndarray]]] = []
    asked: list[Mapping[str, np.ndarray]] = []
    counts = [0, 0]
    for sample, answer in zip(samples, references, strict=True):
        tell(f"ONNX Runtime at {sample}")
        inputs = backend_inputs(onnx_config, sample, derived)
        try:
            actual = run(inputs)
            again = run(inputs) if sample is samples[0] else None
        except SessionError as error:
            found.append(Row("run", "session", False, str(error), str(sample)))
            continue
        if again is not None:
            found.extend(relations.repeated(actual, again, str(sample)))
        where = (
            {}
            if alike
            else undefined.places(
                inputs, onnx_config.inputs, answer.eager, onnx_config.outputs, onnx_config.pooled_tokens
            )
        )
        counts[0] += sum(np.size(array) for array in answer.eager.values())
        counts[1] += sum(int(place.sum()) for place in where.values())
        defined = _defined(answer, where), undefined.blanked(actual, where, answer.eager)
        of_sample = undefined.rows(actual, where, str(sample))
        of_sample += values.rows(defined[0].eager, defined[1], atol=atol, where=str(sample))
        found.extend(of_sample)
        if not any(row.check != "values" for row in failures(of_sample)):
            pool.append((answer, actual))
            judged.append(defined)
            asked.append(inputs)
    complete = len(pool) == len(samples) and all(answer.exact is not None for answer, _ in pool)
    if complete:
        found.extend(_pooled(judged, [str(s) for s in samples], limit, failures(found)))
        if claims is not None and not failures(found):
            tell("relations and effects")
            noise = {row.subject: row.figures["noise"] for row in found if row.check == "ratio"}
            exact, got = [answer.exact for answer, _ in pool], [actual for _, actual in pool]
            found.extend(claims.rows(run, asked, got, exact, noise, samples))
            found.extend(vacuity.outputs(exact))
    shapes = {name: array.shape for name, array in references[0].eager.items()}
    return Validation(tuple(samples), shapes, tuple(found), dict(traced or {}), *counts)


def _pooled(judged, where, limit, failed):
    """Rows on the complete pool: the error ratio, then what the numbers decide."""
    exact, got = [answer.exact for answer, _ in judged], [actual for _, actual in judged]
    eager, jittered = [answer.eager for answer, _ in judged], [answer.jittered for answer, _ in judged]
    told_apart = any(row.check == "values" for row in failed)
    found = ratio.rows(exact, eager, jittered, got, limit=limit, where=() if told_apart else where)
    noise = {row.subject: row.figures["noise"] for row in found if row.check == "ratio"}
    return [*found, *decisions.rows(exact, got, noise, where=where, eager=eager)]


def _defined(answer, where):
    """The reference's answers without what is not defined."""
    if not where:
        return answer
    sides = {side: getattr(answer, side) for side in ("eager", "exact", "jittered")}
    blanked = {side: of and undefined.blanked(of, where, answer.eager) for side, of in sides.items()}
    return replace(answer, **blanked)


def backend_inputs(onnx_config, sample: Sample, derived: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The sample as the backend gets it: through `generate_dummy_inputs_onnxruntime`, flat, as numpy arrays."""
    nested = onnx_config.generate_dummy_inputs_onnxruntime(sample.inputs)
    flat = Layout.of(onnx_config, nested).flatten(nested)
    if derived:
        complete = onnx_config.complete_inputs(sample.inputs, derived)
        flat.update({name: complete[name] for name in derived if name in complete})
    return {name: tensor.numpy() for name, tensor in flat.items()}
