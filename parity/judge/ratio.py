"""The error ratio: how far a backend is from the exact answer, in units of float32's own error.

    R = sqrt( Σ err_backend² / Σ max(err_eager², jitter², (u·rms)²) )

Each error is the root mean square over the elements of one output of one input, divided by the rms of the exact
(float64) output (see `Pool.rms_of`); the sums pool all inputs. `err_eager` is float32 PyTorch against float64,
`jitter` the same after every weight has moved by one unit in the last place, u the unit roundoff of the dtype. A
correct float32 backend stays near 1 whatever the model's size and depth: of 372 pools over 8 architectures and both
exporters the largest had 1.91, and every seeded numeric fault at least 8. One input alone can reach 12 by luck
(eager's own error can be tiny), so only a pool of at least `MINIMUM_POOL` inputs is judged. Eight single values are
too few as well: on kernels without vector instructions a healthy file of electra reached 4.74 with them, 2.41 with
the `MINIMUM_VALUES` that a pool of one shape should have, and 0.59 with 64. The idea of judging a float32 result by
the error of another float32 result against float64 is that of torch._dynamo.utils.same (`fp64_ref`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity.judge.findings import Finding
from parity.judge.pool import MINIMUM_VALUES, Measurement, Pool

LIMIT = 4.0
REPORT = 2.0
MINIMUM_POOL = 8


def inputs_needed(values: int) -> int:
    """The number of inputs for a pool of one shape, whose smallest output has this many values for each input."""
    return max(MINIMUM_POOL, -(-MINIMUM_VALUES // max(1, values)))


def require_size(pool: Pool) -> None:
    """Refuse a pool that is too small for a ratio.

    Raises:
        ValueError: fewer inputs than `MINIMUM_POOL`.
    """
    if len(pool) < MINIMUM_POOL:
        raise ValueError(f"pool: {len(pool)} inputs, should be at least {MINIMUM_POOL}")


def judge_ratio(pool: Pool, *, limit: float = LIMIT, locate: bool = True) -> list[Finding]:
    """One finding for each floating output: passed if its pooled ratio is at most `limit`.

    Args:
        pool: the inputs' answers, at least `MINIMUM_POOL`.
        limit: the largest ratio that passes.
        locate: whether a failure is followed by a finding for each input that fails by itself.

    Raises:
        ValueError: fewer inputs than `MINIMUM_POOL`.
    """
    require_size(pool)
    findings: list[Finding] = []
    for name in pool.floating:
        measurement = pool.measure(name)
        passed = measurement.ratio <= limit
        message = "" if passed else _message(name, measurement, limit)
        measurements = {"ratio": measurement.ratio, "worst": measurement.worst, "noise": measurement.noise}
        findings.append(Finding("ratio", name, passed, message, measurements=measurements))
        if locate and not passed:
            for place, (reference, actual) in enumerate(zip(pool.exact, pool.actual, strict=True)):
                allowed = limit * measurement.noise * (pool.rms_of(place, name) or 1.0)
                findings.extend(_culprit(name, reference[name], actual[name], allowed, pool.sizes[place]))
    return findings


def _message(name: str, measurement: Measurement, limit: float) -> str:
    return (
        f"{name}: error ratio {measurement.ratio:.3g}, should be at most {limit:g}; over {measurement.inputs} inputs"
        f" the file is that many times as far from float64 as PyTorch itself, largest difference"
        f" {measurement.worst:.3g}"
    )


def _culprit(name: str, reference: np.ndarray, actual: np.ndarray, allowed: float, sizes: str) -> Iterator[Finding]:
    """A failure if elements of one input are further from float64 than `allowed`.

    If that is the limit times the noise of a failed pool, at least one input of the pool has such elements.
    """
    finite = np.isfinite(reference)
    error = np.zeros(reference.shape)
    error[finite] = np.abs(actual[finite].astype(np.float64) - reference[finite])
    wrong = error > allowed
    count = int(wrong.sum())
    if count:
        index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
        message = (
            f"{name}: {count} of {error.size} values differ from float64 by more than {allowed:.2g}"
            f" ({100 * count / error.size:.1f} %); worst difference {error[index]:.3g} at index {index}: got"
            f" {actual[index]:.6g}, should be {reference[index]:.6g}"
        )
        first = tuple(int(place) for place in np.argwhere(wrong).min(axis=0))
        measurements = {"worst": float(error[index]), "count": count, "index": index, "first": first}
        yield Finding("values", name, False, message, sizes, measurements)
