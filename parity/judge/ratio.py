"""The error ratio: how far a backend is from the exact answer, in units of what float32 itself gets wrong.

    R = sqrt( Σ err_backend² / Σ max(err_eager², jitter², (u·rms)²) )

Each error is the root mean square over the elements of one output of one input, divided by the rms of the exact
(float64) output; the sums pool all inputs. `err_eager` is float32 PyTorch against float64, `jitter` the same after
every weight has moved by one unit in the last place, u the unit roundoff of the dtype. A correct float32 backend stays
near 1 whatever the model's size and depth: of 372 pools over 8 architectures and both exporters the largest had 1.91,
and every seeded numeric fault at least 8. One input alone can reach 12 by luck (eager's own error can be tiny), so only
a pool of at least `MINIMUM_POOL` inputs is judged. Nor do eight single values say much: on kernels without vector
instructions a healthy file of electra reached 4.74 with them, 2.41 with the `MINIMUM_VALUES` that a pool of one shape
should have, and 0.59 with 64. The idea of judging a float32 result by the error of another
float32 result against float64 is that of torch._dynamo.utils.same (`fp64_ref`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.judge.rows import Row

LIMIT = 4.0
REPORT = 2.0
MINIMUM_POOL = 8
MINIMUM_VALUES = 16

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def inputs_needed(values: int) -> int:
    """How many inputs a pool of one shape should have, whose smallest output has that many values for each."""
    return max(MINIMUM_POOL, -(-MINIMUM_VALUES // max(1, values)))


@dataclass(frozen=True)
class Pooled:
    """One output's ratio over a pool, and its largest absolute difference from float32 PyTorch.

    `noise` is what the ratio is measured in: the root mean square of the denominators, in units of the outputs' rms.
    """

    ratio: float
    worst: float
    inputs: int
    noise: float


def pooled(
    exact: Sequence[np.ndarray],
    eager: Sequence[np.ndarray],
    jittered: Sequence[np.ndarray],
    actual: Sequence[np.ndarray],
) -> Pooled:
    """The ratio of one output over a pool of inputs; element i of each sequence answers input i.

    Elements that are not finite in `exact` are left out: their pattern is judged elsewhere. Where the exact answer is
    all zero, errors count as they are, with 1 for the rms.
    """
    above = below = worst = 0.0
    for reference, plain, moved, got in zip(exact, eager, jittered, actual, strict=True):
        finite = np.isfinite(reference)
        if not finite.any():
            continue
        answer = reference[finite].astype(np.float64)
        rms = _rms(answer) or 1.0
        u = UNIT_ROUNDOFF[plain.dtype.name]
        errors = [_rms(array[finite].astype(np.float64) - answer) / rms for array in (got, plain, moved)]
        above += errors[0] ** 2
        below += max(errors[1] ** 2, errors[2] ** 2, u**2)
        worst = max(worst, float(np.max(np.abs(got[finite].astype(np.float64) - plain[finite].astype(np.float64)))))
    return Pooled(math.sqrt(above / below) if below else 0.0, worst, len(exact), math.sqrt(below / len(exact)))


def noise(
    exact: Sequence[Mapping[str, np.ndarray]],
    eager: Sequence[Mapping[str, np.ndarray]],
    jittered: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """What the ratio of each floating output is measured in over this pool: see `Pooled`."""
    names = [name for name, array in eager[0].items() if np.issubdtype(array.dtype, np.floating)]
    sides = (exact, eager, jittered, eager)
    return {name: pooled(*([answers[name] for answers in side] for side in sides)).noise for name in names}


def rows(
    exact: Sequence[Mapping[str, np.ndarray]],
    eager: Sequence[Mapping[str, np.ndarray]],
    jittered: Sequence[Mapping[str, np.ndarray]],
    actual: Sequence[Mapping[str, np.ndarray]],
    *,
    limit: float = LIMIT,
    where: Sequence[str] = (),
) -> list[Row]:
    """One row for each floating output: passed when its pooled ratio is at most `limit`.

    Args:
        where: the sizes of each input; where they are given, a failed row is followed by one for each bad input.

    Raises:
        ValueError: fewer inputs than `MINIMUM_POOL`, which no ratio may judge.
    """
    if len(exact) < MINIMUM_POOL:
        raise ValueError(f"pool: {len(exact)} inputs, should be at least {MINIMUM_POOL}")
    found = []
    for name, first in eager[0].items():
        if not np.issubdtype(first.dtype, np.floating):
            continue
        pool = pooled(*([answers[name] for answers in side] for side in (exact, eager, jittered, actual)))
        passed = pool.ratio <= limit
        message = "" if passed else _message(name, pool, limit)
        figures = {"ratio": pool.ratio, "worst": pool.worst, "noise": pool.noise}
        found.append(Row("ratio", name, passed, message, figures=figures))
        if not passed:
            for sizes, reference, got in zip(where, exact, actual, strict=bool(where)):
                found.extend(_culprit(name, reference[name], got[name], limit * pool.noise, sizes))
    return found


def _message(name, pool, limit):
    return (
        f"{name}: error ratio {pool.ratio:.3g}, should be at most {limit:g}; over {pool.inputs} inputs the file is that"
        f" many times as far from float64 as PyTorch itself, largest difference {pool.worst:.3g}"
    )


def _culprit(name, reference, got, allowed, where):
    """A failed row when elements of one input are further from float64 than `allowed`, in units of its rms.

    With the `limit · noise` of a failed pool for `allowed`, at least one input of the pool has such elements.
    """
    finite = np.isfinite(reference)
    error = np.zeros(reference.shape)
    error[finite] = np.abs(got[finite].astype(np.float64) - reference[finite])
    allowed = allowed * (_rms(reference[finite]) or 1.0)
    count = int((error > allowed).sum())
    if count:
        index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
        message = (
            f"{name}: {count} of {error.size} values differ from float64 by more than {allowed:.2g}"
            f" ({100 * count / error.size:.1f} %); worst difference {error[index]:.3g} at index {index}: got"
            f" {got[index]:.6g}, should be {reference[index]:.6g}"
        )
        yield Row("values", name, False, message, where, {"worst": float(error[index]), "count": count, "index": index})


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
