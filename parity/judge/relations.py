"""Metamorphic relations: the same question in another form must get the same answer.

A relation changes the inputs of a backend, and transforms its answers back to the terms of the first question. Both
answers are the backend's own; they may differ by as much as the error ratio allows, in the same units (see `ratio`).
The float64 run of a model shows which relations it has: there both sides differ by less than float32's noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np

from parity.axes import Axes, Role, Signature, is_text, parts, role_of
from parity.judge import ratio
from parity.judge.findings import Finding
from parity.judge.pool import Arrays, Pool, rms_of_difference
from parity.judge.spool import are_equal_in_bits

Run = Callable[[Arrays], Arrays]

PADDING = 3
# Both sides of a relation that holds in float64 are closer than the noise of float32: some models cast inside.
EXACT_LIMIT = 1.0


@dataclass(frozen=True)
class PaddedSignature(Signature):
    """A signature, and the id of the padding token."""

    pad: int = 0

    def padding_axes(self, side: str) -> set[str]:
        """The axes that padding on this side lengthens: texts with a mask or, on the left, the past before them."""
        names = {axis for axes in self.inputs.values() for axis in axes.values()}
        masked = {
            part for name in self._names(Role.MASK) for axis in self.inputs[name].values() for part in parts(axis)
        }
        tokens = {
            axis
            for name in self._names(Role.TOKENS)
            for axis in self.inputs[name].values()
            if is_text(axis) and axis in masked
        }
        return {f"past_{axis}" if side == "left" and f"past_{axis}" in names else axis for axis in tokens}

    def _names(self, role: Role) -> list[str]:
        return [name for name in self.inputs if role_of(name) is role]


def batch_permutation(run: Run, inputs: Arrays, signature: PaddedSignature, first: Arrays) -> Arrays:
    """Run the rows of the batch in another order, and put the answers back in order."""
    batch = _batch_size(inputs, signature)
    if batch == 1:
        return first
    order = np.roll(np.arange(batch), 1)
    answers = run(_change_batch(inputs, signature.inputs, lambda array, axis: array.take(order, axis)))
    return _change_batch(answers, signature.outputs, lambda array, axis: array.take(np.argsort(order), axis))


def batch_of_one(run: Run, inputs: Arrays, signature: PaddedSignature, first: Arrays) -> Arrays:
    """Run the last row of the batch alone; it has the most padding."""
    batch = _batch_size(inputs, signature)
    if batch == 1:
        return first
    last_row = run(_change_batch(inputs, signature.inputs, lambda array, axis: array.take([batch - 1], axis)))
    others = _change_batch(first, signature.outputs, lambda array, axis: _part(array, axis, slice(batch - 1)))
    places = {name: _axis(signature.outputs[name], "batch") for name in others}
    return {
        name: last_row[name] if axis is None else np.concatenate([others[name], last_row[name]], axis)
        for name, axis in places.items()
    }


def padding_right(run: Run, inputs: Arrays, signature: PaddedSignature, first: Arrays) -> Arrays:
    """Add masked tokens after every sequence."""
    return _padding(run, inputs, signature, "right")


def padding_left(run: Run, inputs: Arrays, signature: PaddedSignature, first: Arrays) -> Arrays:
    """Add masked tokens before every sequence or, if there is a past, before that."""
    return _padding(run, inputs, signature, "left")


# Name → relation: a backend, one input, its axes and the first answer → the second, in the terms of the first.
# Relations of padding apply to inputs without any.
RELATIONS: Mapping[str, Callable[[Run, Arrays, PaddedSignature, Arrays], Arrays]] = {
    "batch-permutation": batch_permutation,
    "batch-of-one": batch_of_one,
    "padding-right": padding_right,
    "padding-left": padding_left,
}


def applies(name: str, signature: PaddedSignature) -> bool:
    """Whether the relation changes anything: a padding needs tokens and a mask."""
    return not name.startswith("padding") or bool(signature.padding_axes("right"))


def _padding(run: Run, inputs: Arrays, signature: PaddedSignature, side: str) -> Arrays:
    axes = signature.padding_axes(side)
    longer = {}
    for name, array in inputs.items():
        fill = {Role.MASK: 0, Role.TOKEN_TYPES: 0, Role.TOKENS: signature.pad}.get(role_of(name), 1)
        for axis in _axes_of(signature.inputs[name], axes):
            width = [(0, 0)] * array.ndim
            width[axis] = (PADDING, 0) if side == "left" else (0, PADDING)
            array = np.pad(array, width, constant_values=fill)
        longer[name] = array
    answers = {}
    for name, array in run(longer).items():
        for axis in _axes_of(signature.outputs[name], axes):
            array = _part(array, axis, slice(PADDING, None) if side == "left" else slice(-PADDING))
        answers[name] = array
    return answers


def _part(array: np.ndarray, axis: int, places: slice) -> np.ndarray:
    """A view of some places along an axis."""
    return array[(slice(None),) * axis + (places,)]


def _axes_of(axes: Mapping[int, str], names: Set[str]) -> list[int]:
    """The axes whose names contain one of these: `a + b` contains both."""
    return [axis for axis, name in axes.items() if names & {*parts(name)}]


def _axis(axes: Mapping[int, str], axis_name: str) -> int | None:
    return next((axis for axis, name in axes.items() if name == axis_name), None)


def _batch_size(inputs: Arrays, signature: PaddedSignature) -> int:
    places = ((array, _axis(signature.inputs[name], "batch")) for name, array in inputs.items())
    return next(array.shape[axis] for array, axis in places if axis is not None)


def _change_batch(arrays: Arrays, axes: Axes, change: Callable[[np.ndarray, int], np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays changed along their batch; those without a batch (clip's images, next to its texts) are unchanged."""
    places = ((name, array, _axis(axes[name], "batch")) for name, array in arrays.items())
    return {name: array if axis is None else change(array, axis) for name, array, axis in places}


