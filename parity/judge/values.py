"""Expected and actual arrays of one call → findings on names, dtypes, shapes, the pattern of NaN and inf, values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.dtypes import is_floating
from parity.judge.findings import Finding


def judge_values(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    atol: float | None = None,
    where: str = "",
) -> list[Finding]:
    """Compare every expected output; the first property that fails is the one told for that output.

    Args:
        expected, actual: arrays by output name.
        atol: largest absolute difference allowed; None only measures it.
        where: the sizes, for messages.
    """
    findings = []
    for name, reference in expected.items():
        findings.append(_judge(name, np.asarray(reference), actual.get(name), atol, where))
    for name in sorted(set(actual) - set(expected)):
        findings.append(Finding("names", name, False, f"{name}: returned, but the reference has no such output", where))
    return findings


def _judge(name: str, expected: np.ndarray, actual: np.ndarray | None, atol: float | None, where: str) -> Finding:
    if actual is None:
        return Finding("names", name, False, f"{name}: not among the outputs, should be", where)
    if actual.dtype != expected.dtype:
        return Finding("dtype", name, False, f"{name}: dtype {actual.dtype}, should be {expected.dtype}", where)
    if actual.shape != expected.shape:
        return Finding("shape", name, False, f"{name}: shape {actual.shape}, should be {expected.shape}", where)
    if not is_floating(expected.dtype):
        wrong = np.flatnonzero(actual.ravel() != expected.ravel())
        return _values_finding(Finding("values", name, not wrong.size, "", where), wrong, expected, actual)
    pattern = _pattern(name, expected, actual, where)
    if pattern is not None:
        return pattern
    finite = np.isfinite(expected)
    difference = np.zeros(expected.shape)
    difference[finite] = np.abs(actual[finite].astype(np.float64) - expected[finite].astype(np.float64))
    wrong = np.flatnonzero(difference > atol) if atol is not None else np.empty(0, int)
    return _values_finding(
        Finding("values", name, not wrong.size, "", where), wrong, expected, actual, difference, atol
    )


def _pattern(name: str, expected: np.ndarray, actual: np.ndarray, where: str) -> Finding | None:
    for what, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        here, there = test(expected), test(actual)
        if not np.array_equal(here, there):
            wrong = np.argwhere(here != there)
            message = (
                f"{name}: {what} at {int(there.sum())} of {expected.size} places, should be at {int(here.sum())};"
                f" first difference at index {tuple(map(int, wrong[0]))}"
            )
            return Finding("nonfinite", name, False, message, where)
    return None


def _values_finding(
    finding: Finding,
    wrong: np.ndarray,
    expected: np.ndarray,
    actual: np.ndarray,
    difference: np.ndarray | None = None,
    atol: float | None = None,
) -> Finding:
    """The finding with the largest difference, and the sentence on the wrong values if there are any."""
    worst = float(difference.max()) if difference is not None and difference.size else 0.0
    if finding.passed:
        return replace(finding, measurements={"worst": worst})
    at = int(difference.argmax()) if difference is not None else int(wrong[0])
    index = tuple(int(i) for i in np.unravel_index(at, expected.shape))
    limit = "" if atol is None else f" by more than {atol:g}"
    message = (
        f"{finding.subject}: {wrong.size} of {expected.size} values differ{limit}"
        f" ({100 * wrong.size / expected.size:.1f} %); worst difference {worst:.3g} at index {index}: got"
        f" {actual[index]:.6g}, should be {expected[index]:.6g}"
    )
    return replace(finding, message=message, measurements={"worst": worst, "count": int(wrong.size), "index": index})
