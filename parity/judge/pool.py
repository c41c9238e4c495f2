"""Inputs that are judged together, the reference's answers to them, and the backend's."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from parity.dtypes import is_floating, unit_roundoff
from parity.judge.spool import blocks

Arrays = Mapping[str, np.ndarray]

MINIMUM_VALUES = 16


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

    @functools.cached_property
    def _scales(self) -> dict[str, Scale]:
        return {}

    @functools.cached_property
    def _own_errors(self) -> dict[str, float]:
        return {}

    def scale(self, name: str, exact: np.ndarray | None = None) -> Scale:
        """The scale of one output, which is computed once.

        Args:
            name: the output.
            exact: its exact answer, if it has been read.

        Raises:
            ValueError: only the eager answers were computed.
        """
        if name not in self._scales:
            if self.exact is None:
                raise ValueError("pool: has no float64 answers")
            self._scales[name] = _scale_of(self.exact[name] if exact is None else exact)
        return self._scales[name]

    def finite_places(self, name: str) -> np.ndarray | None:
        """Where the exact answer of one output is finite; None if everywhere."""
        return None if self.exact is None or self.scale(name).is_finite else np.isfinite(self.exact[name])

    def own_error(self, name: str, exact: np.ndarray | None = None) -> float:
        """The larger error of the eager and the jittered answer, which is computed once.

        Args:
            name, exact: see `scale`; the exact answer has a finite value.

        Raises:
            ValueError: only the eager answers were computed.
        """
        if name not in self._own_errors:
            reference, eager, jittered = self.sides()
            whole = reference[name] if exact is None else exact
            places = self.scale(name, whole).places(whole)
            # One side at a time: answers are on disk if all sides together are larger than the memory for them.
            self._own_errors[name] = max(rms_of_difference(side[name], whole, places) for side in (eager, jittered))
        return self._own_errors[name]


class Scale(NamedTuple):
    """The finite values of an array: the sums of their squares by block, their number, the least and the largest.

    `is_finite` is whether there are no others.
    """

    squares: tuple[float, ...]
    number: int
    low: float
    high: float
    is_finite: bool

    @property
    def rms(self) -> float | None:
        """Their root mean square; None if there are none."""
        return math.sqrt(sum(self.squares) / self.number) if self.number else None

    def places(self, values: np.ndarray) -> np.ndarray | None:
        """Where the values are finite; None if everywhere."""
        return None if self.is_finite else np.isfinite(values)


@dataclass(frozen=True)
class Measurement:
    """One output over a pool: its error ratio, and its largest absolute difference from float32 PyTorch.

    `noise` is the unit of the ratio: the root mean square of the denominators, in units of `Pool.rms_of`.
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

        Elements that are not finite in the exact answer are left out: their pattern is judged elsewhere.

        Raises:
            ValueError: the pool has no answers of a backend.
        """
        if not self.actual:
            raise ValueError("pool: has no answers of a backend to measure; give them with `with_actual`")
        above = below = worst = 0.0
        for place, outputs in enumerate(self.actual):
            errors = self._errors(name, place, outputs)
            if errors:
                above, below, worst = above + errors.backend**2, below + errors.allowed**2, max(worst, errors.worst)
        ratio = math.sqrt(above / below) if below else 0.0
        return Measurement(ratio, worst, len(self), math.sqrt(below / len(self)))

    @functools.cached_property
    def noise(self) -> Mapping[str, float]:
        """The unit of the error ratio of each floating output; see `Measurement`."""
        if self.unit is not None:
            return self.unit
        return {name: self._noise_of(name) for name in self.floating}

    def noise_at(self, place: int) -> dict[str, float]:
        """The noise of each floating output for one input, as a difference of its values."""
        return {name: noise * (self.rms_of(place, name) or 1.0) for name, noise in self.noise.items()}

    def rms_of(self, place: int, name: str, exact: np.ndarray | None = None) -> float | None:
        """The unit in which errors of one output for one input count; None if none of its exact values is finite.

        It is the rms of the exact answer, and 1 for zeros. Of fewer than `MINIMUM_VALUES` values it can be almost zero
        by chance, and their errors would outweigh those of all other inputs: they count in units of the pool's rms, if
        that is larger.

        Args:
            place: the index of the input.
            name, exact: see `Answers.scale`.
        """
        scale = self.answers[place].scale(name, exact)
        if scale.rms is None:
            return None
        few = scale.number < MINIMUM_VALUES
        return max(scale.rms, self._common_rms(name) if few else 0.0) or 1.0

    def _common_rms(self, name: str) -> float:
        if name not in self._common:
            self._common[name] = rms_of_all([answer.scale(name) for answer in self.answers])
        return self._common[name]

    @functools.cached_property
    def _common(self) -> dict[str, float]:
        return {}

    def _noise_of(self, name: str) -> float:
        allowed = (self._allowed(name, place) for place in range(len(self)))
        return math.sqrt(sum(each**2 for each in allowed if each is not None) / len(self))

    def _errors(self, name: str, place: int, outputs: Arrays) -> _Errors | None:
        """The errors of one output for one input; None if no value of the exact answer is finite."""
        answer = self.answers[place]
        reference = answer.sides()[0][name]
        unit, allowed = self.rms_of(place, name, reference), self._allowed(name, place, reference)
        if unit is None or allowed is None:
            return None
        places, own = answer.scale(name).places(reference), outputs[name]
        backend = rms_of_difference(own, reference, places) / unit
        del reference
        return _Errors(backend, allowed, _largest_difference(own, answer.eager[name], places))

    def _allowed(self, name: str, place: int, exact: np.ndarray | None = None) -> float | None:
        """The divisor of one output's error in the error ratio; None if no value of the exact answer is finite."""
        answer, unit = self.answers[place], self.rms_of(place, name, exact)
        if unit is None:
            return None
        own = answer.own_error(name, exact) / unit
        return max(own, unit_roundoff(answer.eager[name].dtype), self.roundoff)


