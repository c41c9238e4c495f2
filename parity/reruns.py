"""Checks that run the file again on changed inputs: metamorphic relations, and that every input affects some output.

The file is judged on its own answers, in units of the error ratio's noise. If it fails, the float64 model is tested
too: a property that the model lacks is no fault of the file.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from parity.axes import PIXEL_MASK, Axes, Role, role_of
from parity.configs.tokens import padding_token
from parity.errors import SessionError
from parity.judge import relations, vacuity
from parity.judge.findings import Finding, failures
from parity.judge.pool import Arrays, Pool
from parity.judge.relations import PaddedSignature, Run
from parity.judge.spool import Spool
from parity.judge.vacuity import Effects

if TYPE_CHECKING:
    from parity.configs import OnnxConfig
    from parity.configs.base import Preprocessor
    from parity.samples import Sample


def padded_signature(
    onnx_config: OnnxConfig, preprocessor: Preprocessor | None, also: Axes | None = None
) -> PaddedSignature:
    """The named axes of inputs and outputs, and the id of the padding token.

    Args:
        onnx_config: names the axes.
        preprocessor: its tokenizer has the padding token, if the model's configuration has not.
        also: further inputs of the file, with their axes.
    """
    pad = padding_token(onnx_config._config, getattr(preprocessor, "tokenizer", preprocessor))
    return PaddedSignature({**onnx_config.inputs, **(also or {})}, onnx_config.outputs, pad)


@dataclass(frozen=True)
class RerunClaims:
    """The claims on one file.

    Args:
        signature: its axes.
        exactly: returns a context with the float64 model as a backend; called only if a check needs it, which is rare.
        relations: the relations on record; see `relations.RELATIONS`.
        dead: the inputs that are declared dead.
        place: the index of the pool's input that is changed to find effects; None leaves that out.
        others: returns inputs as large as that one, whose tensors replace its tensors.
        longest: the longest sequence that the model takes, in tokens.
        allowed: axis → valid sizes, if these are not all sizes from 1 up.
    """

    signature: PaddedSignature
    exactly: Callable[[], AbstractContextManager[Run]]
    relations: Sequence[str] = ()
    dead: Collection[str] = ()
    place: int | None = None
    others: Callable[[], Sequence[Arrays]] = tuple
    longest: int | None = None
    allowed: Mapping[str, range] = field(default_factory=dict)

    def judge(self, run: Run, pool: Pool) -> list[Finding]:
        """The findings on all claims, relations first.

        Args:
            run: the file.
            pool: with its inputs, and the file's and the float64 model's answers; the samples are `Sample`s.
        """
        with contextlib.ExitStack() as stack:
            model = _LazyBackend(self.exactly, stack)
            findings: list[Finding] = []
            for relation in self.relations:
                if relations.applies(relation, self.signature):
                    findings += self._judge_relation(relation, run, model, pool)
            if self.place is not None and not failures(findings):
                findings += self._judge_effects(self.place, run, model, pool)
            return findings

    def _judge_relation(self, relation: str, run: Run, model: Run, pool: Pool) -> list[Finding]:
        """Findings on one relation; an output fails only if the float64 model has the relation."""
        room = [self._has_room(relation, *each) for each in zip(pool.inputs, pool.samples, strict=True)]

        def ask(backend: Run, answers: Sequence[Arrays]) -> Iterator[Arrays]:
            return relation_answers(self.signature, relation, backend, pool.inputs, answers, room)

        try:
            findings = relations.judge_relation(relation, pool, ask(run, pool.actual))
        except SessionError as error:
            finding = Finding("run", "session", False, f"{relation}: {error}")
            return [] if _raises(lambda: deque(ask(model, pool.exact), maxlen=0)) else [finding]
        if not failures(findings):
            return findings
        exact, answers = pool.with_actual(pool.exact), ask(model, pool.exact)
        of_model = relations.judge_relation(relation, exact, answers, limit=relations.EXACT_LIMIT)
        lacking = {finding.subject for finding in failures(of_model)}
        return [finding for finding in findings if finding.passed or finding.subject not in lacking]

    def _judge_effects(self, place: int, run: Run, model: Run, pool: Pool) -> list[Finding]:
        """Findings on inputs that affect the model and not the file, and on outputs that nothing affects."""
        first, noise = pool.inputs[place], pool.noise_at(place)
        changes = single_changes(first, self.others())
        try:
            spool = Spool()
            moved = {name: spool.keep(run(inputs)) for name, inputs in changes.items()}
        except SessionError as error:
            return [Finding("run", "session", False, f"with one input changed: {error}")]
        file = Effects(pool.actual[place], moved)
        if not vacuity.needs_reference(pool.exact[place], file, noise, dead=self.dead):
            return [Finding("vacuity", name, True) for name in (*changes, *noise)]
        reference = Effects(model(first), {name: model(inputs) for name, inputs in changes.items()})
        return vacuity.judge_effects(reference, file, noise, dead=self.dead, every=False)

    def _has_room(self, relation: str, inputs: Arrays, sample: Sample) -> bool:
        """Whether the relation is tried with an input.

        A relation is about rows and padding, which values do not change: samples of extreme values, the largest, are
        left out. Padding needs an unpadded input, and room for its length.
        """
        if sample.extreme:
            return False
        if not relation.startswith("padding"):
            return True
        if sample.padding:
            return False
        sizes = {
            axis: inputs[name].shape[index]
            for name, axes in self.signature.inputs.items()
            for index, axis in axes.items()
            if name in inputs
        }
        longer = {
            axis: sizes[axis] + relations.PADDING
            for axis in self.signature.padding_axes(relation.removeprefix("padding-"))
        }
        fits = all(size in self.allowed.get(axis, (size,)) for axis, size in longer.items())
        return fits and (self.longest is None or sample.tokens + relations.PADDING <= self.longest)


class _LazyBackend:
    """A backend that is created at its first run."""

    def __init__(self, make: Callable[[], AbstractContextManager[Run]], stack: contextlib.ExitStack) -> None:
        self._make, self._stack = make, stack
        self._run: Run | None = None

    def __call__(self, inputs: Arrays) -> Arrays:
        if self._run is None:
            self._run = self._stack.enter_context(self._make())
        return self._run(inputs)


def relation_answers(
    signature: PaddedSignature,
    relation: str,
    run: Run,
    inputs: Sequence[Arrays],
    first: Sequence[Arrays],
    room: Sequence[bool] = (),
) -> Iterator[Arrays]:
    """A backend's answers to the inputs as changed by a relation, in the terms of the original inputs.

    Each is computed when it is needed: those of a pool may not fit in memory together.

    Args:
        signature: the axes of the file.
        relation: a key of `relations.RELATIONS`.
        run: the backend.
        inputs: of the pool.
        first: the backend's direct answers to the pool.
        room: whether the relation applies to each input; for the others the direct answer is used. Empty means all.
    """
    ask = relations.RELATIONS[relation]
    for one, answer, fits in zip(inputs, first, room or [True] * len(inputs), strict=True):
        yield ask(run, one, signature, answer) if fits else answer


def _raises(action: Callable[[], object]) -> bool:
    try:
        action()
    except (IndexError, RuntimeError, ValueError):
        return True
    return False


def single_changes(first: Arrays, others: Sequence[Arrays]) -> dict[str, dict[str, np.ndarray]]:
    """For each tensor of an input, the same input with that tensor changed.

    A mask loses its second position, that of an image two thirds of its width; any other tensor takes the values of the
    first of `others` that differs, and is left out if none does.
    """
    changes = {}
    for name, array in first.items():
        if role_of(name) is Role.MASK:
            mask, width = array.copy(), array.shape[-1]
            lost = slice(width // 3, None) if name == PIXEL_MASK else min(1, width - 1)
            mask[..., lost] = 0
            changes[name] = {**first, name: mask}
            continue
        tensor = next((other[name] for other in others if not np.array_equal(other[name], array)), None)
        if tensor is not None:
            changes[name] = {**first, name: tensor}
    return changes