def judge_relation(relation: str, pool: Pool, second: Iterable[Arrays], *, limit: float = ratio.LIMIT) -> list[Finding]:
    """One finding for each floating output: passed if both sides, pooled, differ by at most `limit` times the noise.

    Args:
        relation: its name.
        pool: with a backend's answers.
        second: its answers to the changed inputs, in the terms of the pool's; see `RELATIONS`. One is used at a time.
        limit: the largest difference that passes, in units of the noise.

    Raises:
        ValueError: fewer inputs than `ratio.MINIMUM_POOL`.
    """
    ratio.require_size(pool)
    noise = pool.noise
    others = iter(second)
    # Nothing here holds an answer while the next one is computed.
    distances = [_distances(pool, place, pool.actual[place], next(others)) for place in range(len(pool))]
    findings = []
    for name, unit in noise.items():
        own = [each[name] for each in distances]
        other_shapes = [each for each in own if isinstance(each, str)]
        if other_shapes:
            findings.append(Finding("relation", name, False, f"{name}: {relation}: {other_shapes[0]}"))
            continue
        times = math.sqrt(sum(each**2 for each in own if not isinstance(each, str)) / len(pool)) / unit
        passed = times <= limit
        wrong = f"{name}: {relation}: the two sides differ by {times:.3g} times the noise, should be at most {limit:g}"
        message = "" if passed else f"{wrong}; over {len(pool)} inputs"
        findings.append(Finding("relation", name, passed, message, measurements={"ratio": times}))
    return findings


def _distances(pool: Pool, place: int, first: Arrays, second: Arrays) -> dict[str, float | str]:
    """For each output, the root mean square of the differences between two answers, in units of `Pool.rms_of`.

    A sentence stands for answers that cannot be compared.
    """
    if second is first:
        # The relation does not change this input.
        return dict.fromkeys(pool.noise, 0.0)
    return {name: _distance(name, pool, place, first[name], second[name]) for name in pool.noise}


def _distance(name: str, pool: Pool, place: int, one: np.ndarray, other: np.ndarray) -> float | str:
    if one.shape != other.shape:
        return f"shape {other.shape}, should be {one.shape}"
    places = pool.answers[place].finite_places(name)
    return rms_of_difference(one, other, places) / (pool.rms_of(place, name) or 1.0)


def judge_determinism(first: Arrays, second: Arrays, sizes: str = "") -> list[Finding]:
    """Findings on two runs of one session on one input: passed if every output has the same bits.

    Args:
        first, second: the outputs of the runs, by name.
        sizes: of the input, for messages.
    """
    return [_same_bits(name, array, second.get(name), sizes) for name, array in first.items()]


def _same_bits(name: str, first: np.ndarray, second: np.ndarray | None, sizes: str) -> Finding:
    if second is not None and (first.shape, first.dtype) != (second.shape, second.dtype):
        second = None
    if second is not None and are_equal_in_bits(first, second):
        return Finding("determinism", name, True)
    message = f"{name}: two runs on one input differ"
    if second is not None:
        wrong = first.view(f"u{first.dtype.itemsize}") != second.view(f"u{first.dtype.itemsize}")
        message += f" at {int(wrong.sum())} of {first.size} values"
    return Finding("determinism", name, False, f"{message}, should be equal in every bit", sizes)
