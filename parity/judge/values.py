"""Expected and actual arrays of one call → findings on names, dtypes, shapes, the pattern of NaN and inf, values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parity.dtypes import is_floating
from parity.judge.findings import Finding
from parity.judge.pool import Answers, difference_of, finite_places
from parity.judge.spool import blocks


def judge_values(
    reference: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    atol: float | None = None,
    sizes: str = "",
) -> list[Finding]:
    """Compare every output of the reference; for each output, the first property that fails is reported.

    Args:
        reference, actual: arrays by output name.
        atol: largest absolute difference allowed; None only measures it.
        sizes: of the input, for messages.
    """
    findings = []
    for name, array in reference.items():
        findings.append(_judge(name, np.asarray(array), actual.get(name), atol, sizes))
    for name in sorted(set(actual) - set(reference)):
        findings.append(Finding("names", name, False, f"{name}: returned, but the reference has no such output", sizes))
    return findings


def judge_overflow(answers: Sequence[Answers]) -> list[Finding]:
    """A failure for each output in halves that is not finite in PyTorch itself, and finite in float64.

    There the unit of the error ratio is infinite, and the ratio says nothing about a file.

    Args:
        answers: with those in float64.
    """
    findings = []
    for name, first in answers[0].eager.items():
        if not is_floating(first.dtype) or first.dtype.itemsize > 2:
            continue
        count = size = 0
        for each in answers:
            exact, *sides = (side[name] for side in each.sides())
            size += exact.size
            count += int((np.isfinite(exact) & ~np.logical_and(*map(np.isfinite, sides))).sum())
        if count:
            message = (
                f"{name}: {count} of {size} values are not finite in PyTorch itself, and are in float64: the model"
                f" overflows in {first.dtype.name}; export it in float32"
            )
            findings.append(Finding("nonfinite", name, False, message))
    return findings


def _judge(name: str, reference: np.ndarray, actual: np.ndarray | None, atol: float | None, sizes: str) -> Finding:
    if actual is None:
        return Finding("names", name, False, f"{name}: is not among the outputs, should be", sizes)
    if actual.dtype != reference.dtype:
        return Finding("dtype", name, False, f"{name}: dtype {actual.dtype}, should be {reference.dtype}", sizes)
    if actual.shape != reference.shape:
        return Finding("shape", name, False, f"{name}: shape {actual.shape}, should be {reference.shape}", sizes)
    if not is_floating(reference.dtype):
        return _finding(name, sizes, reference, actual, _unequal(reference, actual))
    pattern = _pattern(name, reference, actual, sizes)
    if pattern is not None:
        return pattern
    return _finding(name, sizes, reference, actual, _differences(reference, actual, atol), atol)


class _Wrong(NamedTuple):
    """The number of wrong values, the flat index of the worst of them, and the largest difference of all."""

    number: int
    at: int
    worst: float = 0.0


def _unequal(reference: np.ndarray, actual: np.ndarray) -> _Wrong:
    wrong = np.flatnonzero(actual.ravel() != reference.ravel())
    return _Wrong(wrong.size, int(wrong[0]) if wrong.size else 0)


def _differences(reference: np.ndarray, actual: np.ndarray, atol: float | None) -> _Wrong:
    count, at, worst, start = 0, 0, 0.0, 0
    for here, there in blocks(reference, actual):
        finite = finite_places(here)
        if finite is None:
            difference = difference_of(there, here)
            np.abs(difference, out=difference)
        else:
            difference = np.zeros(here.shape)
            difference[finite] = np.abs(difference_of(there[finite], here[finite]))
        count += int((difference > atol).sum()) if atol is not None else 0
        largest = int(difference.argmax())
        if difference[largest] > worst:
            worst, at = float(difference[largest]), start + largest
        start += here.size
    return _Wrong(count, at, worst)


def _pattern(name: str, reference: np.ndarray, actual: np.ndarray, sizes: str) -> Finding | None:
    if all(finite_places(part) is None for array in (reference, actual) for (part,) in blocks(array)):
        return None
    for label, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        here, there = test(reference), test(actual)
        if not np.array_equal(here, there):
            wrong = np.argwhere(here != there)
            message = (
                f"{name}: {label} at {int(there.sum())} of {reference.size} places, should be at {int(here.sum())};"
                f" first difference at index {tuple(map(int, wrong[0]))}"
            )
            return Finding("nonfinite", name, False, message, sizes)
    return None


def _finding(
    name: str, sizes: str, reference: np.ndarray, actual: np.ndarray, wrong: _Wrong, atol: float | None = None
) -> Finding:
    """The finding with the largest difference, and the sentence on the wrong values if there are any."""
    if not wrong.number:
        return Finding("values", name, True, "", sizes, {"worst": wrong.worst})
    index = tuple(int(i) for i in np.unravel_index(wrong.at, reference.shape))
    limit = "" if atol is None else f" by more than {atol:g}"
    message = (
        f"{name}: {wrong.number} of {reference.size} values differ{limit}"
        f" ({100 * wrong.number / reference.size:.1f} %); worst difference {wrong.worst:.3g} at index {index}: got"
        f" {actual[index]:.6g}, should be {reference[index]:.6g}"
    )
    measurements = {"worst": wrong.worst, "count": wrong.number, "index": index}
    return Finding("values", name, False, message, sizes, measurements)
