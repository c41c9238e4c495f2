"""Judge a trace at other sizes than its own: does it generalise, raise, or is it silently wrong?

A trace records one path through the model. Decisions made in Python (a length used as a number, a branch) are frozen,
and the file does not show them. So the trace is run: each axis alone at smaller and larger sizes, then all axes that
generalise together, and compared with an untouched copy of the model.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity import validation
from parity.arguments import require_model, transformers_model
from parity.axes import IMAGES, PAST_OF, PASTS, TEXTS
from parity.configs.lengths import lengths_to_try
from parity.configs.tokens import text_config
from parity.errors import SessionError, UsageError
from parity.judge import ratio
from parity.judge.findings import Finding
from parity.judge.pool import Answers, Arrays
from parity.judge.spool import are_equal_in_bits
from parity.reference import answers
from parity.samples import PADDINGS, Sample, SampleSource
from parity.shapes import fit_batch, nearest
from parity.torchscript.model import TracedModel, nested_inputs, operator_text
from parity.torchscript.untying import twin

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from parity.configs import OnnxConfig

OUTCOMES = GENERALISES, RAISES, SILENTLY_WRONG, FIXED = "generalises", "raises", "silently wrong", "fixed by the model"
# The joint trial of all axes that generalise individually.
TOGETHER = "all of these together"

BIT_EQUAL = "bit-equal"
RIGHT, WRONG, REFUSED = "right", "wrong", "refused"
_LONG = 64
# One length between twice the traced and the longest is not enough: a trace may be wrong at some only.
_PRIMES = (13, 29)
# Larger than the batch of most traces.
_BATCH = 8
# The command indents the table by four, on terminals with 80 columns.
_WIDTH = 76


@dataclass(frozen=True)
class Trial:
    """The trace at one set of sizes.

    Args:
        sample: the sizes and the padding.
        outcome: `right`, `raises`, `wrong`, or `refused`: the model itself raises, and so does the trace.
        text: the exact error of the trace or of the model, or the difference; for a right answer, whether it is
            bit-equal.
        findings: those of a wrong answer.
    """

    sample: Sample
    outcome: str
    text: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One axis: its traced size, the outcome at other sizes, and the trials that show it."""

    axis: str
    traced: int | None
    outcome: str
    trials: tuple[Trial, ...]

    @property
    def text(self) -> str:
        """The first error or difference that decides; empty if the axis generalises."""
        deciding = {RAISES: RAISES, SILENTLY_WRONG: WRONG, FIXED: REFUSED}.get(self.outcome)
        return next((trial.text for trial in self.trials if trial.outcome == deciding), "")

    def at(self, outcome: str) -> list[int]:
        """The sizes of the axis at which the trials had that outcome."""
        sizes = {trial.sample.sizes.get(self.axis) for trial in self.trials if trial.outcome == outcome}
        return sorted(size for size in sizes if size is not None)

    def as_json(self) -> dict[str, Any]:
        """Axis, traced size, outcome and the sizes that were tried, as JSON."""
        return {
            "axis": self.axis,
            "traced": self.traced,
            "verdict": self.outcome,
            "text": self.text,
            "trials": [
                {"sizes": dict(t.sample.sizes), "padding": t.sample.padding, "outcome": t.outcome, "text": t.text}
                for t in self.trials
            ],
        }


