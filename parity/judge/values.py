"""Expected and actual arrays of one call → rows for presence, dtype, shape, the pattern of NaN and inf, and values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parity.judge.rows import Row


def rows(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    atol: float | None = None,
    where: str = "",
) -> list[Row]:
    """Compare every expected output; the first property that fails is the one told for that output.

    Args:
        expected, actual: arrays by output name.
        atol: largest absolute difference allowed; None only measures it.
        where: the sizes, for messages.
    """
    found = []
    for name, reference in expected.items():
        found.append(_row(name, np.asarray(reference), actual.get(name), atol, where))
    for name in sorted(set(actual) - set(expected)):
        found.append(Row("names", name, False, f"{name}: returned, but the reference has no such output", where))
    return found


def _row(name, expected, actual, atol, where):
    if actual is None:
        return Row("names", name, False, f"{name}: not among the outputs, should be", where)
    if actual.dtype != expected.dtype:
        return Row("dtype", name, False, f"{name}: dtype {actual.dtype}, should be {expected.dtype}", where)
    if actual.shape != expected.shape:
        return Row("shape", name, False, f"{name}: shape {actual.shape}, should be {expected.shape}", where)
    if not np.issubdtype(expected.dtype, np.floating):
        wrong = np.flatnonzero(actual.ravel() != expected.ravel())
        return _told(name, wrong, expected, actual, None, where)
    pattern = _pattern(name, expected, actual, where)
    if pattern is not None:
        return pattern
    finite = np.isfinite(expected)
    difference = np.zeros(expected.shape)
    difference[finite] = np.abs(actual[finite].astype(np.float64) - expected[finite].astype(np.float64))
    wrong = np.flatnonzero(difference > atol) if atol is not None else np.empty(0, int)
    return _told(name, wrong, expected, actual, difference, where, atol)


def _pattern(name, expected, actual, where):
    for what, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        here, there = test(expected), test(actual)
        if not np.array_equal(here, there):
            wrong = np.argwhere(here != there)
            message = (
                f"{name}: {what} at {int(there.sum())} of {expected.size} places, should be at {int(here.sum())};"
                f" first difference at index {tuple(map(int, wrong[0]))}"
            )
            return Row("nonfinite", name, False, message, where)
    return None


def _told(name, wrong, expected, actual, difference, where, atol=None):
    worst = float(difference.max()) if difference is not None and difference.size else 0.0
    figures = {"worst": worst}
    if not wrong.size:
        return Row("values", name, True, "", where, figures)
    at = int(difference.argmax()) if difference is not None else int(wrong[0])
    index = tuple(int(i) for i in np.unravel_index(at, expected.shape))
    limit = "" if atol is None else f" by more than {atol:g}"
    message = (
        f"{name}: {wrong.size} of {expected.size} values differ{limit} ({100 * wrong.size / expected.size:.1f} %);"
        f" worst difference {worst:.3g} at index {index}: got {actual[index]:.6g}, should be {expected[index]:.6g}"
    )
    return Row("values", name, False, message, where, {**figures, "count": int(wrong.size), "index": index})
