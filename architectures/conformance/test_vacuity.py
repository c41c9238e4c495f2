"""A comparison can fail: outputs vary, inputs affect them, and inputs declared dead do not."""

import pytest

from parity.fixtures import subjects
from parity.judge import vacuity
from parity.judge.findings import failures


@pytest.mark.cells(every_opset=False)
def test_outputs_say_something(cell, subject):
    """No output of the reference is near zero or constant: any file would pass there."""
    for sizes in ("traced", "other"):
        pool = subjects.pool(cell.architecture, cell.feature, sizes, dtype=cell.dtype)
        findings = vacuity.judge_outputs(pool.answers)
        assert [finding.subject for finding in findings] == list(subject.onnx_config.outputs)
        assert [finding.message for finding in failures(findings)] == []


@pytest.mark.cells(every_opset=False)
def test_inputs_have_effect(cell, subject, session):
    """Each input affects the same outputs of reference and file; exactly the declared dead inputs change no bit."""
    pool = subjects.pool(cell.architecture, cell.feature, "varied", dtype=cell.dtype)
    first, changes = subjects.single_changes(pool)
    assert set(changes) == set(subject.onnx_config.inputs)
    assert set(subject.onnx_config.dead_inputs) <= set(changes)
    with subjects.float64(subject) as run:
        reference = effects_on(run, first, changes)
    file = effects_on(session.run, first, changes)
    findings = vacuity.judge_effects(reference, file, pool.noise_at(0), dead=subject.onnx_config.dead_inputs)
    assert [finding.message for finding in failures(findings)] == []


def effects_on(run, first, changes):
    """A backend's answers to an input, and to each changed input."""
    return vacuity.Effects(run(first), {name: run(inputs) for name, inputs in changes.items()})
