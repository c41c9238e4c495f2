"""Inputs that are judged together, the reference's answers to them, and the backend's."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from parity.dtypes import is_floating, unit_roundoff
from parity.judge.spool import blocks

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Answers:
    """Output arrays by name for one sample.

    `exact` is float64, and `jittered` the model's own type with moved weights; for a model in halves it is `eager`.
    """

    eager: Arrays
    exact: Arrays | None = None
    jittered: Arrays | None = None

    def select(self, names: Collection[str]) -> Answers:
        """The answers for these outputs."""
        exact, jittered = (side and {name: side[name] for name in names} for side in (self.exact, self.jittered))
        return Answers({name: self.eager[name] for name in names}, exact, jittered)

    def sides(self) -> tuple[Arrays, Arrays, Arrays]:
        """The exact, the eager and the jittered arrays.

        Raises:
            ValueError: only the eager answers were computed.
        """
        if self.exact is None or self.jittered is None:
            raise ValueError("pool: has no float64 answers to measure against")
        return self.exact, self.eager, self.jittered


@dataclass(frozen=True)
class Measurement:
    """One output over a pool: its error ratio, and its largest absolute difference from float32 PyTorch.

    `noise` is the unit of the ratio: the root mean square of the denominators, in units of the outputs' rms.
    """

    ratio: float
    worst: float
    inputs: int
    noise: float


@dataclass(frozen=True)
class Pool:
    """Inputs that are judged together, by the same index in every sequence.

    Args:
        samples: the sources of the inputs; as text they are the sizes, for messages.
        answers: the reference's answers.
        inputs: the inputs in the backend's form.
        actual: the backend's answers.
        traced: the size of every named axis at the export.
        longest: the longest sequence that the model takes, in tokens.
        unit: the noise of each floating output, if it is not the pool's own, such as that of a tolerance.
        roundoff: of the type that the backend's constants are rounded to, if it is coarser than the answers' own.
    """

    samples: Sequence[Any]
    answers: Sequence[Answers]
    inputs: Sequence[Arrays] = ()
    actual: Sequence[Arrays] = ()
    traced: Mapping[str, int] = field(default_factory=dict)
    longest: int | None = None
    unit: Mapping[str, float] | None = None
    roundoff: float = 0.0

    def __post_init__(self) -> None:
        for name in ("samples", "inputs", "actual"):
            count = len(getattr(self, name))
            # Inputs and a backend's answers may come later, but all together: a part would leave inputs unjudged.
            if count != len(self.answers) and (count or name == "samples"):
                raise ValueError(f"pool: {count} {name}, should be {len(self.answers)}, one for each of the answers")

    @classmethod
    def from_answers(
        cls,
        exact: Sequence[Arrays],
        eager: Sequence[Arrays],
        jittered: Sequence[Arrays],
        actual: Sequence[Arrays] = (),
        sizes: Sequence[str] = (),
    ) -> Pool:
        """A pool of answers without inputs.

        Args:
            exact, eager, jittered: the reference's answers, as in `Answers`.
            actual: the backend's answers.
            sizes: of each input, as text.
        """
        answers = [Answers(*sides) for sides in zip(eager, exact, jittered, strict=True)]
        return cls(sizes or [""] * len(answers), answers, actual=actual)

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, part: slice) -> Pool:
        """A pool of some of the inputs."""
        parts = {name: getattr(self, name)[part] for name in ("samples", "answers", "inputs", "actual")}
        return replace(self, **parts)

    @property
    def sizes(self) -> list[str]:
        """The sizes of each input, as text."""
        return [str(sample) for sample in self.samples]

    @property
    def exact(self) -> list[Arrays]:
        """The reference's float64 answers.

        Raises:
            ValueError: they were not computed; see `has_exact`.
        """
        exact = [answer.exact for answer in self.answers if answer.exact is not None]
        if len(exact) != len(self):
            raise ValueError("pool: has no float64 answers")
        return exact

    @property
    def eager(self) -> list[Arrays]:
        """The reference's float32 answers."""
        return [answer.eager for answer in self.answers]

    @property
    def has_exact(self) -> bool:
        """Whether every input has float64 answers, without which there is no error ratio."""
        return all(answer.exact is not None for answer in self.answers)

    @property
    def floating(self) -> list[str]:
        """The names of the outputs that have an error ratio."""
        return [name for name, array in self.answers[0].eager.items() if is_floating(array.dtype)]

    def with_actual(self, actual: Sequence[Arrays]) -> Pool:
        """The pool with these answers of a backend."""
        return replace(self, actual=actual)

    def measure(self, name: str) -> Measurement:
        """The measurement of one output.

        Elements that are not finite in the exact answer are left out: their pattern is judged elsewhere. If the exact
        answer is all zero, errors count as they are, with 1 for the rms.

        Raises:
            ValueError: the pool has no answers of a backend.
        """
        if not self.actual:
            raise ValueError("pool: has no answers of a backend to measure; give them with `with_actual`")
        above = below = worst = 0.0
        for answer, outputs in zip(self.answers, self.actual, strict=True):
            errors = _errors(name, answer, outputs, self.roundoff)
            if errors:
                above, below, worst = above + errors.backend**2, below + errors.allowed**2, max(worst, errors.worst)
        ratio = math.sqrt(above / below) if below else 0.0
        return Measurement(ratio, worst, len(self), math.sqrt(below / len(self)))

    @functools.cached_property
    def noise(self) -> Mapping[str, float]:
        """The unit of the error ratio of each floating output; see `Measurement`."""
        if self.unit is not None:
            return self.unit
        itself = self.with_actual(self.eager)
        return {name: itself.measure(name).noise for name in self.floating}