def verdict(
    traced: TracedModel,
    model: torch.nn.Module,
    *,
    preprocessor: Any = None,
    onnx_config: OnnxConfig | None = None,
    sizes: Mapping[str, Sequence[int]] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Verdict]:
    """The verdict on each named axis of a trace at other sizes, and on all generalising axes together.

    Args:
        traced: from `export` or `load`.
        model: the model that was traced; it is run in copies that share its weights.
        preprocessor: its tokenizer or processor, whose special tokens stay in the drawn inputs; None
            keeps those that the model's configuration names.
        onnx_config: the OnnxConfig given to `export`, if any.
        sizes: axis → the sizes to try, in place of those of `sizes_of`.
        progress: called with one line for each trial.

    Raises:
        UsageError: the trace names no axis, or two tensors of it disagree about the size of one.
    """
    if not isinstance(traced, TracedModel):
        raise UsageError(f"traced: got {type(traced).__name__}, should be what export or load returns")
    require_model(model)
    subject = TrialSetup.for_trace(traced, model, preprocessor=preprocessor, onnx_config=onnx_config)
    source = subject.source
    if not source.resizable:
        why = "name no axis" if not source.axes else "disagree about the size of an axis"
        raise UsageError(f"inputs: those that the trace was made with {why}, so no other size can be tried")
    candidates: dict[str, Sequence[int]] = {
        axis: sizes_of(source, axis, subject.longest, traced.compared) for axis in source.axes
    }
    candidates.update(sizes or {})
    verdicts = []
    for axis, others in candidates.items():
        trials = []
        for seed, size in enumerate(others, start=1):
            sample = source.resize({axis: size}, seed=seed)
            _report(progress, sample)
            trials.append(trial(subject, sample))
        verdicts.append(Verdict(axis, source.axes[axis], outcome_of(trials), tuple(trials)))
    free = [each.axis for each in verdicts if each.outcome == GENERALISES and len(candidates[each.axis]) > 1]
    trials = []
    for sample in _joint_samples(source, {axis: candidates[axis] for axis in free}, subject.longest):
        _report(progress, sample)
        trials.append(trial(subject, sample))
    if trials:
        verdicts.append(Verdict(TOGETHER, None, outcome_of(trials), tuple(trials)))
    return verdicts


def outcome_of(trials: Sequence[Trial]) -> str:
    """The verdict on an axis: the worst of its trials; fixed if the model itself refuses all tried sizes."""
    outcomes = {trial.outcome for trial in trials}
    if WRONG in outcomes:
        return SILENTLY_WRONG
    if RAISES in outcomes:
        return RAISES
    return GENERALISES if RIGHT in outcomes or not outcomes else FIXED


