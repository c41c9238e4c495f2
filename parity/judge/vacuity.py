"""Whether a comparison can fail at all: outputs that say something, and inputs that have a say in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from parity.judge.ratio import LIMIT
from parity.judge.rows import Row

Arrays = Mapping[str, np.ndarray]

NEAR_ZERO = 1e-6
# Where the exact answer moves by this many times the limit, one that is right within the limit moves too.
_CLEARLY = 3.0


def outputs(answers: Sequence[Arrays]) -> list[Row]:
    """One row for each output of the reference over a pool: it is neither near zero nor the same everywhere."""
    found = []
    for name in answers[0]:
        values = np.concatenate([answer[name].ravel() for answer in answers]).astype(np.float64)
        values = values[np.isfinite(values)]
        rms = _rms(values)
        spread = float(np.ptp(values)) if values.size else 0.0
        message = ""
        if not rms >= NEAR_ZERO:
            message = f"{name}: rms {rms:.3g} over the pool, should be at least {NEAR_ZERO:g}: any file would pass"
        elif not spread >= NEAR_ZERO * rms:
            message = f"{name}: the same value {values[0]:.6g} everywhere, should differ from place to place"
        found.append(Row("vacuity", name, not message, message, figures={"rms": rms}))
    return found


def effects(
    exact: Arrays,
    exact_changed: Mapping[str, Arrays],
    actual: Arrays,
    actual_changed: Mapping[str, Arrays],
    *,
    noise: Mapping[str, float],
    dead: Collection[str] = (),
    every: bool = True,
) -> list[Row]:
    """One row for each input, and one for each output: what changing inputs in turn does to reference and file.

    An input moves some output of the reference, and the same outputs of the file; one declared dead leaves all bits of
    all outputs as they are, in both. Every output is moved by some input.

    Args:
        exact, actual: what float64 and the file answer to one input.
        exact_changed, actual_changed: input name → what they answer when it alone is another.
        noise: the pooled noise of each output, in units of its rms.
        dead: the inputs declared dead.
        every: whether every input must move the reference, and every output of it be moved; else the file need only
            do as the reference does.
    """
    found, moved = [], set()
    for name, changed in exact_changed.items():
        here = {o: _move(exact[o], changed[o], exact[o]) / noise[o] for o in noise}
        there = {o: _move(actual[o], actual_changed[name][o], exact[o]) / noise[o] for o in noise}
        alive = {output for output, times in here.items() if times > _CLEARLY * LIMIT}
        moved |= alive
        if name in dead:
            message = _alive(name, exact, changed, actual, actual_changed[name])
        elif not alive and every:
            message = f"{name}: no output of the reference depends on it, should be declared dead with the reason"
        else:
            message = _differing(name, alive, here, there)
        found.append(Row("vacuity", name, not message, message))
    for name in noise:
        message = "" if name in moved or not every else f"{name}: no input has an effect on it, should have"
        found.append(Row("vacuity", name, not message, message))
    return found


def doubtful(
    exact: Arrays,
    actual: Arrays,
    actual_changed: Mapping[str, Arrays],
    *,
    noise: Mapping[str, float],
    dead: Collection[str] = (),
) -> bool:
    """Whether the file alone gives reason to ask `effects`, with the arguments of that."""
    moved, still = set(), False
    for name, changed in actual_changed.items():
        if name in dead:
            still |= any(array.tobytes() != changed[output].tobytes() for output, array in actual.items())
        else:
            there = {o for o in noise if _move(actual[o], changed[o], exact[o]) > LIMIT * noise[o]}
            still |= not there
            moved |= there
    return still or moved != set(noise)


def _alive(name, exact, exact_changed, actual, actual_changed):
    for whose, before, after in (("the reference", exact, exact_changed), ("the file", actual, actual_changed)):
        for output, array in before.items():
            if array.tobytes() != after[output].tobytes():
                return f"{name}: is declared dead, but {output} of {whose} depends on it"
    return ""


def _differing(name, alive, here, there):
    still = [output for output in sorted(alive) if not there[output] > LIMIT]
    if still:
        return f"{name}: no effect on {', '.join(still)} of the file, should have as in the reference"
    loose = [output for output, times in here.items() if times == 0 and not there[output] <= LIMIT]
    return f"{name}: has an effect on {', '.join(loose)} of the file, should have none" if loose else ""


def _move(before, after, exact):
    """How far an answer moves, in units of the rms of the exact answer."""
    finite = np.isfinite(exact)
    return _rms(after[finite].astype(np.float64) - before[finite]) / (_rms(exact[finite].astype(np.float64)) or 1.0)


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