class _Errors(NamedTuple):
    """For one answer: the backend's error, its divisor in the error ratio, and the largest difference from eager."""

    backend: float
    allowed: float
    worst: float


def _errors(name: str, answer: Answers, outputs: Arrays, roundoff: float) -> _Errors | None:
    """The errors of one output; None if no value of the exact answer is finite."""
    exact, eager, jittered = answer.sides()
    reference = exact[name]
    finite, size = np.isfinite(reference), finite_rms(reference)
    if size is None:
        return None
    # One side at a time: answers are on disk if all sides together are larger than the memory for them.
    errors = [rms_of_difference(side[name], reference, finite) / (size or 1.0) for side in (outputs, eager, jittered)]
    del reference
    own = eager[name]
    allowed = max(errors[1], errors[2], unit_roundoff(own.dtype), roundoff)
    return _Errors(errors[0], allowed, _largest_difference(outputs[name], own, finite))


def finite_rms(values: np.ndarray) -> float | None:
    """The root mean square of the finite values; None if there are none."""
    squares, count = 0.0, 0
    for (part,) in blocks(values):
        finite = _choose(part, np.isfinite(part))
        squares += float(np.sum(np.square(finite)))
        count += finite.size
    return math.sqrt(squares / count) if count else None


def rms_of_difference(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> float:
    """The root mean square of the differences at some places; 0 if there are none.

    Args:
        one, other: of one shape.
        places: a boolean array of that shape.
    """
    squares, count = 0.0, 0
    for first, second, place in blocks(one, other, places):
        difference = _choose(first, place) - _choose(second, place)
        squares += float(np.sum(np.square(difference)))
        count += difference.size
    return math.sqrt(squares / count) if count else 0.0


def _largest_difference(one: np.ndarray, other: np.ndarray, places: np.ndarray) -> float:
    largest = 0.0
    for first, second, place in blocks(one, other, places):
        difference = np.abs(_choose(first, place) - _choose(second, place))
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest


def _choose(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The values at these places in float64; copied only if necessary."""
    return (values if places.all() else values[places]).astype(np.float64, copy=False)


def rms(values: np.ndarray) -> float:
    """The root mean square; 0 for no values."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
