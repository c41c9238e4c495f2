"""The vacuity check: constant outputs and inputs without effect fail."""

import dataclasses

import numpy as np
import pytest

from parity.architectures.conformance import test_vacuity
from parity.fixtures import subjects
from parity.fixtures.controls.faults import DEAD_SPECIMENS, HEALTHY
from parity.judge import vacuity
from parity.judge.findings import failures
from parity.judge.pool import Answers
from parity.judge.vacuity import Effects


def effects(subject, run, dead):
    pool = subjects.pool(subject.architecture, subject.feature, "varied")
    first, changes = subjects.single_changes(pool)
    with subjects.float64(subject) as exactly:
        reference = test_vacuity.effects_on(exactly, first, changes)
    file = reference if run is None else test_vacuity.effects_on(run, first, changes)
    return failures(vacuity.judge_effects(reference, file, pool.noise_at(0), dead=dead))


@pytest.mark.parametrize("specimen", DEAD_SPECIMENS, ids=str)
def test_an_input_without_effect_is_caught(bert, specimen):
    """A file whose output ignores an input fails, and the input is named."""
    assert f"{specimen.caught_by}: does not affect last_hidden_state of the file, should, as in the reference" in [
        row.message for row in effects(bert, specimen.session().run, dead=())
    ]


def test_a_dead_input_that_is_alive_is_caught(bert):
    """Declaring the mask dead fails if the reference depends on it."""
    (row,) = effects(bert, HEALTHY.session().run, dead=("attention_mask",))
    assert row.message == "attention_mask: is declared dead, but last_hidden_state of the reference depends on it"


def test_a_dead_input_that_is_not_declared_is_caught():
    """With a cross-attention cache the encoder's tokens have no effect, and must be declared."""
    bart = subjects.subject("bart", "default-with-past")
    assert [row.subject for row in effects(bart, None, dead=())] == ["input_ids"]
    assert effects(bart, None, dead=("input_ids",)) == []


def moves(**outputs):
    return {name: np.full(4, value, np.float64) for name, value in outputs.items()}


def test_effects_of_the_file_alone_are_caught():
    """A file that changes when the reference does not fails; so does an output that nothing changes."""
    before, noise = moves(y=1, z=1), {"y": 1e-7, "z": 1e-7}
    messages = [
        [
            row.message
            for row in failures(
                vacuity.judge_effects(*(Effects(before, {"x": x}) for x in (here, there)), noise, dead=d)
            )
        ]
        for here, there, d in (
            (moves(y=2, z=2), moves(y=2, z=2), ()),
            (moves(y=2, z=1), moves(y=2, z=1.01), ()),
            (before, moves(y=1, z=1 + 1e-15), ("x",)),
        )
    ]
    unmoved = ["y: no input affects it, at least one should", "z: no input affects it, at least one should"]
    assert messages == [
        [],
        ["x: affects z of the file, should not, as in the reference", unmoved[1]],
        ["x: is declared dead, but z of the file depends on it", *unmoved],
    ]


def test_an_output_that_says_nothing_is_caught(bert):
    """A reference of zeros, near zeros, or constants proves nothing."""
    from parity.reference import answers

    model = bert.fresh_model()
    norm = model.encoder.layer[-1].output.LayerNorm
    messages = []
    for gain, bias in ((0, 0), (1e-9, 0), (0, 1)):
        norm.weight.data.fill_(gain)
        norm.bias.data.fill_(bias)
        found = answers(model, bert.onnx_config, subjects.pool("bert", "default", "traced").samples, exact=False)
        (row,) = vacuity.judge_outputs([Answers(answer.eager, answer.eager) for answer in found])
        messages.append(row.message)
    assert [" ".join(message.split()[1:3]) for message in messages] == ["rms 0", "rms 1e-09", "the same"]


# The commands judge the file alone, and if that fails, also the float64 model.


def judge_claims(bert, run, answers, exactly, dead=(), place=0):
    """Failures of the claims about effects in a file, whatever its error ratio."""
    from parity.validation import claims_of

    pool = subjects.pool("bert", "default", "other")
    claims = claims_of(bert.source, [None, *pool.samples], exactly)
    claims = dataclasses.replace(claims, dead=dead, place=place)
    pool = dataclasses.replace(pool, answers=answers or pool.answers)
    pool = pool.with_actual([run(inputs) for inputs in pool.inputs])
    return failures([*claims.judge(run, pool), *vacuity.judge_outputs(pool.answers)])


@pytest.mark.parametrize("specimen", DEAD_SPECIMENS, ids=str)
def test_a_claimed_input_without_effect_is_told(bert, specimen):
    """The commands' verdict names the input that the file ignores and the model does not."""
    found = judge_claims(bert, specimen.session().run, None, lambda: subjects.float64(bert))
    assert f"{specimen.caught_by}: does not affect last_hidden_state of the file, should, as in the reference" in [
        row.message for row in found
    ]


def never():
    raise AssertionError("the model was asked for, though the file had given no reason")


def test_of_a_healthy_file_the_model_is_not_asked(bert):
    """The control: all inputs affect the file, nothing fails and nothing is loaded."""
    assert judge_claims(bert, HEALTHY.session().run, None, never) == []


def test_a_claimed_dead_input_that_is_alive_is_told(bert):
    """An input that is declared dead but affects the file fails."""
    (row,) = judge_claims(bert, HEALTHY.session().run, None, lambda: subjects.float64(bert), dead=("token_type_ids",))
    assert row.message.startswith("token_type_ids: is declared dead, but last_hidden_state of the reference")


def test_what_the_model_does_not_heed_either_is_no_fault_of_the_file():
    """If the model ignores an input, the file may too; in the suite it must be declared."""
    before, noise = moves(y=1), {"y": 1e-7}
    still = Effects(before, {"x": before})
    assert vacuity.needs_reference(before, still, noise)
    assert failures(vacuity.judge_effects(still, still, noise, every=False)) == []
    assert [row.subject for row in failures(vacuity.judge_effects(still, still, noise))] == ["x", "y"]


def test_a_claimed_output_that_says_nothing_is_told(bert):
    """A checkpoint that answers zero everywhere proves no file, and the verdict says so."""
    pool = subjects.pool("bert", "default", "other")

    def zero(arrays):
        return {name: array * 0 for name, array in arrays.items()}

    answers = [
        dataclasses.replace(a, eager=zero(a.eager), exact=zero(a.exact), jittered=zero(a.jittered))
        for a in pool.answers
    ]
    calls = []

    def run(inputs):
        calls.append(inputs)
        return answers[len(calls) - 1].eager

    (row,) = judge_claims(bert, run, answers, never, place=None)
    assert "any file would pass" in row.message
