"""Expected and actual arrays of one call → findings on names, dtypes, shapes, the pattern of NaN and inf, values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.dtypes import is_floating
from parity.judge.findings import Finding


def judge_values(
    reference: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    atol: float | None = None,
    sizes: str = "",
) -> list[Finding]:
    """Compare every output of the reference; the first property that fails is the one told for that output.

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


def _judge(name: str, reference: np.ndarray, actual: np.ndarray | None, atol: float | None, sizes: str) -> Finding:
    if actual is None:
        return Finding("names", name, False, f"{name}: is not among the outputs, should be", sizes)
    if actual.dtype != reference.dtype:
        return Finding("dtype", name, False, f"{name}: dtype {actual.dtype}, should be {reference.dtype}", sizes)
    if actual.shape != reference.shape:
        return Finding("shape", name, False, f"{name}: shape {actual.shape}, should be {reference.shape}", sizes)
    if not is_floating(reference.dtype):
        wrong = np.flatnonzero(actual.ravel() != reference.ravel())
        return _values_finding(Finding("values", name, not wrong.size, "", sizes), wrong, reference, actual)
    pattern = _pattern(name, reference, actual, sizes)
    if pattern is not None:
        return pattern
    finite = np.isfinite(reference)
    difference = np.zeros(reference.shape)
    difference[finite] = np.abs(actual[finite].astype(np.float64) - reference[finite].astype(np.float64))
    wrong = np.flatnonzero(difference > atol) if atol is not None else np.empty(0, int)
    return _values_finding(
        Finding("values", name, not wrong.size, "", sizes), wrong, reference, actual, difference, atol
    )


def _pattern(name: str, reference: np.ndarray, actual: np.ndarray, sizes: str) -> Finding | None:
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


def _values_finding(
    finding: Finding,
    wrong: np.ndarray,
    reference: np.ndarray,
    actual: np.ndarray,
    difference: np.ndarray | None = None,
    atol: float | None = None,
) -> Finding:
    """The finding with the largest difference, and the sentence on the wrong values if there are any."""
    worst = float(difference.max()) if difference is not None and difference.size else 0.0
    if finding.passed:
        return replace(finding, measurements={"worst": worst})
    at = int(difference.argmax()) if difference is not None else int(wrong[0])
    index = tuple(int(i) for i in np.unravel_index(at, reference.shape))
    limit = "" if atol is None else f" by more than {atol:g}"
    message = (
        f"{finding.subject}: {wrong.size} of {reference.size} values differ{limit}"
        f" ({100 * wrong.size / reference.size:.1f} %); worst difference {worst:.3g} at index {index}: got"
        f" {actual[index]:.6g}, should be {reference[index]:.6g}"
    )
    return replace(finding, message=message, measurements={"worst": worst, "count": int(wrong.size), "index": index})
