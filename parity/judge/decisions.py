"""Decisions: the five largest candidates along the last axis, in order, compared if their exact gap is not noise.

A ranking may differ only between candidates that float64 itself considers equal: at every one of the first five ranks,
the exact values of the expected candidate and of the backend's may differ by at most `LIMIT · noise · rms`, with the
noise that is the unit of the error ratio (see `ratio`). A candidate is right as well if PyTorch's own float32 answer
has it at that rank: some models lose every difference between candidates if they mask a whole row. No share of the
decisions is exempt.
"""

from __future__ import annotations

import numpy as np

from parity.axes import Role, role_of
from parity.judge import spool
from parity.judge.findings import Finding
from parity.judge.pool import Arrays, Pool
from parity.judge.ratio import LIMIT

TOP = 5


def judge_decisions(pool: Pool, *, limit: float = LIMIT, eager: bool = True) -> list[Finding]:
    """One finding for each output with decisions (logits, by its name), on the first bad input if there is one.

    Args:
        pool: with the backend's answers.
        limit: the largest gap that counts as noise, in units of the noise.
        eager: whether a candidate that PyTorch's own float32 answer has at that rank is excused.
    """
    findings, noise = [], pool.noise
    for name in (name for name in pool.exact[0] if role_of(name) is Role.LOGITS and name in noise):
        bad = []
        for place, (exact, actual, sizes) in enumerate(zip(pool.exact, pool.actual, pool.sizes, strict=True)):
            unit = pool.rms_of(place, name)
            if unit is None:
                continue
            sides = exact[name], actual[name], pool.answers[place].eager if eager else {}
            message = _disagreement(name, limit * noise[name] * unit, *sides)
            del sides  # before those of the next input are read
            if message:
                bad.append(Finding("decision", name, False, message, sizes))
        findings.append(bad[0] if bad else Finding("decision", name, True))
    return findings


def _disagreement(name: str, noise: float, exact: np.ndarray, actual: np.ndarray, eager: Arrays) -> str | None:
    """The sentence for the worst rank that differs by more than the noise, argmax first.

    Args:
        name: the output.
        noise: the largest gap that does not count.
        exact, actual: the exact answer and the backend's.
        eager: the eager answers; without this output, none excuses a candidate.
    """
    reference, got = _leading(exact), _leading(actual)
    if np.array_equal(reference, got):
        return None
    right, wrong = (np.take_along_axis(exact, order, -1).astype(np.float64) for order in (reference, got))
    # Equal infinities have no gap.
    gaps = np.zeros(right.shape)
    np.abs(np.subtract(right, wrong, out=gaps, where=right != wrong), out=gaps)
    if name in eager and (gaps > noise).any():
        gaps[_leading(eager[name]) == got] = 0
    if not (gaps > noise).any():
        return None
    rank = 0 if (gaps[..., 0] > noise).any() else int(np.unravel_index(gaps.argmax(), gaps.shape)[-1])
    index = tuple(int(i) for i in np.unravel_index(gaps[..., rank].argmax(), gaps.shape[:-1]))
    high, low = right[index][rank], wrong[index][rank]
    place = "argmax" if rank == 0 else f"rank {rank + 1} of the top {reference.shape[-1]}"
    return (
        f"{name}: {place} at index {index}: got candidate {got[index][rank]}, should be {reference[index][rank]};"
        f" their float64 values {low:.6g} and {high:.6g} are {gaps[index][rank]:.3g} apart, the noise is {noise:.2g}"
    )


def _leading(values: np.ndarray) -> np.ndarray:
    """Indices of the largest values along the last axis, the largest first; equal values keep their order."""
    rows = values.reshape(-1, values.shape[-1]) if values.size else values
    at_once = max(1, spool.BLOCK // max(1, values.shape[-1]))
    if len(rows) <= at_once:
        return _leading_at_once(values)
    parts = [_leading_of_part(rows, slice(start, start + at_once)) for start in range(0, len(rows), at_once)]
    return np.concatenate(parts).reshape(*values.shape[:-1], -1)


def _leading_of_part(rows: np.ndarray, part: slice) -> np.ndarray:
    # Copied, because a slice is a view of all indices.
    leading = _leading_at_once(rows[part]).copy()
    spool.release(rows)
    return leading


def _leading_at_once(values: np.ndarray) -> np.ndarray:
    count = min(TOP, values.shape[-1])
    if values.shape[-1] <= 1024:
        return np.argsort(-values, axis=-1, kind="stable")[..., :count]
    leading = _maxima(values, count)
    if np.isfinite(np.take_along_axis(values, leading, -1)).all():
        return leading
    largest = np.sort(np.argpartition(-values, count - 1, axis=-1)[..., :count], axis=-1)
    order = np.argsort(-np.take_along_axis(values, largest, -1), axis=-1, kind="stable")
    return np.take_along_axis(largest, order, -1)


def _maxima(values: np.ndarray, count: int) -> np.ndarray:
    """The same one maximum after another, which is faster; right if all that it returns are finite."""
    left, places = values.copy(), np.empty((*values.shape[:-1], count), np.int64)
    for rank in range(count):
        places[..., rank] = left.argmax(-1)
        np.put_along_axis(left, places[..., rank : rank + 1], -np.inf, -1)
    return places