class _Errors(NamedTuple):
    """For one answer: the backend's error, its divisor in the error ratio, and the largest difference from eager."""

    backend: float
    allowed: float
    worst: float


def _scale_of(values: np.ndarray) -> Scale:
    squares: list[float] = []
    count, low, high = 0, math.inf, -math.inf
    for (part,) in blocks(values):
        finite = _choose(part, finite_places(part))
        if finite.size:
            squares.append(float(np.sum(np.square(finite))))
            count, low, high = count + finite.size, min(low, float(finite.min())), max(high, float(finite.max()))
    return Scale(tuple(squares), count, low, high, count == values.size)


def finite_places(values: np.ndarray) -> np.ndarray | None:
    """Where the values are finite; None if everywhere."""
    places = np.isfinite(values)
    return None if places.all() else places


def rms_of_all(scales: Sequence[Scale]) -> float:
    """The root mean square of the finite values of all arrays; 0 if there are none."""
    squares = sum(square for each in scales for square in each.squares)
    return math.sqrt(squares / max(1, sum(each.number for each in scales)))


def rms_of_difference(one: np.ndarray, other: np.ndarray, places: np.ndarray | None = None) -> float:
    """The root mean square of the differences at some places; 0 if there are none.

    Args:
        one, other: of one shape.
        places: a boolean array of that shape; None stands for all places.
    """
    squares, count = 0.0, 0
    for difference in _differences(one, other, places):
        squares += float(np.sum(np.square(difference, out=difference)))
        count += difference.size
    return math.sqrt(squares / count) if count else 0.0


def _largest_difference(one: np.ndarray, other: np.ndarray, places: np.ndarray | None) -> float:
    largest = 0.0
    for difference in _differences(one, other, places):
        largest = max(largest, float(np.abs(difference, out=difference).max(initial=0.0)))
    return largest


def _differences(one: np.ndarray, other: np.ndarray, places: np.ndarray | None) -> Iterator[np.ndarray]:
    """The differences in float64 at some places, a block at a time; arrays that may be overwritten."""
    if places is None:
        for first, second in blocks(one, other):
            yield difference_of(first, second)
        return
    for first, second, place in blocks(one, other, places):
        yield difference_of(first[place], second[place])


def difference_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference in float64 of arrays of any types, converted a part at a time instead of copied whole."""
    return np.subtract(one, other, dtype=np.float64)


def _choose(values: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """The values at these places in float64; copied only if necessary."""
    return (values if places is None else values[places]).astype(np.float64, copy=False)


def rms(values: np.ndarray) -> float:
    """The root mean square; 0 for no values."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