def sizes_of(source: SampleSource, axis: str, longest: int | None, compared: Sequence[int] = ()) -> list[int]:
    """Sizes to try for one axis, ascending: the smallest, around the traced one, primes, twice it, the longest.

    For texts, also those of `lengths_to_try`. Sizes outside the declared `axis_sizes` are replaced by the nearest
    inside.

    Args:
        source: of samples.
        axis: its name.
        longest: the longest sequence that the model takes, in tokens.
        compared: numbers that the model's code compares sizes with; these and their neighbours are tried too, unless
            they are much larger than the others.
    """
    here = source.axes[axis]
    if axis in ("batch", "choice", "image_batch"):
        sizes = [1, here + 1, 2 * here + 1, max(_BATCH, 3 * here)]
    elif axis in ("height", "width"):
        sizes = [here // 2, here - 1, here + 1, 2 * here]
        # What an image is compared with is its channels.
        compared = ()
    else:
        sizes = [1, here - 1, here + 1, *_PRIMES, 2 * here + 1, longest or max(_LONG, 3 * here)]
        if axis in TEXTS:
            sizes += lengths_to_try(source.model_config, longest).tokens
        if axis in PASTS:
            sizes[0] = 0
    largest = 8 * max(sizes)
    sizes += [size for number in compared for size in (number - 1, number, number + 1) if size <= largest]
    allowed = source.axis_sizes.get(axis)
    smallest = 0 if axis in PASTS else 1
    room = _room(source.axes, axis, longest)
    possible = sorted(nearest(min(size, room), allowed) for size in sizes)
    return [size for size in dict.fromkeys(possible) if size >= smallest and size != here]


def _room(sizes: Mapping[str, int], axis: str, longest: int | None) -> int:
    """The longest size of the axis such that a sequence and its past fit into `longest` together."""
    if longest is None or axis not in (*TEXTS, *PASTS):
        return 10**9
    other = PAST_OF.get(axis) or next((name for name, past in PAST_OF.items() if past == axis), "")
    return longest - sizes.get(other, 0)


def _joint_samples(
    source: SampleSource, candidates: Mapping[str, Sequence[int]], longest: int | None
) -> Iterator[Sample]:
    """Samples in which every axis has another size than the traced one, each size at least once, padded if possible.

    Then the samples of `_meetings`.

    Args:
        source: of samples.
        candidates: axis → sizes.
        longest: the longest sequence that the model takes, in tokens.
    """
    if len(candidates) < 2 and not (candidates and source.masked):
        return
    paddings = ("", "left", "right", "mixed") if source.masked else ("",)
    sets = []
    for turn in range(max(len(paddings), *map(len, candidates.values()))):
        sizes = {axis: others[(turn + place) % len(others)] for place, (axis, others) in enumerate(candidates.items())}
        sets.append((sizes, paddings[turn % len(paddings)]))
    sets += [(sizes, "") for sizes in _meetings(source, candidates)]
    for turn, (sizes, padding) in enumerate(sets):
        for axis, past in PAST_OF.items():
            if axis in sizes and past in sizes and longest is not None:
                sizes[past] = min(sizes[past], longest - 1)
                sizes[axis] = min(sizes[axis], longest - sizes[past])
        yield source.resize(fit_batch(source, sizes), padding=padding, seed=100 + turn)


def _meetings(source: SampleSource, candidates: Mapping[str, Sequence[int]]) -> Iterator[dict[str, int]]:
    """Sizes with a batch as large as its texts are long, a past as long as the new tokens, and unequal image sides."""
    texts = [axis for axis in (*TEXTS, *PASTS) if axis in candidates]
    if texts and "batch" in candidates:
        size = next(size for size in (5, 6, 7) if size not in source.axes.values())
        yield {axis: nearest(size, source.axis_sizes.get(axis)) for axis in ("batch", *texts)}
    if all(side in candidates for side in IMAGES):
        for long, short in (IMAGES, IMAGES[::-1]):
            yield {long: max(candidates[long]), short: min(candidates[short])}


@dataclass(frozen=True)
class TrialSetup:
    """The parts of a trial: the trace, the model, and the configuration that serves both."""

    traced: TracedModel
    model: torch.nn.Module
    onnx_config: OnnxConfig
    source: SampleSource
    longest: int | None

    @classmethod
    def for_trace(
        cls,
        trace: TracedModel,
        model: torch.nn.Module,
        *,
        preprocessor: Any = None,
        onnx_config: OnnxConfig | None = None,
    ) -> TrialSetup:
        """Build from the arguments of `verdict`.

        Args:
            trace: from `export` or `load`.
            model: the model that was traced.
            preprocessor: of the model.
            onnx_config: None takes the declared one.
        """
        model = transformers_model(model)
        if onnx_config is None:
            from parity.features import constructor

            onnx_config = constructor(trace.model_type, trace.feature)(model.config)
        own = _with_names_of(trace, onnx_config)
        source = ExampleSource(own, trace.example, model.config, preprocessor)
        return cls(trace, model, own, source, onnx_config.longest_sequence(model))


class ExampleSource(SampleSource):
    """Samples that are resized from the tensors that a trace was made with.

    Args:
        onnx_config: names inputs and outputs.
        example: tensors by name.
        model_config: of the model.
        preprocessor: whose special tokens are kept where they are; None keeps those that `model_config` names.
    """

    def __init__(
        self,
        onnx_config: OnnxConfig,
        example: Mapping[str, torch.Tensor],
        model_config: PretrainedConfig,
        preprocessor: Any = None,
    ) -> None:
        self._example = nested_inputs(onnx_config, example)
        super().__init__(onnx_config, preprocessor or _Specials(model_config), model_config)

    def _generate(self, **sizes: int) -> dict[str, Any]:
        return dict(self._example)


class _Specials:
    """Answers a SampleSource's questions to a tokenizer from the model's configuration."""

    unk_token_id = None

    def __init__(self, config: PretrainedConfig) -> None:
        text = text_config(config)
        self.pad_token_id = getattr(text, "pad_token_id", None)
        ids = [getattr(text, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
        self.all_special_ids = [i for i in ids if isinstance(i, int)]


class _WithNamesOf:
    """An OnnxConfig with the inputs and outputs of the trace."""

    def __init__(self, trace: TracedModel, onnx_config: OnnxConfig) -> None:
        self._own = onnx_config
        self.inputs = dict(trace.inputs)
        self.outputs = dict(trace.outputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def _with_names_of(trace: TracedModel, onnx_config: OnnxConfig) -> OnnxConfig:
    return _WithNamesOf(trace, onnx_config)  # type: ignore[return-value]  # has all else through __getattr__


def trial(subject: TrialSetup, sample: Sample) -> Trial:
    """Compare the trace at one sample with an untouched copy of the model.

    If any bit differs, judge a pool of inputs of the same sizes by the error ratio.
    """
    try:
        reference = _eager(subject, [sample])[0].eager
        refusal = None
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        refusal = operator_text(error)
    try:
        actual = subject.traced.run(validation.backend_inputs(subject.onnx_config, sample))
    except SessionError as error:
        return Trial(sample, RAISES, str(error)) if refusal is None else Trial(sample, REFUSED, refusal)
    if refusal is not None:
        return Trial(sample, WRONG, f"the model refuses this size ({refusal}), and the trace answers")
    if _equal(reference, actual):
        return Trial(sample, RIGHT, BIT_EQUAL)
    return _pool_trial(subject, sample, min(array.size for array in reference.values()))


def at_traced_shape(trace: TracedModel, model: torch.nn.Module, onnx_config: OnnxConfig) -> Trial:
    """The trace at its own shape: on its example, on other values, on each padding, and on the example again.

    The first runs let torch optimise it, and a trace that ignores its mask is right without padding.

    Args:
        trace: the trace.
        model: the model that was traced.
        onnx_config: names inputs and outputs.
    """
    subject = TrialSetup.for_trace(trace, model, onnx_config=onnx_config)
    source = subject.source
    example = source.generate()
    paddings = [padding for padding in PADDINGS if padding] if source.masked else []
    padded = [source.generate(padding=padding, seed=seed) for seed, padding in enumerate(paddings, start=2)]
    trials: list[Trial] = []
    for sample in (example, source.generate(seed=1), *padded, example):
        trials.append(trial(subject, sample))
        if trials[-1].outcome != RIGHT:
            return trials[-1]
    return next((each for each in trials if each.text != BIT_EQUAL), trials[0])


def _eager(subject: TrialSetup, samples: Sequence[Sample], *, exact: bool = False) -> list[Answers]:
    # A copy for every call: some models change permanently when they see a short text.
    return answers(twin(subject.model), subject.onnx_config, samples, exact=exact)


def _equal(reference: Arrays, actual: Arrays) -> bool:
    return all(
        actual[name].dtype == array.dtype
        and actual[name].shape == array.shape
        and are_equal_in_bits(actual[name], array)
        for name, array in reference.items()
    )


def _pool_trial(subject: TrialSetup, sample: Sample, values: int) -> Trial:
    """The verdict on a pool of the sample's sizes that includes the sample; `values` is its smallest output's size."""
    source = subject.source
    seeds = range(1000, 1000 + ratio.inputs_needed(values) - 1)
    if source.resizable:
        others = [source.resize(sample.sizes, padding=sample.padding, seed=seed) for seed in seeds]
    else:
        others = [source.generate(padding=sample.padding, seed=seed) for seed in seeds]
    samples = [sample, *others]
    pool = validation.pool_of(source, samples, _eager(subject, samples, exact=True))
    comparison = validation.compare(subject.traced.run, subject.onnx_config, pool)
    if not comparison.passed:
        return Trial(sample, WRONG, comparison.failures[0].message, tuple(comparison.failures))
    largest, difference = max(comparison.ratios().values(), default=0.0), comparison.worst() or 0.0
    text = f"not bit-equal, error ratio {largest:.2f} ≤ {ratio.LIMIT:g}, largest difference {difference:.2g}"
    return Trial(sample, RIGHT, text)


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """The verdicts as lines: the axis, its traced size, the verdict, the tried sizes, and the reason.

    Args:
        verdicts: as `verdict` returns them.

    Raises:
        AttributeError: one of them is not a `Verdict`.
    """
    rows = [("axis", "traced", "at other sizes", "")]
    for each in verdicts:
        sizes = "; ".join(_sizes(each, outcome) for outcome in (RIGHT, RAISES, WRONG, REFUSED) if each.at(outcome))
        rows.append((each.axis, "" if each.traced is None else str(each.traced), each.outcome, sizes))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for row, text in zip(rows, ["", *(each.text for each in verdicts)], strict=True):
        head = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        line = f"{head}  {row[3]}".rstrip()
        # Sizes that do not fit next to their verdict go below it.
        below = textwrap.wrap(row[3], _WIDTH, initial_indent="    ", subsequent_indent="    ")
        lines += [line] if len(line) <= _WIDTH else [head.rstrip(), *below]
        lines += [f"    {text.splitlines()[0]}"] if text else []
    return lines


def _sizes(each: Verdict, outcome: str) -> str:
    words = {RIGHT: "right at", RAISES: "raises at", WRONG: "wrong at", REFUSED: "the model refuses"}
    return f"{words[outcome]} {', '.join(map(str, each.at(outcome)))}"


def _report(progress: Callable[[str], None] | None, sample: Sample) -> None:
    if progress is not None:
        progress(f"the trace at {sample}")
