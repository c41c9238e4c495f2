"""Whether a comparison can fail at all: outputs that are not trivial, and inputs that affect them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.judge.findings import Finding
from parity.judge.pool import Answers, Arrays, finite_places, rms_of_all, rms_of_difference
from parity.judge.ratio import LIMIT
from parity.judge.spool import are_equal_in_bits

NEAR_ZERO = 1e-6
# If the exact answer moves by more than this multiple of the limit, a correct answer must move as well.
_CLEARLY = 3.0


def judge_outputs(answers: Sequence[Answers]) -> list[Finding]:
    """One finding for each output over a pool: its exact answer is neither near zero nor the same everywhere.

    Args:
        answers: the reference's, with those in float64.

    Raises:
        ValueError: only the eager answers were computed.
    """
    findings = []
    for name in answers[0].eager:
        scales = [answer.scale(name) for answer in answers]
        size, low = rms_of_all(scales), min(scale.low for scale in scales)
        spread = max(0.0, max(scale.high for scale in scales) - low)
        message = ""
        if not size >= NEAR_ZERO:
            message = f"{name}: rms {size:.3g} over the pool, should be at least {NEAR_ZERO:g}: any file would pass"
        elif not spread >= NEAR_ZERO * size:
            message = f"{name}: the same value {low:.6g} everywhere, should differ from place to place"
        findings.append(Finding("vacuity", name, not message, message, measurements={"rms": size}))
    return findings


@dataclass(frozen=True)
class Effects:
    """A backend's answers to one input, and to the same input with each of its tensors changed in turn, by name."""

    before: Arrays
    changed: Mapping[str, Arrays]


def judge_effects(
    reference: Effects, file: Effects, noise: Mapping[str, float], *, dead: Collection[str] = (), every: bool = True
) -> list[Finding]:
    """One finding for each input and one for each output: the effects of changed inputs on reference and file.

    An input affects some output of the reference, and the same outputs of the file; an input declared dead leaves all
    bits of all outputs unchanged, in both. Every output is affected by some input.

    Args:
        reference: the effects in float64.
        file: the effects in the file.
        noise: of each output, as a difference of its values; see `parity.judge.pool.Pool.noise_at`.
        dead: the inputs declared dead.
        every: whether every input must affect the reference, and every output of it be affected; else the file only has
            to agree with the reference.
    """
    findings: list[Finding] = []
    moved: set[str] = set()
    for name, changed in reference.changed.items():
        here = {o: _move(reference.before[o], changed[o], reference.before[o]) / noise[o] for o in noise}
        there = {o: _move(file.before[o], file.changed[name][o], reference.before[o]) / noise[o] for o in noise}
        alive = {output for output, times in here.items() if times > _CLEARLY * LIMIT}
        moved |= alive
        if name in dead:
            message = _dead_input_problem(name, reference, file)
        elif not alive and every:
            message = f"{name}: no output of the reference depends on it; declare it in dead_inputs, with the reason"
        else:
            message = _effect_problem(name, alive, here, there)
        findings.append(Finding("vacuity", name, not message, message))
    for name in noise:
        message = "" if name in moved or not every else f"{name}: no input affects it, at least one should"
        findings.append(Finding("vacuity", name, not message, message))
    return findings


def needs_reference(exact: Arrays, file: Effects, noise: Mapping[str, float], *, dead: Collection[str] = ()) -> bool:
    """Whether the effects in the file give reason to call `judge_effects`.

    Args:
        exact: the float64 answer to the input.
        file: the effects in the file.
        noise, dead: as in `judge_effects`.
    """
    moved: set[str] = set()
    still = False
    for name, after in file.changed.items():
        if name in dead:
            still |= any(not are_equal_in_bits(array, after[output]) for output, array in file.before.items())
        else:
            there = {o for o in noise if _move(file.before[o], after[o], exact[o]) > LIMIT * noise[o]}
            still |= not there
            moved |= there
    return still or moved != set(noise)


def _dead_input_problem(name: str, reference: Effects, file: Effects) -> str:
    for label, effects in (("the reference", reference), ("the file", file)):
        for output, array in effects.before.items():
            if not are_equal_in_bits(array, effects.changed[name][output]):
                return f"{name}: is declared dead, but {output} of {label} depends on it"
    return ""


def _effect_problem(name: str, alive: Collection[str], here: Mapping[str, float], there: Mapping[str, float]) -> str:
    still = [output for output in sorted(alive) if not there[output] > LIMIT]
    if still:
        return f"{name}: does not affect {', '.join(still)} of the file, should, as in the reference"
    loose = [output for output, times in here.items() if times == 0 and not there[output] <= LIMIT]
    return f"{name}: affects {', '.join(loose)} of the file, should not, as in the reference" if loose else ""


def _move(before: np.ndarray, after: np.ndarray, exact: np.ndarray) -> float:
    """The change of an answer, where the exact one is finite."""
    return rms_of_difference(after, before, finite_places(exact))
